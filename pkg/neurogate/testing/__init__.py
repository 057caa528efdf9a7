"""Fakes of what NeuroGate talks to, for its own tests and for anyone who builds on it."""

"""Logs and metrics: every name declared once."""

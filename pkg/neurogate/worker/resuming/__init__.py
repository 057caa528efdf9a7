"""Continuing, on this worker, the stream of an answer that another worker began (ADR 0018)."""

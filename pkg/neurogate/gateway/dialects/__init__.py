"""The APIs of the hot path, a module a family: how each reads a request and words an answer or an error (ADR 0009)."""

from neurogate.gateway.dialects.dialect import JSON, Answer, Dialect, Head

__all__ = ["JSON", "Answer", "Dialect", "Head"]

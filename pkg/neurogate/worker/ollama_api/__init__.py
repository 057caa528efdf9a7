"""Ollama's API on a worker: passed through to Ollama, translated for every other engine (ADR 0010)."""

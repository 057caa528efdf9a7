"""Ollama's habits of writing about models: `NAME` and `NAME:latest` are the same one, and sizes are 134.52M or 3.2B."""

from __future__ import annotations

from collections.abc import Container

LATEST = ":latest"


def known_as(name: str, known: Container[str]) -> str:
    """The name under which a model is known, `:latest` added or left out as need be; unknown, without `:latest`."""
    if name in known:
        return name
    bare = name.removesuffix(LATEST)
    if bare not in known and bare + LATEST in known:
        return bare + LATEST
    return bare


def parameter_size(count: int) -> str:
    """A number of parameters; empty for 0, which is an unknown one."""
    for unit, size, digits in (("B", 10**9, 1), ("M", 10**6, 2), ("K", 10**3, 0)):
        if count >= size:
            return f"{count / size:.{digits if count % size else 0}f}{unit}"
    return str(count or "")

"""Ollama's habit of naming models: `NAME` and `NAME:latest` are the same one."""

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

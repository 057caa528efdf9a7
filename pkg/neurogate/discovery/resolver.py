"""The contract of a resolver."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from neurogate.endpoint import Endpoint


class Resolver(Protocol):
    """A source of endpoints.

    How to add one: a class with `watch` in a module of its own, chosen in the gateway's composition root.
    """

    def watch(self) -> AsyncIterator[tuple[Endpoint, ...]]:
        """Every item is the complete set, so additions and removals cannot race. Ends when the set can never change."""
        ...

"""The contract of a resolver, and what those tell that ask somebody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from neurogate.endpoint import Endpoint

EMPTY_S = 60.0
"""How long nobody must have been there before that is believed, where it may be a slip."""


class Resolver(Protocol):
    """A source of endpoints.

    How to add one: a class with `watch` in a module of its own, its words in `sources`, and a line where the gateway
    makes resolvers of them. Whoever it asks is a collaborator, whose vendor stays in `neurogate.lookups`.
    """

    def watch(self) -> AsyncIterator[tuple[Endpoint, ...]]:
        """Every item is the complete set, so additions and removals cannot race. Ends when the set can never change.

        There is no item before a set is known: whoever cannot be asked changes nothing. No set names an id or an
        address twice.
        """
        ...


class SourceUnavailableError(Exception):
    """Whoever was asked gave no answer that can be used; the message says why, and what to change where that helps."""


class SourceObserver(Protocol):
    """Hears how looking for workers goes, for logs and metrics; `source` is as it was configured."""

    def found(self, source: str, endpoints: int) -> None:
        """An answer came, which names so many."""
        ...

    def failed(self, source: str, reason: str) -> None:
        """No answer came; the workers that were found before stay."""
        ...

    def broke(self, source: str, error: Exception) -> None:
        """It ended with an error that nobody expected, which is a fault of this program's; it is asked anew soon.

        The workers that were found before stay, as when it failed.
        """
        ...

    def forgotten(self, source: str) -> None:
        """It is not asked any more, and its workers are off the list."""
        ...

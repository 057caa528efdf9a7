"""What the listeners ask of a limiter, wherever it counts.

A request reserves before it is dispatched and settles exactly once, however it ends: what it did not use goes back.
"""

from __future__ import annotations

from typing import Protocol

from neurogate.edge.caller import Caller

Header = tuple[bytes, bytes]


class Reservation(Protocol):
    """One request's hold on its key's quota."""

    @property
    def headers(self) -> tuple[Header, ...]:
        """`RateLimit-*` for the answer, names in lower case."""
        ...

    def settle(self, tokens: int | None) -> None:
        """The request is over and used this many tokens, prompt and completion; None means none: a failure.

        Gives back what was reserved beyond that, and the concurrency unit. Never blocks, never raises; the second call
        does nothing.
        """
        ...


class Limiter(Protocol):
    """Counts what keys use, here or in a shared store."""

    def limits(self, caller: Caller) -> bool:
        """Whether this caller has any bound; when not, nobody needs to ask `reserve`."""
        ...

    async def reserve(self, caller: Caller, tokens: int) -> Reservation:
        """Hold one request, one concurrency unit and the estimated tokens.

        Raises RateLimitedError naming the bound that was reached and when to try again.
        """
        ...

"""What the listeners ask of a limiter, wherever it counts.

A request reserves before it is dispatched and settles exactly once, however it ends: what it did not use goes back.
"""

from __future__ import annotations

from typing import Protocol

from neurogate.edge.caller import Caller, Quota

Header = tuple[bytes, bytes]


class Reservation(Protocol):
    """One request's hold on its key's quota."""

    @property
    def headers(self) -> tuple[Header, ...]:
        """`RateLimit-*` and `x-ratelimit-*` for the answer, names in lower case; as things stood on entry."""
        ...

    @property
    def lines(self) -> bytes:
        """The same as lines of HTTP's head."""
        ...

    def settle(self, tokens: int | None) -> None:
        """The request is over and used this many tokens, prompt and completion together.

        The difference to what was reserved is given back, or charged; the concurrency unit is given back. 0 is a
        request that used none but counts as one: cancelled before its first token. None is a request that was not
        served, through no fault of its client: it does not count at all. Never blocks, never raises; the second call
        does nothing.
        """
        ...


class Limiter(Protocol):
    """Counts what keys use, here or in a shared store."""

    def limits(self, caller: Caller) -> bool:
        """Whether this caller has any bound; when not, nobody needs to ask `reserve`."""
        ...

    @property
    def immediate(self) -> bool:
        """Whether `reserve_now` answers: nobody else is to be asked."""
        ...

    def reserve_now(self, caller: Caller, tokens: int) -> Reservation:
        """As `reserve`, where the limiter is immediate."""
        ...

    async def reserve(self, caller: Caller, tokens: int) -> Reservation:
        """Hold one request, one concurrency unit and the estimated tokens. What is refused counts nowhere.

        Raises RateLimitedError naming the bound that was reached and when to try again, QuotaExhaustedError for a
        month's, LimiterUnavailableError when what the key has used cannot be known.
        """
        ...

    def month_used(self, caller: Caller) -> float | None:
        """Share of its tokens of this month that the caller has used, as far as is known here.

        None for one that has no bound, and for one of whom nothing is known yet. Asks nobody.
        """
        ...

    def reload(self, defaults: Quota) -> None:
        """Other defaults from now on; what is counted and what is held stays."""
        ...

    async def start(self) -> None:
        """Begin to talk to the store, if there is one. Never waits for it and never raises."""
        ...

    async def close(self) -> None:
        """Tell the store what is left to tell, within a bounded time, and let go of it."""
        ...


class StoreObserver(Protocol):
    """Hears how it goes with the shared store, for logs and metrics. Must return at once and never raise.

    `store` is the store's URL without user and password.
    """

    def store_up(self, store: str) -> None:
        """It answers, and everything is counted in it from now on."""
        ...

    def store_down(self, store: str, error: str) -> None:
        """It cannot be reached when the gateway starts, or does not answer any more."""
        ...

    def store_lost(self, store: str, settlements: int) -> None:
        """The gateway ends, and could not tell it these ends of requests."""
        ...

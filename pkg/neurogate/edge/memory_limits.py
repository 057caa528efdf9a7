"""Limits of one gateway, counted in its memory.

A key's account lives while anything of it counts: a request in flight, or an entry of its window. Idle accounts are
dropped as others are used, the longest unused first, so memory follows the keys of the last minute.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from neurogate.edge.caller import Caller, Quota
from neurogate.edge.limits import Header, Reservation
from neurogate.edge.months import month_of, until_next_s
from neurogate.edge.standing import (
    Standing,
    concurrency_refused,
    effective,
    headers,
    lines,
    month_refused,
    requests_refused,
    tokens_refused,
    too_large,
)
from neurogate.edge.windows import Entry, Window

_SWEEP = 4
"""Idle accounts dropped at most with each reservation: more than one, so that they cannot pile up."""

_NO_MONTH = -1
"""The month of a reservation whose key has no monthly bound: nothing is counted for it."""


class Account:
    """What one key uses."""

    __slots__ = ("concurrent", "window")

    def __init__(self) -> None:
        self.window = Window()
        self.concurrent = 0


class MemoryReservation:
    """One request's hold on its account."""

    __slots__ = ("_account", "_entry", "_key_id", "_limiter", "_month", "_quota", "_standing", "_tokens")

    def __init__(
        self,
        limiter: MemoryLimiter,
        key_id: str,
        account: Account,
        entry: Entry,
        *,
        month: int,
        tokens: int,
        quota: Quota,
        standing: Standing,
    ) -> None:
        self._limiter: MemoryLimiter | None = limiter
        self._key_id = key_id
        self._account = account
        self._entry = entry
        self._month = month
        self._tokens = tokens
        self._quota = quota
        self._standing = standing

    @property
    def headers(self) -> tuple[Header, ...]:
        """As things stood on entry."""
        return headers(self._quota, self._standing)

    @property
    def lines(self) -> bytes:
        """The same as lines of HTTP's head."""
        return lines(self._quota, self._standing)

    def settle(self, tokens: int | None) -> None:
        """Give back, or charge, the difference; the second call does nothing."""
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            limiter.settle(self._key_id, self._account, self._entry, self._month, reserved=self._tokens, used=tokens)


class MemoryLimiter:
    """Counts in this process. Everything is one synchronous step, so nothing can come in between."""

    def __init__(self, defaults: Quota, *, loop: asyncio.AbstractEventLoop, wall: Callable[[], float]) -> None:
        self._defaults = defaults
        self._bounded_by_default = not defaults.unlimited
        self._now = loop.time
        self._wall = wall
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self._month = month_of(wall())
        self._month_tokens: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<MemoryLimiter {len(self._accounts)} accounts, {len(self._month_tokens)} of this month>"

    def limits(self, caller: Caller) -> bool:
        """Whether this caller has any bound. Anybody, with authentication off, is bounded by address only."""
        return (self._bounded_by_default or not caller.quota.unlimited) and bool(caller.key_id)

    @property
    def immediate(self) -> bool:
        """It all is here."""
        return True

    async def reserve(self, caller: Caller, tokens: int) -> Reservation:
        """See `Limiter.reserve`. Never waits."""
        return self.reserve_now(caller, tokens)

    def reserve_now(self, caller: Caller, tokens: int) -> MemoryReservation:
        """The same, without waiting for anything."""
        now = self._now()
        if len(self._accounts) > 1:
            self._sweep(now)
        quota = effective(caller.quota, self._defaults)
        key_id = caller.key_id
        account = self._accounts.get(key_id) or Account()
        account.window.expire(now)
        month = self._turn_month() if quota.tokens_per_month else _NO_MONTH
        self._check(key_id, account, quota, tokens, now)
        self._accounts[key_id] = account
        self._accounts.move_to_end(key_id)
        entry = account.window.charge(now, 1, tokens)
        account.concurrent += 1
        if month != _NO_MONTH:
            self._month_tokens[key_id] = self._month_tokens.get(key_id, 0) + tokens
        standing = self._standing(key_id, account, now)
        return MemoryReservation(
            self, key_id, account, entry, month=month, tokens=tokens, quota=quota, standing=standing
        )

    def settle(
        self, key_id: str, account: Account, entry: Entry, month: int, *, reserved: int, used: int | None
    ) -> None:
        """End one reservation: what it did not use goes back, what it used beyond is charged now."""
        account.concurrent -= 1
        change = (used or 0) - reserved
        if change > 0:
            now = self._now()
            account.window.expire(now)
            account.window.charge(now, 0, change)
            self._accounts.move_to_end(key_id)
        else:
            account.window.refund(entry, 1 if used is None else 0, -change)
        if month == self._month:
            self._month_tokens[key_id] += change

    def month_used(self, caller: Caller) -> float | None:
        """See `Limiter.month_used`."""
        bound = effective(caller.quota, self._defaults).tokens_per_month
        self._turn_month()
        return self._month_tokens.get(caller.key_id, 0) / bound if bound else None

    def reload(self, defaults: Quota) -> None:
        """Other defaults from now on."""
        self._defaults = defaults
        self._bounded_by_default = not defaults.unlimited

    async def start(self) -> None:
        """There is nothing to start."""

    async def close(self) -> None:
        """There is nothing to close."""

    def standing(self, key_id: str) -> Standing:
        """What a key uses now, for whoever wants to show it."""
        now = self._now()
        self._turn_month()
        account = self._accounts.get(key_id)
        if account is None:
            return Standing(month_tokens=self._month_tokens.get(key_id, 0))
        account.window.expire(now)
        return self._standing(key_id, account, now)

    def _standing(self, key_id: str, account: Account, now: float) -> Standing:
        window = account.window
        requests_reset_s, tokens_reset_s = window.resets_s(now)
        month_tokens = self._month_tokens.get(key_id, 0)
        return Standing(
            window.requests, requests_reset_s, window.tokens, tokens_reset_s, account.concurrent, month_tokens
        )

    def _check(self, key_id: str, account: Account, quota: Quota, tokens: int, now: float) -> None:
        window = account.window
        per_minute = quota.tokens_per_minute
        if per_minute and tokens > per_minute:
            raise too_large(key_id, quota, tokens)
        month = quota.tokens_per_month
        if month and self._month_tokens.get(key_id, 0) + tokens > month:
            wait_s = until_next_s(self._wall())
            raise month_refused(key_id, quota, self._standing(key_id, account, now), tokens, wait_s)
        if quota.concurrent and account.concurrent >= quota.concurrent:
            raise concurrency_refused(key_id, quota, self._standing(key_id, account, now))
        no_request = quota.requests_per_minute and window.requests + 1 > quota.requests_per_minute
        no_tokens = per_minute and window.tokens + tokens > per_minute
        if no_request or no_tokens:
            wait_s = window.wait_s(
                now,
                requests=window.requests + 1 - quota.requests_per_minute if no_request else 0,
                tokens=window.tokens + tokens - per_minute if no_tokens else 0,
            )
            standing = self._standing(key_id, account, now)
            if no_request:
                raise requests_refused(key_id, quota, standing, wait_s)
            raise tokens_refused(key_id, quota, standing, tokens, wait_s)

    def _turn_month(self) -> int:
        """The month it is; a new one forgets the last. A wall clock that is put back stays in the later month."""
        month = month_of(self._wall())
        if month > self._month:
            self._month = month
            self._month_tokens.clear()
        return self._month

    def _sweep(self, now: float) -> None:
        for _ in range(min(_SWEEP, len(self._accounts))):
            key_id, account = next(iter(self._accounts.items()))
            if account.concurrent:
                self._accounts.move_to_end(key_id)
                continue
            account.window.expire(now)
            if not account.window.empty:
                return
            del self._accounts[key_id]

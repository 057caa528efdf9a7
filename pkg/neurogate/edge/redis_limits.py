"""Limits that several gateways share, counted in Redis; and what happens while Redis is down.

Every reservation is a lease with an id of its own. While it is held it is refreshed, so that the units of a gateway
that dies come back by themselves. A reservation whose answer never came is settled all the same: it may have been made.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import defaultdict
from collections.abc import Callable

from neurogate.edge.caller import Caller, Quota
from neurogate.edge.limits import Header, Reservation
from neurogate.edge.memory_limits import MemoryLimiter
from neurogate.edge.months import month_of, name_of, until_next_s
from neurogate.edge.redis_scripts import REFRESH, RESERVE, SETTLE, names
from neurogate.edge.redis_store import Command, RedisStore, StoreDownError
from neurogate.edge.settings import LimitSettings
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
from neurogate.errors import LimiterUnavailableError, RateLimitedError

_REFRESHED_AT_ONCE = 500
"""Leases in one script: Redis does nothing else meanwhile."""

Names = tuple[str, str, str, str]


class RedisReservation:
    """One request's lease."""

    __slots__ = ("_lease", "_limiter", "_names", "_quota", "_standing", "_tokens")

    def __init__(
        self, limiter: RedisLimiter, lease: str, where: Names, *, tokens: int, quota: Quota, standing: Standing
    ) -> None:
        self._limiter: RedisLimiter | None = limiter
        self._lease = lease
        self._names = where
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
        """Have it told to Redis, sooner or later; the second call does nothing."""
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            limiter.settle(self._lease, self._names, reserved=self._tokens, used=tokens, quota=self._quota)


class RedisLimiter:
    """Counts in Redis, together with every gateway that counts there under the same prefix."""

    def __init__(
        self,
        settings: LimitSettings,
        defaults: Quota,
        *,
        store: RedisStore,
        fallback: MemoryLimiter,
        loop: asyncio.AbstractEventLoop,
        wall: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._defaults = defaults
        self._store = store
        self._fallback = fallback
        self._loop = loop
        self._wall = wall
        self._open = settings.redis_fail == "open"
        self._retry_s = settings.redis_retry_s
        self._prefix = settings.redis_prefix
        self._lease_ms = round(settings.redis_lease_s * 1000)
        self._refresh_s = settings.redis_lease_s / 3
        self._gateway = f"{rng.getrandbits(64):016x}"
        self._made = 0
        self._held: dict[str, Names] = {}
        self._refreshed: set[str] = set()
        self._refresher: asyncio.TimerHandle | None = None
        self._told: dict[str, tuple[int, int]] = {}
        """By key with a monthly bound, what Redis last told of it: the month, and its tokens."""

    def __repr__(self) -> str:
        return f"<RedisLimiter {self._store!r}, {len(self._held)} held, fallback {self._fallback!r}>"

    @property
    def up(self) -> bool:
        """Whether Redis answered last; while it does not, `NEUROGATE_REDIS_FAIL` says what happens."""
        return self._store.up

    def limits(self, caller: Caller) -> bool:
        """Whether this caller has any bound. Anybody, with authentication off, is bounded by address only."""
        return self._fallback.limits(caller)

    @property
    def immediate(self) -> bool:
        """Redis is asked."""
        return False

    def reserve_now(self, caller: Caller, tokens: int) -> Reservation:
        """Nobody knows without asking."""
        raise NotImplementedError

    async def reserve(self, caller: Caller, tokens: int) -> Reservation:
        """See `Limiter.reserve`. Waits for Redis, at most twice its timeout, and not at all while it is down."""
        quota = effective(caller.quota, self._defaults)
        if quota.tokens_per_minute and tokens > quota.tokens_per_minute:
            raise too_large(caller.key_id, quota, tokens)
        self._made += 1
        lease = f"{self._gateway}-{self._made}"
        where = names(self._prefix, caller.key_id, name_of(month_of(self._wall())))
        command = Command(
            RESERVE,
            where,
            (
                lease,
                tokens,
                quota.requests_per_minute,
                quota.tokens_per_minute,
                quota.concurrent,
                quota.tokens_per_month,
                self._lease_ms,
            ),
        )
        try:
            why, wait_ms, *stands = await self._store.ask(command)
        except StoreDownError:
            if command.answer is not None:
                self.settle(lease, where, reserved=tokens, used=None, quota=quota)
            return self._without_redis(caller, tokens)
        except asyncio.CancelledError:
            self.settle(lease, where, reserved=tokens, used=None, quota=quota)
            raise
        standing = Standing(stands[0], stands[1] / 1000, stands[2], stands[3] / 1000, stands[4], stands[5])
        if why:
            raise self._refusal(why.decode(), caller.key_id, quota, standing, tokens=tokens, wait_s=wait_ms / 1000)
        self._held[lease] = where
        if quota.tokens_per_month:
            self._told[caller.key_id] = (month_of(self._wall()), standing.month_tokens)
        return RedisReservation(self, lease, where, tokens=tokens, quota=quota, standing=standing)

    def settle(self, lease: str, where: Names, *, reserved: int, used: int | None, quota: Quota) -> None:
        """Have one reservation ended."""
        self._held.pop(lease, None)
        refreshed = lease in self._refreshed
        self._refreshed.discard(lease)
        args = (lease, reserved, -1 if used is None else used, 1 if quota.tokens_per_month else 0, int(refreshed))
        self._store.tell(Command(SETTLE, where, args))

    def month_used(self, caller: Caller) -> float | None:
        """What Redis told when the key was used last, here: another gateway's requests show with the next one's."""
        bound = effective(caller.quota, self._defaults).tokens_per_month
        month, tokens = self._told.get(caller.key_id, (0, 0))
        if not bound or not month:
            return None
        return tokens / bound if month == month_of(self._wall()) else 0.0

    def reload(self, defaults: Quota) -> None:
        """Other defaults from now on."""
        self._defaults = defaults
        self._fallback.reload(defaults)

    async def start(self) -> None:
        """Reach for Redis. Waits a second at most, and leaves the rest to the store's own task."""
        await self._store.start()
        self._refresh()

    async def close(self) -> None:
        """Tell Redis what is left to tell, for a second at most."""
        if self._refresher is not None:
            self._refresher.cancel()
        await self._store.close()

    def _without_redis(self, caller: Caller, tokens: int) -> Reservation:
        if not self._open:
            raise LimiterUnavailableError(
                "what this key has used cannot be read just now; try again later",
                retry_after_s=math.ceil(self._retry_s),
            )
        return self._fallback.reserve_now(caller, tokens)

    def _refresh(self) -> None:
        """Keep the leases that are held from expiring."""
        self._refresher = self._loop.call_later(self._refresh_s, self._refresh)
        if not self._store.up:
            return
        by_key: defaultdict[Names, list[str]] = defaultdict(list)
        for lease, where in self._held.items():
            by_key[where].append(lease)
        self._refreshed.update(self._held)
        for where, leases in by_key.items():
            for start in range(0, len(leases), _REFRESHED_AT_ONCE):
                some = leases[start : start + _REFRESHED_AT_ONCE]
                self._store.tell(Command(REFRESH, where[1:3], (self._lease_ms, *some)))

    def _refusal(
        self, why: str, key_id: str, quota: Quota, standing: Standing, *, tokens: int, wait_s: float
    ) -> RateLimitedError:
        if why == "month":
            return month_refused(key_id, quota, standing, tokens, until_next_s(self._wall()))
        if why == "concurrent":
            return concurrency_refused(key_id, quota, standing)
        if why == "requests":
            return requests_refused(key_id, quota, standing, wait_s)
        return tokens_refused(key_id, quota, standing, tokens, wait_s)

"""Whatever becomes of requests, in whatever order: nothing of a quota leaks, and what is charged is what was used.

NEUROGATE_TEST_SCHEDULES is how many schedules are run.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neurogate import virtual_time
from neurogate.edge.caller import Caller, Quota
from neurogate.edge.limits import Reservation
from neurogate.edge.memory_limits import MemoryLimiter
from neurogate.edge.months import month_of
from neurogate.edge.standing import Standing, effective
from neurogate.errors import RateLimitedError

EXAMPLES = 500
SCHEDULES = int(os.environ.get("NEUROGATE_TEST_SCHEDULES", "10000"))
IN_ONE_EXAMPLE = max(1, SCHEDULES // EXAMPLES)
"""Schedules made from each of hypothesis's examples: most of its time goes into making one."""

KEYS = ("alice", "bob", "carol")


@dataclass
class Live:
    key_id: str
    reservation: Reservation
    reserved: int
    monthly: bool
    month: int
    charge: dict[str, float]
    produced: int = 0


@dataclass
class World:
    """The limiter, and a model that remembers every single charge."""

    limiter: MemoryLimiter
    loop: asyncio.AbstractEventLoop
    defaults: Quota
    rng: random.Random
    quotas: dict[str, Quota]
    live: list[Live] = field(default_factory=list)
    charges: dict[str, list[dict[str, float]]] = field(default_factory=lambda: {key: [] for key in KEYS})
    month_used: dict[tuple[str, int], int] = field(default_factory=dict)
    true_use: int = 0
    charged: int = 0

    def month(self) -> int:
        return month_of(self.loop.time())

    async def start(self) -> None:
        key_id = self.rng.choice(KEYS)
        caller = Caller(key_id, self.quotas[key_id])
        quota = effective(caller.quota, self.defaults)
        tokens = self.rng.randrange(40)
        if not self.limiter.limits(caller):
            assert quota.unlimited
            return
        fits = self.fits(key_id, quota, tokens, slack_s=1.0)
        may = self.fits(key_id, quota, tokens, slack_s=0.0)
        before = self.limiter.standing(key_id)
        try:
            reservation = await self.limiter.reserve(caller, tokens)
        except RateLimitedError:
            assert not fits, "refused what a log that is a second behind would have taken"
            assert self.limiter.standing(key_id) == before
            return
        assert may, "took more than the limit"
        charge = {"at": self.loop.time(), "requests": 1, "tokens": tokens}
        self.charges[key_id].append(charge)
        self.charged += tokens
        monthly = quota.tokens_per_month > 0
        if monthly:
            self.charge_month(key_id, self.month(), tokens)
        self.live.append(Live(key_id, reservation, tokens, monthly, self.month(), charge))

    async def token(self) -> None:
        if self.live:
            self.rng.choice(self.live).produced += self.rng.randrange(15)

    async def finish(self) -> None:
        self.end(lambda live: live.produced)

    async def cancel(self) -> None:
        self.end(lambda live: live.produced // 2)

    async def fail(self) -> None:
        self.end(lambda _: None)

    async def wait(self) -> None:
        """At and around the ends of a minute, and now and then into the next month."""
        waits = [0.001, 0.25, 0.5, 1.0, 7.0, 30.0, 59.75, 60.0, 90.0, 16 * 24 * 3600.0]
        await asyncio.sleep(self.rng.choice(waits))

    async def reload(self) -> None:
        """Defaults and keys change under requests in flight."""
        self.defaults = some_quota(self.rng)
        self.limiter.reload(self.defaults)
        self.quotas = {key: some_quota(self.rng) for key in KEYS}

    def end(self, used_of: Callable[[Live], int | None]) -> None:
        if not self.live:
            return
        live = self.live.pop(self.rng.randrange(len(self.live)))
        used = used_of(live)
        live.reservation.settle(used)
        if self.rng.random() < 0.3:
            live.reservation.settle(self.rng.choice([None, 0, 1000]))
        change = (used or 0) - live.reserved
        if change > 0:
            self.charges[live.key_id].append({"at": self.loop.time(), "requests": 0, "tokens": change})
        else:
            live.charge["tokens"] += change
            live.charge["requests"] -= used is None
        self.charged += change
        self.true_use += used or 0
        if live.monthly:
            self.charge_month(live.key_id, live.month, change)

    def charge_month(self, key_id: str, month: int, tokens: int) -> None:
        self.month_used[key_id, month] = self.month_used.get((key_id, month), 0) + tokens

    def used(self, key_id: str, what: str, slack_s: float) -> float:
        now = self.loop.time()
        return sum(charge[what] for charge in self.charges[key_id] if charge["at"] + 60 + slack_s > now)

    def fits(self, key_id: str, quota: Quota, tokens: int, slack_s: float) -> bool:
        in_flight = sum(live.key_id == key_id for live in self.live)
        month = self.month_used.get((key_id, self.month()), 0)
        return (
            (not quota.requests_per_minute or self.used(key_id, "requests", slack_s) + 1 <= quota.requests_per_minute)
            and (
                not quota.tokens_per_minute or self.used(key_id, "tokens", slack_s) + tokens <= quota.tokens_per_minute
            )
            and (not quota.concurrent or in_flight + 1 <= quota.concurrent)
            and (not quota.tokens_per_month or month + tokens <= quota.tokens_per_month)
        )

    def check(self) -> None:
        for key_id in KEYS:
            standing = self.limiter.standing(key_id)
            assert standing.concurrent == sum(live.key_id == key_id for live in self.live)
            for what in ("requests", "tokens"):
                counted = getattr(standing, what)
                assert self.used(key_id, what, 0.0) <= counted <= self.used(key_id, what, 1.0)
        assert self.charged == self.true_use + sum(live.reserved for live in self.live)

    async def check_end(self) -> None:
        while self.live:
            await self.finish()
        self.check()
        assert self.charged == self.true_use
        month = self.month()
        for key_id in KEYS:
            assert self.limiter.standing(key_id).month_tokens == self.month_used.get((key_id, month), 0)
        await asyncio.sleep(61)
        for _ in KEYS:
            held = await self.limiter.reserve(Caller("last", Quota(concurrent=1)), 0)
            held.settle(None)
        assert "<MemoryLimiter 1 accounts" in repr(self.limiter)
        assert all(msgspec.structs.replace(self.limiter.standing(key), month_tokens=0) == Standing() for key in KEYS)


def some_quota(rng: random.Random) -> Quota:
    return Quota(
        rng.choice([0, 0, -1, 1, 3, 8]),
        rng.choice([0, 0, -1, 20, 60, 150]),
        rng.choice([0, 0, -1, 1, 2, 4]),
        rng.choice([0, 0, -1, 100, 400]),
    )


steps = st.sampled_from(["start"] * 6 + ["token"] * 3 + ["finish"] * 3 + ["wait"] * 3 + ["cancel", "fail", "reload"])


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schedule=st.lists(steps, min_size=5, max_size=40), seed=st.integers(0, 2**32))
def test_no_schedule_leaks_a_unit(schedule: list[str], seed: int):
    async def main(rng: random.Random) -> None:
        loop = asyncio.get_running_loop()
        defaults = some_quota(rng)
        limiter = MemoryLimiter(defaults, loop=loop, wall=loop.time)
        world = World(limiter, loop, defaults, rng, {key: some_quota(rng) for key in KEYS})
        for step in rng.sample(schedule, len(schedule)):
            await getattr(world, step)()
            world.check()
        await world.check_end()

    for number in range(IN_ONE_EXAMPLE):
        virtual_time.run(main(random.Random(f"{seed} {number}")))

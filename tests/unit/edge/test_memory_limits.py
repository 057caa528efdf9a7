"""Limits counted in memory: what is admitted, what is refused and how that is told, what is given back."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import pytest

from neurogate import virtual_time
from neurogate.edge.caller import ANYBODY, Caller, Quota
from neurogate.edge.limiter import build_limiter, estimate
from neurogate.edge.memory_limits import MemoryLimiter
from neurogate.edge.settings import LimitSettings
from neurogate.edge.standing import Standing
from neurogate.errors import QuotaExhaustedError, RateLimitedError
from neurogate.gateway.limit_log import LimitLog
from neurogate.gateway.metrics import GatewayMetrics

NOVEMBER = datetime(2026, 11, 30, 23, 59, 0, tzinfo=UTC).timestamp()


class Rig:
    """A limiter on virtual time, whose wall clock runs with it."""

    def __init__(self, defaults: Quota) -> None:
        self.loop = asyncio.get_running_loop()
        self.wall_ahead = NOVEMBER
        self.limiter = MemoryLimiter(defaults, loop=self.loop, wall=self.wall)

    def wall(self) -> float:
        return self.wall_ahead + self.loop.time()


def on_rig(main: Callable[[Rig], Coroutine[Any, Any, None]], defaults: Quota = Quota()) -> None:  # noqa: B008 - frozen
    async def run() -> None:
        rig = Rig(defaults)
        await rig.limiter.start()
        await main(rig)
        await rig.limiter.close()

    virtual_time.run(run())


def caller(key_id: str = "alice", **quota: int) -> Caller:
    return Caller(key_id, Quota(**quota))


def test_a_caller_without_bounds_need_not_ask():
    async def main(rig: Rig) -> None:
        assert not rig.limiter.limits(caller())
        assert rig.limiter.limits(caller(concurrent=1))
        rig.limiter.reload(Quota(requests_per_minute=1))
        assert rig.limiter.limits(caller())
        assert not rig.limiter.limits(ANYBODY)

    on_rig(main)


def test_requests_a_minute_are_exact_at_the_boundary():
    """The request after the last one passes exactly a minute after the first, and not a moment before."""

    async def main(rig: Rig) -> None:
        alice = caller(requests_per_minute=2)
        (await rig.limiter.reserve(alice, 0)).settle(0)
        await asyncio.sleep(10)
        (await rig.limiter.reserve(alice, 0)).settle(0)
        await asyncio.sleep(49.75)
        with pytest.raises(RateLimitedError) as refused:
            await rig.limiter.reserve(alice, 0)
        assert refused.value.retry_after_s == 1
        assert "requests per minute (RPM): limit 2, used 2, requested 1" in refused.value.message
        assert "try again in 0.25s" in refused.value.message
        await asyncio.sleep(0.25)
        (await rig.limiter.reserve(alice, 0)).settle(0)
        with pytest.raises(RateLimitedError):
            await rig.limiter.reserve(alice, 0)

    on_rig(main)


def test_what_is_refused_counts_nowhere():
    async def main(rig: Rig) -> None:
        alice = caller(requests_per_minute=5, tokens_per_minute=100, concurrent=1, tokens_per_month=1000)
        held = await rig.limiter.reserve(alice, 60)
        before = rig.limiter.standing("alice")
        for tokens in (10, 50, 101, 1001):
            with pytest.raises(RateLimitedError):
                await rig.limiter.reserve(alice, tokens)
        assert rig.limiter.standing("alice") == before
        held.settle(60)

    on_rig(main)


def test_concurrent_requests_are_bounded_until_one_ends_once():
    async def main(rig: Rig) -> None:
        alice = caller(concurrent=2)
        first, second = [await rig.limiter.reserve(alice, 0) for _ in range(2)]
        with pytest.raises(RateLimitedError) as refused:
            await rig.limiter.reserve(alice, 0)
        assert refused.value.retry_after_s == 1.0
        assert "concurrent requests: limit 2, in flight 2" in refused.value.message
        first.settle(0)
        first.settle(0)
        third = await rig.limiter.reserve(alice, 0)
        with pytest.raises(RateLimitedError):
            await rig.limiter.reserve(alice, 0)
        second.settle(None)
        third.settle(0)
        assert rig.limiter.standing("alice").concurrent == 0

    on_rig(main)


def test_tokens_not_used_come_back_and_excess_is_charged():
    async def main(rig: Rig) -> None:
        alice = caller(tokens_per_minute=100)
        reserved = await rig.limiter.reserve(alice, 80)
        with pytest.raises(RateLimitedError) as refused:
            await rig.limiter.reserve(alice, 30)
        assert "tokens per minute (TPM): limit 100, used 80, requested 30" in refused.value.message
        reserved.settle(10)
        over = await rig.limiter.reserve(alice, 90)
        await asyncio.sleep(30)
        over.settle(150)
        assert rig.limiter.standing("alice").tokens == 160
        with pytest.raises(RateLimitedError) as refused:
            await rig.limiter.reserve(alice, 40)
        assert refused.value.retry_after_s == 60 - 30
        await asyncio.sleep(30)
        (await rig.limiter.reserve(alice, 40)).settle(None)
        assert rig.limiter.standing("alice").tokens == 60
        await asyncio.sleep(30)
        assert rig.limiter.standing("alice") == Standing()

    on_rig(main)


def test_a_wait_names_the_time_when_both_bounds_allow():
    async def main(rig: Rig) -> None:
        alice = caller(requests_per_minute=2, tokens_per_minute=100)
        (await rig.limiter.reserve(alice, 10)).settle(10)
        await asyncio.sleep(20)
        (await rig.limiter.reserve(alice, 90)).settle(90)
        with pytest.raises(RateLimitedError) as refused:
            await rig.limiter.reserve(alice, 20)
        assert refused.value.retry_after_s == 60

    on_rig(main)


def test_a_refund_after_the_minute_changes_nothing():
    async def main(rig: Rig) -> None:
        alice = caller(tokens_per_minute=100)
        slow = await rig.limiter.reserve(alice, 100)
        await asyncio.sleep(61)
        fresh = await rig.limiter.reserve(alice, 100)
        slow.settle(None)
        assert rig.limiter.standing("alice").tokens == 100
        fresh.settle(100)

    on_rig(main)


def test_a_request_larger_than_the_minute_is_told_not_to_wait():
    async def main(rig: Rig) -> None:
        with pytest.raises(RateLimitedError) as refused:
            await rig.limiter.reserve(caller(tokens_per_minute=100), 101)
        assert refused.value.retry_after_s is None
        assert (b"x-should-retry", b"false") in refused.value.headers
        assert "tokens per minute (TPM): limit 100, requested 101" in refused.value.message

    on_rig(main)


def test_a_month_ends_with_the_month():
    async def main(rig: Rig) -> None:
        alice = caller(tokens_per_month=1000)
        (await rig.limiter.reserve(alice, 600)).settle(700)
        with pytest.raises(QuotaExhaustedError) as refused:
            await rig.limiter.reserve(alice, 301)
        assert (refused.value.code, refused.value.retry_after_s) == ("insufficient_quota", 60)
        assert "1000 tokens per calendar month (UTC), used 700, requested 301" in refused.value.message
        assert (b"x-should-retry", b"false") in refused.value.headers
        across = await rig.limiter.reserve(alice, 300)
        await asyncio.sleep(60)
        (await rig.limiter.reserve(alice, 1000)).settle(900)
        across.settle(50)
        assert rig.limiter.standing("alice").month_tokens == 900

    on_rig(main)


def test_a_wall_clock_put_back_does_not_bring_the_last_month_back():
    async def main(rig: Rig) -> None:
        alice = caller(tokens_per_month=1000)
        rig.wall_ahead += 60
        (await rig.limiter.reserve(alice, 600)).settle(600)
        rig.wall_ahead -= 120
        with pytest.raises(QuotaExhaustedError):
            await rig.limiter.reserve(alice, 600)

    on_rig(main)


def test_a_keys_own_bound_wins_over_the_default_and_a_negative_one_is_none():
    async def main(rig: Rig) -> None:
        (await rig.limiter.reserve(Caller("nothing said"), 0)).settle(0)
        with pytest.raises(RateLimitedError):
            await rig.limiter.reserve(Caller("nothing said"), 0)
        for _ in range(3):
            (await rig.limiter.reserve(caller("more", requests_per_minute=3), 0)).settle(0)
        for _ in range(9):
            (await rig.limiter.reserve(caller("free", requests_per_minute=-1), 0)).settle(0)
        (await rig.limiter.reserve(caller("default", concurrent=7), 0)).settle(0)
        with pytest.raises(RateLimitedError):
            await rig.limiter.reserve(caller("default", concurrent=7), 0)

    on_rig(main, Quota(requests_per_minute=1))


def test_headers_tell_the_nearest_bound_and_each_as_openai_does():
    async def main(rig: Rig) -> None:
        alice = caller(requests_per_minute=10, tokens_per_minute=100)
        first = await rig.limiter.reserve(alice, 20)
        await asyncio.sleep(5)
        second = await rig.limiter.reserve(alice, 20)
        assert dict(second.headers) == {
            b"x-ratelimit-limit-requests": b"10",
            b"x-ratelimit-remaining-requests": b"8",
            b"x-ratelimit-reset-requests": b"1m0s",
            b"x-ratelimit-limit-tokens": b"100",
            b"x-ratelimit-remaining-tokens": b"60",
            b"x-ratelimit-reset-tokens": b"1m0s",
            b"ratelimit-limit": b"100",
            b"ratelimit-remaining": b"60",
            b"ratelimit-reset": b"60",
            b"ratelimit-policy": b'100;w=60;comment="tokens"',
        }
        first.settle(1)
        second.settle(1)
        await asyncio.sleep(55)
        third = dict((await rig.limiter.reserve(caller(requests_per_minute=2), 0)).headers)
        assert (third[b"ratelimit-remaining"], third[b"ratelimit-policy"]) == (b"0", b'2;w=60;comment="requests"')
        assert (await rig.limiter.reserve(caller("bob", concurrent=1), 0)).headers == ()

    on_rig(main)


@pytest.mark.parametrize(("waited_s", "told"), [(0.88, b"59.2s"), (59.88, b"120ms"), (20.0, b"40s")])
def test_resets_are_written_as_openai_writes_them(waited_s: float, told: bytes):
    async def main(rig: Rig) -> None:
        held = await rig.limiter.reserve(caller(requests_per_minute=3), 0)
        await asyncio.sleep(waited_s)
        with pytest.raises(RateLimitedError) as refused:
            await rig.limiter.reserve(caller(requests_per_minute=1), 0)
        assert dict(refused.value.headers)[b"x-ratelimit-reset-requests"] == told
        held.settle(0)

    on_rig(main)


def test_idle_keys_leave_no_state():
    """Twenty thousand keys cost memory for their minute, and none after it."""

    async def main(rig: Rig) -> None:
        await asyncio.sleep(1)
        before = tracemalloc.get_traced_memory()[0]
        for number in range(20_000):
            rig.limiter.reserve_now(caller(f"key-{number}", requests_per_minute=10, concurrent=1), 5).settle(3)
        assert tracemalloc.get_traced_memory()[0] - before < 30_000_000
        await asyncio.sleep(61)
        for _ in range(5_000):
            rig.limiter.reserve_now(caller(requests_per_minute=0, concurrent=1), 0).settle(None)
        assert repr(rig.limiter) == "<MemoryLimiter 1 accounts, 0 of this month>"
        # What is left is the dictionary's own table, which shrinks when it next grows.
        assert tracemalloc.get_traced_memory()[0] - before < 3_000_000

    tracemalloc.start()
    try:
        on_rig(main)
    finally:
        tracemalloc.stop()


def test_a_busy_key_keeps_its_account_however_long():
    async def main(rig: Rig) -> None:
        held = await rig.limiter.reserve(caller("slow", concurrent=1), 0)
        await asyncio.sleep(3600)
        for _ in range(9):
            (await rig.limiter.reserve(caller("other", concurrent=1), 0)).settle(0)
        with pytest.raises(RateLimitedError):
            await rig.limiter.reserve(caller("slow", concurrent=1), 0)
        held.settle(0)
        assert rig.limiter.standing("stranger") == Standing()

    on_rig(main)


def test_an_estimate_is_the_prompt_and_the_most_that_is_asked_for():
    settings = LimitSettings(expected_answer_tokens=100)

    assert estimate(401, None, settings) == 101 + 100
    assert estimate(0, 7, settings, answers=3) == 21


def test_without_redis_a_gateway_counts_in_memory():
    async def main() -> None:
        settings = LimitSettings(requests_per_minute=1, tokens_per_month=9)
        limiter = build_limiter(
            settings,
            loop=asyncio.get_running_loop(),
            wall=lambda: NOVEMBER,
            rng=random.Random(1),
            observer=LimitLog(GatewayMetrics()),
        )
        (await limiter.reserve(caller(), 9)).settle(9)
        with pytest.raises(RateLimitedError):
            await limiter.reserve(caller(), 0)

    virtual_time.run(main())

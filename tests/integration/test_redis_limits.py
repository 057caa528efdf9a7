"""Limits that gateways share in a real Redis: the same count as in memory, and what happens while Redis is away."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from neurogate.edge.caller import Caller, Quota
from neurogate.edge.limiter import build_limiter
from neurogate.edge.redis_limits import RedisLimiter
from neurogate.edge.redis_scripts import KEEP_MS, REFRESH, RESERVE, SETTLE, names
from neurogate.edge.settings import LimitSettings
from neurogate.errors import (
    ConfigError,
    LimiterUnavailableError,
    QuotaExhaustedError,
    RateLimitedError,
)
from neurogate.gateway.limit_log import LimitLog
from neurogate.gateway.metrics import GatewayMetrics
from real_loop import eventually, run_real
from redis_support import Between, RedisServer, redis_server

WALL = 1795252000.0  # 2026-11-21
FOREVER = 3600.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as running:
        yield running


@asynccontextmanager
async def gateway(server: RedisServer, *, seed: int = 1, url: str = "", **settings: Any) -> AsyncIterator[RedisLimiter]:
    made = build_limiter(
        LimitSettings(redis_url=url or server.url, **{"redis_timeout_s": 5.0, **settings}),
        loop=asyncio.get_running_loop(),
        wall=lambda: WALL,
        rng=random.Random(seed),
        observer=LimitLog(GatewayMetrics()),
    )
    assert isinstance(made, RedisLimiter)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


def caller(key_id: str = "alice", **quota: int) -> Caller:
    return Caller(key_id, Quota(**quota))


async def told(limiter: RedisLimiter) -> None:
    """Wait until nothing is left to tell, and the last round trip is over."""
    await eventually(lambda: "0 told" in repr(limiter))
    (await limiter.reserve(caller("nobody", concurrent=99), 0)).settle(None)
    await eventually(lambda: "0 told" in repr(limiter))


def leases(server: RedisServer) -> list[bytes]:
    """What is held of alice's; the marks of what was settled before it was reserved are no leases."""
    members = server.client().zrange(names("neurogate", "alice", "")[1], 0, -1)
    return [member for member in members if not member.startswith(b"-")]


def test_two_gateways_share_every_bound(server: RedisServer):
    async def main() -> None:
        async with gateway(server) as here, gateway(server, seed=2) as there:
            assert here.up
            assert there.up
            for bound in ("requests_per_minute", "concurrent"):
                alice = caller(bound, **{bound: 2})
                first = await here.reserve(alice, 0)
                second = await there.reserve(alice, 0)
                for limiter in (here, there):
                    with pytest.raises(RateLimitedError):
                        await limiter.reserve(alice, 0)
                first.settle(0)
                second.settle(0)
            bob = caller("bob", tokens_per_minute=100)
            held = await here.reserve(bob, 60)
            with pytest.raises(RateLimitedError) as refused:
                await there.reserve(bob, 41)
            assert refused.value.retry_after_s == 60
            assert "limit 100, used 60, requested 41" in refused.value.message
            held.settle(10)
            held.settle(10)
            await told(here)
            rest = await there.reserve(bob, 90)
            assert dict(rest.headers)[b"x-ratelimit-remaining-tokens"] == b"0"
            rest.settle(90)
            with pytest.raises(RateLimitedError) as refused:
                await here.reserve(bob, 101)
            assert refused.value.retry_after_s is None

    run_real(main())


def test_concurrent_units_come_back_when_a_request_ends(server: RedisServer):
    async def main() -> None:
        async with gateway(server) as limiter:
            for used in (0, 5, None):
                held = await limiter.reserve(caller(concurrent=1), 0)
                with pytest.raises(RateLimitedError):
                    await limiter.reserve(caller(concurrent=1), 0)
                held.settle(used)
                await told(limiter)

    run_real(main())


def test_what_a_key_has_used_of_its_month_is_told_as_redis_told_it_last(server: RedisServer):
    """For metrics: nobody is asked for it, so another gateway's requests show with the next one here."""

    async def main() -> None:
        async with gateway(server) as one, gateway(server, seed=2) as other:
            alice = caller(tokens_per_month=1000)
            assert (one.month_used(alice), one.month_used(caller("bob"))) == (None, None)
            (await one.reserve(alice, 100)).settle(100)
            assert one.month_used(alice) == 0.1
            await told(one)
            (await other.reserve(alice, 200)).settle(200)
            assert (one.month_used(alice), other.month_used(alice)) == (0.1, 0.3)

    run_real(main())


def test_a_months_budget_survives_a_restart_of_the_gateways(server: RedisServer):
    async def main() -> None:
        alice = caller(tokens_per_month=1000)
        async with gateway(server) as limiter:
            (await limiter.reserve(alice, 500)).settle(700)
        async with gateway(server, seed=2) as limiter:
            with pytest.raises(QuotaExhaustedError) as refused:
                await limiter.reserve(alice, 301)
            assert "used 700, requested 301" in refused.value.message
            assert refused.value.retry_after_s > 9 * 24 * 3600
            (await limiter.reserve(alice, 300)).settle(None)

    run_real(main())


def test_defaults_can_be_reloaded(server: RedisServer):
    async def main() -> None:
        async with gateway(server) as limiter:
            assert not limiter.limits(caller())
            limiter.reload(Quota(concurrent=1))
            assert limiter.limits(caller())
            held = await limiter.reserve(caller(), 0)
            with pytest.raises(RateLimitedError):
                await limiter.reserve(caller(), 0)
            held.settle(0)

    run_real(main())


def test_eight_gateways_at_once_admit_exactly_the_limit(server: RedisServer):
    """Eight processes, each with its own connection, ask as fast as they can for one key."""
    program = Path(__file__).parents[1] / "hammer_limits.py"
    alice = {"requests_per_minute": 500, "tokens_per_minute": 100_000}
    hammers = [
        subprocess.Popen(
            [sys.executable, str(program), server.url, str(seed), json.dumps(alice)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in range(8)
    ]
    try:
        for hammer in hammers:
            assert hammer.stdout is not None
            assert hammer.stdout.readline() == "ready\n"
        for hammer in hammers:
            assert hammer.stdin is not None
            hammer.stdin.write("go\n")
            hammer.stdin.flush()
        results = [json.loads(hammer.communicate(timeout=60)[0]) for hammer in hammers]
    finally:
        for hammer in hammers:
            hammer.kill()
            hammer.communicate()

    assert sum(result["admitted"] for result in results) == 500
    assert sum(result["refused"] for result in results) == 8 * 250 - 500
    assert max(result["concurrent"] for result in results) > 8  # they really were at it together


def test_eight_gateways_never_exceed_the_concurrent_limit(server: RedisServer):
    async def main() -> None:
        alice = caller(concurrent=5)
        in_flight = most = admitted = 0

        async def client(limiter: RedisLimiter, rng: random.Random) -> None:
            nonlocal in_flight, most, admitted
            for _ in range(40):
                try:
                    held = await limiter.reserve(alice, 1)
                except RateLimitedError:
                    continue
                in_flight += 1
                admitted += 1
                most = max(most, in_flight)
                for _ in range(rng.randrange(3)):
                    await asyncio.sleep(0)
                in_flight -= 1
                held.settle(rng.choice([None, 0, 2]))

        async with gateways(server, 8) as limiters, asyncio.TaskGroup() as clients:
            for number, limiter in enumerate(limiters * 4):
                clients.create_task(client(limiter, random.Random(number)))
        assert most <= 5
        assert admitted > 40
        assert leases(server) == []

    run_real(main())


@asynccontextmanager
async def gateways(server: RedisServer, count: int) -> AsyncIterator[list[RedisLimiter]]:
    async with gateway(server, seed=count) as one:
        if count == 1:
            yield [one]
            return
        async with gateways(server, count - 1) as others:
            yield [one, *others]


# What Redis counts is what memory counts


class Clocked:
    """The scripts on a clock that the test moves, against a model that keeps every single charge."""

    def __init__(self, server: RedisServer) -> None:
        self.redis = server.client()
        self.now_ms = 1_000_000
        self.charges: list[dict[str, Any]] = []
        self.scripts = {
            script: self.redis.register_script(
                script.replace("redis.call('TIME')", "redis.call('LRANGE', 'clock', 0, 1)")
            )
            for script in (RESERVE, SETTLE, REFRESH)
        }

    def run(self, script: str, keys: tuple[str, ...], *args: object) -> Any:
        self.redis.delete("clock")
        self.redis.rpush("clock", self.now_ms // 1000, self.now_ms % 1000 * 1000)
        return self.scripts[script](keys=list(keys), args=list(args))

    def used(self, what: str, *, slack_ms: int) -> int:
        return sum(one[what] for one in self.charges if one["at"] + 60_000 + slack_ms > self.now_ms)


def test_the_scripts_count_every_minute_exactly(server: RedisServer):
    """Random reservations and settlements: never over the limit, and never more than a second behind a full log."""
    for seed in range(20):
        rng = random.Random(seed)
        server.client().flushall()
        clocked = Clocked(server)
        keys = names("test", "a}b", "2026-11")
        held: list[tuple[str, dict[str, Any]]] = []
        month = 0
        for number in range(150):
            clocked.now_ms += rng.choice([0, 1, 400, 999, 1000, 3000, 20_000])
            if rng.random() < 0.6:
                tokens = rng.randrange(50)
                why, wait_ms, requests, _, used, _, concurrent, months = clocked.run(
                    RESERVE, keys, f"lease-{number}", tokens, 12, 300, 0, 100_000, 10_000_000
                )
                exact = clocked.used("requests", slack_ms=0), clocked.used("tokens", slack_ms=0)
                loose = clocked.used("requests", slack_ms=1000), clocked.used("tokens", slack_ms=1000)
                taken = not why
                if taken:
                    assert exact[0] + 1 <= 12
                    assert exact[1] + tokens <= 300
                    month += tokens
                    charge = {"at": clocked.now_ms, "requests": 1, "tokens": tokens}
                    clocked.charges.append(charge)
                    held.append((f"lease-{number}", charge))
                else:
                    assert loose[0] + 1 > 12 or loose[1] + tokens > 300
                    assert 0 < wait_ms <= 60_000
                own = (1, tokens) if taken else (0, 0)
                assert exact[0] + own[0] <= requests <= loose[0] + own[0]
                assert exact[1] + own[1] <= used <= loose[1] + own[1]
                assert (concurrent, months) == (len(held), month)
            elif held:
                lease, charge = held.pop(rng.randrange(len(held)))
                tokens = rng.choice([-1, 0, rng.randrange(60), charge["tokens"]])
                assert clocked.run(SETTLE, keys, lease, charge["tokens"], tokens, 1) == 1
                assert clocked.run(SETTLE, keys, lease, charge["tokens"], tokens, 1) == 0
                change = max(tokens, 0) - charge["tokens"]
                month += change
                if change > 0:
                    clocked.charges.append({"at": clocked.now_ms, "requests": 0, "tokens": change})
                else:
                    charge["tokens"] += change
                    charge["requests"] -= tokens < 0
        assert all(0 < clocked.redis.pttl(name) < 41 * 24 * 3600 * 1000 for name in clocked.redis.keys("test:*"))


def test_a_clock_put_back_does_not_stop_the_minute(server: RedisServer):
    clocked = Clocked(server)
    keys = names("test", "alice", "")
    assert clocked.run(RESERVE, keys, "one", 0, 1, 0, 0, 0, 1000)[0] == b""
    clocked.now_ms -= 900_000
    assert clocked.run(RESERVE, keys, "two", 0, 1, 0, 0, 0, 1000)[:2] == [b"requests", 60_000]
    clocked.now_ms += 1
    assert clocked.run(RESERVE, keys, "two", 0, 2, 0, 0, 0, 1000)[0] == b""
    clocked.now_ms += 60_000
    assert clocked.run(RESERVE, keys, "three", 0, 1, 0, 0, 0, 1000)[0] == b""


def test_a_lease_that_nobody_refreshes_gives_its_unit_back(server: RedisServer):
    clocked = Clocked(server)
    keys = names("test", "alice", "")
    assert clocked.run(RESERVE, keys, "kept", 0, 0, 0, 2, 0, 30_000)[0] == b""
    assert clocked.run(RESERVE, keys, "dead", 0, 0, 0, 2, 0, 30_000)[0] == b""
    clocked.now_ms += 20_000
    clocked.run(REFRESH, keys[1:3], 30_000, "kept")
    assert clocked.run(RESERVE, keys, "more", 0, 0, 0, 2, 0, 30_000)[0] == b"concurrent"
    clocked.now_ms += 10_000
    assert clocked.run(RESERVE, keys, "more", 0, 0, 0, 2, 0, 30_000)[0] == b""
    assert clocked.run(RESERVE, keys, "much", 0, 0, 0, 2, 0, 30_000)[0] == b"concurrent"
    assert clocked.run(SETTLE, keys, "dead", 0, 0, 0) == 1
    clocked.now_ms += 30_000 + KEEP_MS
    assert clocked.run(RESERVE, keys, "next", 0, 0, 0, 2, 0, 30_000)[0] == b""
    assert clocked.redis.zrange(keys[1], 0, -1) == [b"next"]
    assert list(clocked.redis.hgetall(keys[2])) == [b"next"]


def test_a_reservation_that_was_given_up_before_it_arrived_is_void(server: RedisServer):
    clocked = Clocked(server)
    keys = names("test", "alice", "2026-11")
    assert clocked.run(SETTLE, keys, "late", 7, -1, 1) == 0
    assert clocked.run(RESERVE, keys, "late", 7, 0, 0, 5, 100, 1000)[0] == b"void"
    clocked.run(REFRESH, keys[1:3], 1000, "late")
    assert clocked.run(RESERVE, keys, "next", 7, 0, 0, 1, 100, 1000)[-2:] == [1, 7]


def test_a_settlement_whose_state_is_lost_gives_nothing_back_that_is_not_there(server: RedisServer):
    clocked = Clocked(server)
    keys = names("test", "alice", "2026-11")
    clocked.run(RESERVE, keys, "old", 70, 0, 0, 5, 100, 30_000)
    clocked.redis.flushall()
    clocked.run(REFRESH, keys[1:3], 30_000, "old")
    assert clocked.run(RESERVE, keys, "new", 10, 0, 0, 5, 100, 30_000)[-2:] == [2, 10]
    assert clocked.run(SETTLE, keys, "old", 70, 0, 1) == 1
    assert clocked.run(RESERVE, keys, "newer", 0, 0, 0, 5, 100, 30_000)[-2:] == [2, 10]


# When Redis does not answer


def test_a_paused_redis_costs_one_timeout_and_then_nothing(server: RedisServer):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with gateway(server, redis_timeout_s=0.3, redis_retry_s=FOREVER) as limiter:
            kept = await limiter.reserve(caller(concurrent=2), 0)
            server.pause()
            try:
                began = loop.time()
                async with asyncio.TaskGroup() as clients:
                    first = [clients.create_task(limiter.reserve(caller(concurrent=2), 0)) for _ in range(2)]
                assert 0.2 < loop.time() - began < 5
                assert not limiter.up
                began = loop.time()
                with pytest.raises(RateLimitedError):
                    await limiter.reserve(caller(concurrent=2), 0)
                assert loop.time() - began < 0.1
                for task in first:
                    task.result().settle(0)
                (await limiter.reserve(caller(concurrent=2), 0)).settle(0)
                kept.settle(0)
                assert loop.time() - began < 0.2
            finally:
                server.go_on()

    run_real(main())


def test_a_paused_redis_that_goes_on_holds_nothing_of_what_was_given_up(server: RedisServer):
    """The commands it finds when it goes on reserve for nobody: all is given back, and the month is right."""

    async def main() -> None:
        async with gateway(server, redis_timeout_s=0.3, redis_retry_s=0.1) as limiter:
            alice = caller(concurrent=3, tokens_per_month=1000)
            kept = await limiter.reserve(alice, 100)
            server.pause()
            (await limiter.reserve(alice, 500)).settle(500)
            kept.settle(40)
            server.go_on()
            await eventually(lambda: limiter.up)
            await told(limiter)
            for _ in range(2):
                (await limiter.reserve(alice, 0)).settle(0)
            await told(limiter)
            keys = names("neurogate", "alice", "2026-11")
            client = server.client()
            assert leases(server) == []
            assert client.hlen(keys[2]) == 0
            assert client.get(keys[3]) == b"40"

    run_real(main())


def test_closed_answers_503_while_redis_is_down_and_counts_again_when_it_is_back(server: RedisServer):
    async def main() -> None:
        async with gateway(server, redis_fail="closed", redis_retry_s=0.1) as limiter:
            server.kill()
            for _ in range(3):
                with pytest.raises(LimiterUnavailableError) as refused:
                    await limiter.reserve(caller(concurrent=1), 0)
                assert refused.value.retry_after_s == 1
            server.start()
            await eventually(lambda: limiter.up)
            held = await limiter.reserve(caller(concurrent=1), 0)
            with pytest.raises(RateLimitedError):
                await limiter.reserve(caller(concurrent=1), 0)
            held.settle(0)

    run_real(main())


def test_what_ended_while_redis_was_away_is_told_when_it_is_back(server: RedisServer):
    async def main() -> None:
        async with gateway(server, redis_timeout_s=0.3, redis_retry_s=0.1) as limiter:
            alice = caller(concurrent=50)
            held = [await limiter.reserve(alice, 0) for _ in range(50)]
            server.pause()
            for reservation in held[:10]:
                reservation.settle(0)
            await eventually(lambda: not limiter.up)
            for reservation in held[10:]:
                reservation.settle(0)
            server.go_on()
            await eventually(lambda: limiter.up)
            await told(limiter)
            assert leases(server) == []

    run_real(main())


def test_a_redis_that_forgot_its_scripts_is_told_them_again(server: RedisServer):
    async def main() -> None:
        async with gateway(server) as limiter:
            server.client().script_flush()
            held = await limiter.reserve(caller(concurrent=1), 0)
            with pytest.raises(RateLimitedError):
                await limiter.reserve(caller(concurrent=1), 0)
            held.settle(0)

    run_real(main())


def test_a_redis_that_takes_no_writes_counts_as_down(server: RedisServer):
    async def main() -> None:
        async with gateway(server, redis_fail="closed", redis_retry_s=0.1) as limiter:
            server.client().config_set("maxmemory", 1)
            with pytest.raises(LimiterUnavailableError):
                await limiter.reserve(caller(concurrent=1), 0)
            server.client().config_set("maxmemory", 0)
            await eventually(lambda: limiter.up)
            (await limiter.reserve(caller(concurrent=1), 0)).settle(0)

    run_real(main())


def test_a_redis_that_is_loading_counts_as_down(tmp_path: Path):
    with redis_server(tmp_path) as server:
        for number in range(100):
            server.client().set(f"key-{number}", random.Random(number).randbytes(5000))
        server.client().save()
        server.kill()
        server.start(
            "--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024", until="Loading RDB"
        )

        async def main() -> None:
            with capture_logs() as logs:
                async with gateway(server, redis_retry_s=0.05) as limiter:
                    assert not limiter.up
                    (await limiter.reserve(caller(concurrent=1), 0)).settle(0)
                    await eventually(lambda: limiter.up)
                    (await limiter.reserve(caller(concurrent=1), 0)).settle(0)
            assert "loading" in logs[0]["error"]

        run_real(main())


def test_a_wrong_password_is_told_without_telling_it(tmp_path: Path):
    with redis_server(tmp_path, "--requirepass", "right-secret") as server:

        async def main() -> None:
            wrong = f"unix://:wrong-secret@{tmp_path / 'socket'}"
            with capture_logs() as logs:
                async with gateway(server, url=wrong, redis_retry_s=FOREVER, redis_fail="closed") as limiter:
                    assert not limiter.up
                    with pytest.raises(LimiterUnavailableError) as refused:
                        await limiter.reserve(caller(concurrent=1), 0)
                    logs.append({"event": repr(limiter), "error": refused.value.message})
                async with gateway(server, url=wrong.replace("wrong-secret", "right-secret")) as limiter:
                    assert limiter.up
            assert "password" in str(logs[0]["error"])
            assert "secret" not in str(logs)

        run_real(main())


def test_a_redis_that_is_not_there_delays_the_start_by_no_more_than_its_refusal(tmp_path: Path):
    async def main() -> None:
        server = RedisServer(tmp_path)
        async with gateway(server, redis_retry_s=FOREVER) as limiter:
            assert not limiter.up
            (await limiter.reserve(caller(concurrent=1), 0)).settle(0)
            assert "unix:" in repr(limiter)
            assert " down," in repr(limiter)

    run_real(main())


def test_a_url_that_is_none_is_a_configuration_error():
    async def main() -> None:
        settings = LimitSettings(redis_url="https://:secret@host:6379")
        with pytest.raises(ConfigError, match="REDIS_URL") as wrong:
            build_limiter(
                settings,
                loop=asyncio.get_running_loop(),
                wall=lambda: WALL,
                rng=random.Random(1),
                observer=LimitLog(GatewayMetrics()),
            )
        assert "secret" not in str(wrong.value)

    run_real(main())


def test_a_lost_answer_to_refreshing_and_settling_at_once_charges_once(server: RedisServer):
    """Both are told again; what was refreshed and then settled must not come back to be settled once more."""

    async def main() -> None:
        async with Between(server).serving() as between:
            settings = {"redis_lease_s": 1.0, "redis_timeout_s": 20.0, "redis_retry_s": 0.1}
            async with gateway(server, url=between.url, **settings) as limiter:
                alice = caller(concurrent=3, tokens_per_month=1000)
                kept = await limiter.reserve(alice, 100)
                await told(limiter)
                between.hold()
                asking = asyncio.get_running_loop().create_task(limiter.reserve(alice, 0))
                await eventually(lambda: "1 told" in repr(limiter))  # the refreshing waits for that answer
                kept.settle(150)
                between.let_go(lose=2)
                (await asking).settle(0)
                await eventually(lambda: not limiter.up)
                await eventually(lambda: limiter.up)
                await told(limiter)
                assert leases(server) == []
                assert server.client().get(names("neurogate", "alice", "2026-11")[3]) == b"150"

    run_real(main())


# Cancellation, refreshing, closing


def test_a_client_that_leaves_while_its_reservation_is_asked_for_holds_nothing(server: RedisServer):
    async def main() -> None:
        async with gateway(server) as limiter:
            for steps in range(6):
                asking = asyncio.get_running_loop().create_task(limiter.reserve(caller(concurrent=1), 0))
                for _ in range(steps):
                    await asyncio.sleep(0)
                if asking.done():
                    asking.result().settle(0)
                asking.cancel()
                await asyncio.wait([asking])
                await told(limiter)
            (await limiter.reserve(caller(concurrent=1), 0)).settle(0)

    run_real(main())


def test_held_leases_are_refreshed(server: RedisServer):
    async def main() -> None:
        async with gateway(server, redis_lease_s=1.0) as limiter:
            held = [await limiter.reserve(caller(concurrent=501), 0) for _ in range(501)]
            name = names("neurogate", "alice", "")[1]
            client = server.client()
            first = dict(client.zrange(name, 0, -1, withscores=True))
            await eventually(lambda: all(score > first[one] for one, score in client.zscan_iter(name, count=1000)))
            for reservation in held:
                reservation.settle(0)
            await told(limiter)
            assert leases(server) == []

    run_real(main())


def test_closing_tells_what_is_left_to_tell(server: RedisServer):
    async def main() -> None:
        async with gateway(server) as limiter:
            held = [await limiter.reserve(caller(tokens_per_month=10**6), 100) for _ in range(600)]
            for reservation in held:
                reservation.settle(1)
        assert server.client().get(names("neurogate", "alice", "2026-11")[3]) == b"600"

    run_real(main())


def test_closing_does_not_wait_for_a_redis_that_hangs(server: RedisServer):
    async def main() -> None:
        with capture_logs() as logs:
            async with gateway(server, redis_timeout_s=FOREVER) as limiter:
                held = await limiter.reserve(caller(concurrent=1), 0)
                server.pause()
                held.settle(0)
                await eventually(lambda: "0 told" in repr(limiter))
            server.go_on()
        assert logs[-1]["event"] == "usage was not told to redis"

    run_real(main())


def test_a_bug_in_the_conversation_leaves_nobody_waiting(server: RedisServer, monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with gateway(server, redis_fail="closed") as limiter:
            monkeypatch.setattr(limiter._store, "_send", None)
            for _ in range(2):
                with pytest.raises(LimiterUnavailableError):
                    await limiter.reserve(caller(concurrent=1), 0)

    structlog.reset_defaults()
    run_real(main())

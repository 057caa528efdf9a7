"""Pictures of a fleet: what they show, what they leave out, and what they remember of the last minute."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, Histogram

from dataplane_support import Rig, endpoint, turns
from gateway_support import Edge, chat, edge
from neurogate import virtual_time
from neurogate.channel import End, EndCode
from neurogate.endpoint import ServedModel, WorkerReport
from neurogate.gateway.live.camera import Camera
from neurogate.gateway.live.first_tokens import FirstTokens
from neurogate.gateway.live.history import History
from neurogate.gateway.live.picture import HISTORY, MODELS_MAX, REQUESTS_MAX, WORKERS_MAX, Happening, Picture
from neurogate.gateway.live.recent import KEPT_MAX, Recent
from neurogate.testing.workers import ends


def camera(made: Edge, **options: Any) -> Camera:
    loop = asyncio.get_running_loop()
    settings: dict[str, Any] = {
        "gateway": "here",
        "pool": made.data_plane.pool,
        "in_flight": made.in_flight,
        "waiting": lambda: made.admission.waiting,
        "recent": Recent(wall=lambda: 1e9),
        "first_tokens": FirstTokens(made.metrics.registry, "neurogate_gateway_time_to_first_byte_seconds"),
        "readiness": lambda: (True, False),
        "loop": loop,
        "wall": lambda: 1e9 + loop.time(),
    }
    return Camera(**{**settings, **options})


def tell(made: Rig, index: int, **fields: Any) -> None:
    known = {"worker_id": f"worker-{index}", "ready": True, "slots_total": 4, **fields}
    made.worker(index).tell(WorkerReport(**known))


def test_a_picture_shows_each_worker_and_the_fleet() -> None:
    async def main() -> None:
        async with edge(3) as made:
            await asyncio.sleep(5)
            tell(made.data_plane, 0, slots_busy=2, running=2, decode_tokens_per_s=40.04, kv_used_ratio=0.5)
            made.data_plane.worker(1).die("silent for 3 s")
            await made.data_plane.open_breaker(2)

            picture = camera(made).take()

            first, second, third = picture.workers
            assert (first.id, first.address, first.state, first.breaker) == (
                "worker-0",
                "host-0:50051",
                "ready",
                "closed",
            )
            assert (first.slots_busy, first.slots_total, first.running, first.kv_used) == (2, 4, 2, 0.5)
            assert (first.tokens_per_s, first.history, first.reported_s) == (40.0, (40.0,), 0.0)
            assert (second.state, second.why) == ("unreachable", "silent for 3 s")
            assert (third.state, third.breaker, third.why) == ("open", "open", "3 failures in a row")
            assert picture.fleet.states == {"ready": 1, "unreachable": 1, "open": 1}
            assert (picture.fleet.workers, picture.fleet.tokens_per_s) == (3, 40.0)
            assert (picture.gateway, picture.ready, picture.draining, picture.at) == ("here", True, False, 1e9 + 5)
            assert msgspec.json.decode(msgspec.json.encode(picture), type=Picture) == picture

    virtual_time.run(main())


def test_requests_in_flight_are_shown_and_counted() -> None:
    async def main() -> None:
        async with edge(max_concurrent=2) as made:
            look = camera(made)
            for _ in range(3):
                made.ask(chat())
            await turns()

            picture = look.take()
            assert [row.phase for row in picture.requests] == ["prefill", "prefill", "queue"]
            assert (picture.fleet.in_flight, picture.fleet.queued, picture.requests_more) == (3, 1, 0)
            for _ in range(2):
                for call in list(made.data_plane.worker().calls):
                    call.end(End(http_status=200))
                await turns()
            assert look.take().fleet.in_flight == 0

    virtual_time.run(main())


def test_rates_are_of_the_last_seconds() -> None:
    async def main() -> None:
        async with edge() as made:
            look = camera(made)
            assert look.take().fleet.requests_per_s == 0.0
            for second in range(20):
                for _ in range(3 if second < 10 else 0):
                    client = made.ask(chat())
                    await turns()
                    made.data_plane.worker().calls[-1].end(End(http_status=200))
                    await client
                await asyncio.sleep(1)
                picture = look.take()
                if second == 9:
                    assert picture.fleet.requests_per_s == 3.0
            assert picture.fleet.requests_per_s == 0.0
            assert len(picture.fleet.requests_history) == 21

    virtual_time.run(main())


def test_a_rate_is_none_of_a_pause_in_which_nobody_looked() -> None:
    async def main() -> None:
        async with edge() as made:
            look = camera(made)

            async def ask() -> None:
                client = made.ask(chat())
                await turns()
                made.data_plane.worker().calls[-1].end(End(http_status=200))
                await client

            look.take()
            await asyncio.sleep(1)
            look.take()
            for _ in range(30):
                await ask()
            await asyncio.sleep(60)
            assert look.take().fleet.requests_per_s == 0.0

            await ask()
            await asyncio.sleep(1)
            assert look.take().fleet.requests_per_s == 1.0

    virtual_time.run(main())


def test_a_request_that_failed_is_a_happening_with_its_worker() -> None:
    recent = Recent(wall=lambda: 1e9)

    async def main() -> None:
        async with edge(on_failure=recent.failed) as made:
            made.data_plane.worker().script = ends(EndCode.BROKEN)
            await made.ask(chat(headers=[("x-request-id", "mine")]))

    virtual_time.run(main())
    assert recent.happenings == (Happening("failure", 1e9, "worker-0", "engine_failed", "mine", 1),)


def test_what_is_shown_is_bounded_and_trouble_is_shown_first() -> None:
    async def main() -> None:
        async with edge(WORKERS_MAX + 10) as made:
            models = tuple(ServedModel(f"m{number}") for number in range(MODELS_MAX + 2))
            tell(made.data_plane, WORKERS_MAX + 5, models=models)
            made.data_plane.worker(WORKERS_MAX + 5).drain()
            for _ in range(REQUESTS_MAX + 7):
                made.ask(chat())
            await turns()

            picture = camera(made).take()

            assert (len(picture.workers), picture.workers_more) == (WORKERS_MAX, 10)
            worst = picture.workers[0]
            assert (worst.id, worst.state) == (f"worker-{WORKERS_MAX + 5}", "draining")
            assert (len(worst.models), worst.models_more) == (MODELS_MAX, 2)
            assert (len(picture.requests), picture.requests_more) == (REQUESTS_MAX, 7)
            for channel in made.data_plane.fleet.channels.values():
                for call in list(channel.calls):
                    call.end(End(http_status=200))

    virtual_time.run(main())


def test_a_removed_worker_is_shown_while_it_finishes() -> None:
    async def main() -> None:
        async with edge() as made:
            made.data_plane.pool.leave_s = 10
            asked = made.ask(chat())
            await turns()
            await made.data_plane.name(endpoint(1))

            workers = camera(made).take().workers

            assert [(worker.id, worker.state, worker.leaving) for worker in workers] == [
                ("worker-1", "unreachable", False),
                ("worker-0", "draining", True),
            ]
            assert workers[0].reported_s is None
            made.data_plane.worker(0).calls[0].end(End(http_status=200))
            await asked

    virtual_time.run(main())


def test_the_latest_picture_serves_for_a_second() -> None:
    async def main() -> None:
        async with edge() as made:
            look = camera(made)
            first = look.latest()
            await asyncio.sleep(0.5)
            assert look.latest() is first
            await asyncio.sleep(0.5)
            assert look.latest() is not first

    virtual_time.run(main())


def test_a_history_has_gaps_where_nobody_looked_and_forgets_what_is_gone() -> None:
    history = History()
    history.take({"a": 1.04, "b": 2.0}, 10.0)
    history.take({"a": 2.0}, 11.1)
    history.take({"a": 3.0, "b": 9.0}, 14.0)

    assert history.of("a") == (1.0, 2.0, None, None, 3.0)
    assert history.of("b") == (9.0,)
    assert history.of("nobody") == ()
    history.take({"a": 4.0}, 10_000.0)
    assert history.of("a") == (*[None] * (HISTORY - 1), 4.0)


def first_tokens(observe: Callable[[Histogram], None]) -> tuple[float | None, ...]:
    registry = CollectorRegistry()
    histogram = Histogram("ttft_seconds", "Time.", ["path"], buckets=(0.1, 0.2, 0.4), registry=registry)
    histogram.labels("/before").observe(0.05)
    found = FirstTokens(registry, "ttft_seconds")
    assert found.quantiles((0.5,), 0.0) == (None,)
    observe(histogram)
    return found.quantiles((0.5, 0.95), 30.0)


def test_times_to_the_first_token_are_estimated_within_their_buckets() -> None:
    def observe(histogram: Histogram) -> None:
        for _ in range(10):
            histogram.labels("/a").observe(0.15)
            histogram.labels("/b").observe(0.3)

    median, slow = first_tokens(observe)

    assert (median, slow) == (0.2, 0.2 + 0.2 * 9 / 10)


def test_what_is_past_the_last_bucket_is_its_bound() -> None:
    assert first_tokens(lambda histogram: histogram.labels("/a").observe(99)) == (0.4, 0.4)


def test_only_the_last_minute_counts() -> None:
    registry = CollectorRegistry()
    histogram = Histogram("ttft_seconds", "Time.", buckets=(1.0,), registry=registry)
    found = FirstTokens(registry, "ttft_seconds")
    found.quantiles((0.5,), 0.0)
    histogram.observe(0.5)
    assert found.quantiles((0.5,), 50.0) == (0.5,)
    assert found.quantiles((0.5,), 70.0) == (None,)


def test_a_registry_without_the_histogram_tells_nothing() -> None:
    assert FirstTokens(CollectorRegistry(), "nothing").quantiles((0.5, 0.95), 0.0) == (None, None)


def test_what_comes_again_soon_is_counted_and_comes_first() -> None:
    now = 100.0
    recent = Recent(wall=lambda: now)
    recent.note("retry", "worker-0", "unavailable", "req-1")
    recent.note("failure", "", "no_worker_available", "req-2")
    now = 105.0
    recent.note("retry", "worker-0", "unavailable", "req-3")

    first, second = recent.happenings
    assert (first.kind, first.count, first.request_id, first.at) == ("retry", 2, "req-3", 105.0)
    assert (second.kind, second.count) == ("failure", 1)
    now = 200.0
    recent.note("retry", "worker-0", "unavailable", "req-4")
    assert recent.happenings[0].count == 1


def test_happenings_are_bounded() -> None:
    recent = Recent(wall=lambda: 1.0)
    for number in range(KEPT_MAX + 5):
        recent.note("retry", f"worker-{number}", "unavailable")

    assert len(recent.happenings) == KEPT_MAX
    assert recent.happenings[0].worker == f"worker-{KEPT_MAX + 4}"

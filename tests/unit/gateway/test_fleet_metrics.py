"""The fleet, its models, its links and the keys' budgets, as a gateway's metrics tell them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from prometheus_client import generate_latest

from dataplane_support import rig, turns
from neurogate.dataplane.state import WorkerState
from neurogate.edge.caller import Caller, Quota
from neurogate.edge.memory_limits import MemoryLimiter
from neurogate.gateway.metrics import GatewayMetrics
from neurogate.rpc.link_client import LinkCounts
from neurogate.telemetry.metric_settings import MetricSettings
from neurogate.virtual_time import run


def value(metrics: GatewayMetrics, metric: str, /, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"neurogate_{metric}", labels)


def test_every_worker_tells_what_it_reported_and_every_state_is_told() -> None:
    async def main() -> None:
        async with rig(3) as made:
            metrics = GatewayMetrics()
            metrics.show_fleet(made.pool, LinkCounts())
            member = made.pool.snapshot.members[0]
            member.report = replace(
                member.report,
                slots_total=8,
                slots_busy=3,
                running=3,
                queued=2,
                kv_used_ratio=0.25,
                decode_tokens_per_s=41.5,
                tokens_outstanding=900,
                engine_restarts=1,
            )
            made.pool.cordon("worker-1")
            told = {
                name: value(metrics, f"gateway_worker_{name}", worker="worker-0")
                for name in ("slots", "slots_busy", "running", "queued", "kv_used_ratio", "tokens_per_second")
            }
            assert told == {
                "slots": 8, "slots_busy": 3, "running": 3, "queued": 2, "kv_used_ratio": 0.25, "tokens_per_second": 41.5
            }  # fmt: skip
            assert value(metrics, "gateway_worker_tokens_outstanding", worker="worker-0") == 900
            assert value(metrics, "gateway_worker_engine_restarts", worker="worker-0") == 1
            assert value(metrics, "gateway_worker_in_flight", worker="worker-0") == 0
            assert value(metrics, "gateway_worker_kv_used_ratio", worker="worker-2") is None
            states = {state: value(metrics, "gateway_workers", state=state) for state in WorkerState}
            assert states == {**dict.fromkeys(WorkerState, 0), WorkerState.READY: 2, WorkerState.CORDONED: 1}

    run(main())


def test_models_have_the_workers_that_can_be_asked_and_the_rates_of_those_that_have_them_first() -> None:
    async def main() -> None:
        async with rig(2) as made:
            metrics = GatewayMetrics()
            metrics.show_fleet(made.pool, LinkCounts())
            made.worker(0).become_ready(models=("tiny", "big"))
            made.worker(1).become_ready(models=("big",))
            await turns()
            for member, rate in zip(made.pool.snapshot.members, (10.0, 5.0), strict=True):
                member.report = replace(member.report, running=1, decode_tokens_per_s=rate)
            assert value(metrics, "gateway_model_workers", model="tiny") == 1
            assert value(metrics, "gateway_model_workers", model="big") == 2
            assert value(metrics, "gateway_model_tokens_per_second", model="tiny") == 10
            assert value(metrics, "gateway_model_tokens_per_second", model="big") == 5
            made.pool.cordon("worker-0")
            assert value(metrics, "gateway_model_workers", model="tiny") == 0

    run(main())


def test_the_names_of_the_first_neurogate_hold_for_workers() -> None:
    """Dashboards ask for them."""

    async def main() -> None:
        async with rig(1) as made:
            metrics = GatewayMetrics()
            metrics.show_fleet(made.pool, LinkCounts())
            shown = generate_latest(metrics.registry).decode()
            assert "# TYPE neurogate_gateway_circuit_breaker_state gauge" in shown
            assert "# TYPE neurogate_gateway_worker_linked gauge" in shown

    run(main())


def test_a_worker_is_linked_or_not_and_its_breaker_is_a_number() -> None:
    async def main() -> None:
        async with rig(1) as made:
            metrics = GatewayMetrics()
            metrics.show_fleet(made.pool, LinkCounts())
            (member,) = made.pool.snapshot.members

            def told() -> tuple[float | None, float | None]:
                linked = value(metrics, "gateway_worker_linked", worker="worker-0")
                return linked, value(metrics, "gateway_circuit_breaker_state", worker="worker-0")

            assert told() == (1, 0)
            while member.breaker.state == "closed":
                member.breaker.record_failure()
            assert told() == (1, 1)
            made.worker(0).die()
            assert told() == (0, 1)
            made.worker(0).come_up()
            await asyncio.sleep(60)
            assert member.breaker.try_acquire() is not None
            assert told() == (1, 2)
            member.breaker.reset()
            assert told() == (1, 0)
            made.resolver.publish()
            await turns()
            assert told() == (None, None)

    run(main())


def test_a_worker_that_came_beyond_the_bound_has_its_gauges_once_there_is_a_place() -> None:
    async def main() -> None:
        async with rig(2) as made:
            metrics = GatewayMetrics(MetricSettings(workers_max=1))
            metrics.show_fleet(made.pool, LinkCounts())
            metrics.workers.of("worker-0")
            gauges = ("gateway_worker_linked", "gateway_circuit_breaker_state")
            for gauge in gauges:
                assert value(metrics, gauge, worker="worker-0") is not None
                assert value(metrics, gauge, worker="worker-1") is None
                assert value(metrics, gauge, worker="other") is None
            made.resolver.publish(made.pool.snapshot.members[1].endpoint)
            await turns()
            assert [value(metrics, gauge, worker="worker-1") for gauge in gauges] == [1, 0]

    run(main())


def test_a_removed_worker_has_no_gauge_any_more() -> None:
    async def main() -> None:
        async with rig(2) as made:
            metrics = GatewayMetrics()
            metrics.show_fleet(made.pool, LinkCounts())
            assert value(metrics, "gateway_worker_in_flight", worker="worker-1") == 0
            made.resolver.publish(made.pool.snapshot.members[0].endpoint)
            await turns()
            assert value(metrics, "gateway_worker_in_flight", worker="worker-1") is None
            assert value(metrics, "worker_state", worker="worker-1", state="ready") is None

    run(main())


def test_workers_and_models_past_the_bounds_are_told_together() -> None:
    async def main() -> None:
        async with rig(3) as made:
            metrics = GatewayMetrics(MetricSettings(workers_max=1, models_max=1))
            metrics.show_fleet(made.pool, LinkCounts())
            for index, models in enumerate((("a",), ("b", "c"), ("b",))):
                made.worker(index).become_ready(models=models)
            await turns()
            for member in made.pool.snapshot.members:
                member.report = replace(
                    member.report, slots_total=4, kv_used_ratio=0.5, running=1, decode_tokens_per_s=10.0
                )
            metrics.workers.of("worker-0")
            metrics.models.of("a")
            assert value(metrics, "gateway_worker_slots", worker="worker-0") == 4
            assert value(metrics, "gateway_worker_slots", worker="other") == 8
            assert value(metrics, "gateway_worker_kv_used_ratio", worker="other") is None
            assert value(metrics, "worker_state", worker="other", state="ready") == 2
            assert value(metrics, "gateway_model_workers", model="other") == 1  # c has the fewest
            assert value(metrics, "gateway_model_tokens_per_second", model="other") == 20

    run(main())


def test_links_are_counted_all_together() -> None:
    async def main() -> None:
        async with rig(1) as made:
            metrics, counts = GatewayMetrics(), LinkCounts()
            metrics.show_fleet(made.pool, counts)
            counts.frames_sent, counts.items_sent, counts.frames_received, counts.items_received = 3, 5, 7, 11
            told = [
                value(metrics, f"gateway_link_{what}_total", direction=direction)
                for direction in ("sent", "received")
                for what in ("frames", "items")
            ]
            assert told == [3, 5, 7, 11]

    run(main())


def test_keys_with_a_budget_tell_what_they_have_used_of_it() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        limiter = MemoryLimiter(Quota(), loop=loop, wall=lambda: 1e9)
        callers = [
            Caller("rich", Quota(tokens_per_month=1000)),
            Caller("poor", Quota(tokens_per_month=100)),
            Caller("free"),
        ]
        metrics = GatewayMetrics()
        metrics.show_keys(lambda: callers, limiter)
        reservation = await limiter.reserve(callers[0], 300)
        reservation.settle(250)

        def used(key: str) -> float | None:
            return value(metrics, "gateway_key_budget_used_ratio", key=key)

        assert (used("rich"), used("poor"), used("free")) == (0.25, 0, None)
        del callers[0]
        assert (used("rich"), used("poor")) == (None, 0)

    run(main())


def test_keys_past_the_bound_have_no_gauge() -> None:
    async def main() -> None:
        limiter = MemoryLimiter(Quota(tokens_per_month=10), loop=asyncio.get_running_loop(), wall=lambda: 1e9)
        metrics = GatewayMetrics(MetricSettings(keys_max=1))
        metrics.show_keys(lambda: [Caller("a"), Caller("b")], limiter)
        told = [value(metrics, "gateway_key_budget_used_ratio", key=key) for key in ("a", "b", "other")]
        assert told == [pytest.approx(0), None, None]

    run(main())

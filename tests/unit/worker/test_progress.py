"""One request's progress as the worker's metrics see it."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import generate_latest

from neurogate.channel import End, EndCode
from neurogate.inference import Usage
from neurogate.virtual_time import run
from neurogate.worker.meter import Meter
from neurogate.worker.metrics import WorkerMetrics
from worker_support import progress


class Measured:
    """A request in progress and what the metrics say of it."""

    def __init__(self) -> None:
        self.metrics = WorkerMetrics()
        self.meter = Meter()
        self.progress = progress(self.metrics, self.meter)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"neurogate_worker_{name}", {"model": "tiny", **labels})


def test_the_first_token_and_the_gaps_between_the_others_are_timed() -> None:
    async def main() -> None:
        seen = Measured()
        await asyncio.sleep(0.2)
        seen.progress.tokens(1)
        await asyncio.sleep(0.3)
        seen.progress.tokens(0)
        await asyncio.sleep(0.1)
        seen.progress.tokens(4)
        assert seen.value("time_to_first_token_seconds_count") == 1
        assert seen.value("time_to_first_token_seconds_sum") == pytest.approx(0.2)
        assert seen.value("inter_token_latency_seconds_count") == 1
        assert seen.value("inter_token_latency_seconds_sum") == pytest.approx(0.1)

    run(main())


def test_an_answered_request_counts_by_its_status() -> None:
    async def main() -> None:
        seen = Measured()
        seen.progress.tokens(3)
        await asyncio.sleep(2)
        seen.progress.finish(End(http_status=200, usage=Usage(4, 5)))
        assert seen.value("inference_duration_seconds_sum") == pytest.approx(2)
        assert seen.value("tokens_generated_total") == 5
        assert seen.value("prompt_tokens_total") == 4
        assert seen.value("engine_requests_total", status="200") == 1
        assert seen.meter.active == 0

    run(main())


def test_a_request_without_usage_counts_what_was_seen() -> None:
    async def main() -> None:
        seen = Measured()
        seen.progress.tokens(3)
        seen.progress.finish(End())
        assert seen.value("tokens_generated_total") == 3
        assert seen.value("prompt_tokens_total") == 0
        assert seen.value("engine_requests_total", status="200") == 1

    run(main())


def test_a_failed_request_counts_by_its_kind() -> None:
    async def main() -> None:
        seen = Measured()
        seen.progress.finish(End(EndCode.BROKEN))
        assert seen.value("engine_requests_total", status="broken") == 1
        assert seen.value("engine_request_errors_total", error_type="broken") == 1
        assert seen.value("inference_duration_seconds_count") == 0

    run(main())


def test_a_cancelled_request_is_no_failure() -> None:
    async def main() -> None:
        seen = Measured()
        seen.progress.finish(End(EndCode.CANCELLED))
        assert seen.value("engine_requests_total", status="cancelled") == 1
        assert seen.value("engine_request_errors_total", error_type="cancelled") is None

    run(main())


def test_a_limit_is_expected_and_no_limit_leaves_the_guess() -> None:
    async def main() -> None:
        seen = Measured()
        seen.progress.expect(None)
        assert seen.meter.tokens_outstanding == 256
        seen.progress.expect(12)
        assert seen.meter.tokens_outstanding == 12

    run(main())


def test_the_names_of_the_first_neurogate_hold() -> None:
    """Dashboards ask for them."""
    shown = generate_latest(WorkerMetrics().registry).decode()
    for name in (
        "inference_duration_seconds",
        "time_to_first_token_seconds",
        "inter_token_latency_seconds",
        "tokens_generated_total",
        "prompt_tokens_total",
        "tokens_per_second",
        "engine_requests_total",
        "engine_request_errors_total",
        "engine_connected",
        "engine_restarts",
        "load",
        "active_inferences",
    ):
        assert f"# TYPE neurogate_worker_{name} " in shown

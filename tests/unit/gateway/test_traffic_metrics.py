"""What a gateway's metrics say of requests, by model and key, and of those it turned away."""

from __future__ import annotations

import pytest

from neurogate.errors import (
    BusyError,
    DeadlineError,
    GatewayError,
    LimiterUnavailableError,
    NoWorkerError,
    QueueFullError,
    QueueTimeoutError,
    QueueTooLongError,
    QuotaExhaustedError,
    RateLimitedError,
)
from neurogate.gateway.metrics import GatewayMetrics
from neurogate.gateway.records import generation_outcome
from neurogate.inference import Usage
from neurogate.telemetry.metric_settings import MetricSettings


def value(metrics: GatewayMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"neurogate_gateway_{name}", labels)


def with_models(*names: str, **bounds: int) -> GatewayMetrics:
    metrics = GatewayMetrics(MetricSettings(**bounds))
    metrics.name_models(lambda: set(names), lambda worker_id: names[0] if worker_id else "")
    return metrics


@pytest.mark.parametrize(
    ("status", "failure", "broken", "said"),
    [
        (200, "", False, "answered"),
        (400, "invalid_request", False, "refused"),
        (429, "rate_limit_exceeded", False, "limited"),
        (503, "queue_full", False, "shed"),
        (503, "queue_timeout", False, "shed"),
        (503, "queue_too_long", False, "shed"),
        (503, "workers_busy", False, "shed"),
        (503, "no_worker_available", False, "failed"),
        (503, "limiter_unavailable", False, "failed"),
        (503, "", False, "failed"),
        (502, "engine_failed", False, "failed"),
        (504, "deadline_exceeded", False, "failed"),
        (200, "stream_broken", True, "broken"),
        (503, "queue_full", True, "broken"),
        (499, "queue_full", False, "client_gone"),
        (499, "", True, "client_gone"),
    ],
)
def test_limits_and_load_are_told_apart_from_mistakes_and_failures(
    status: int, failure: str, broken: bool, said: str
) -> None:
    assert generation_outcome(status, failure, broken=broken) == said


def test_a_stream_is_timed_to_its_first_token_between_tokens_and_to_its_end() -> None:
    metrics = with_models("tiny")
    metrics.generated("answered", 2.0, model="tiny", key_id="k", usage=Usage(7, 5, 3), ttft_s=0.4, chunks=9)
    assert value(metrics, "time_to_first_token_seconds_sum", model="tiny") == pytest.approx(0.4)
    assert value(metrics, "time_per_output_token_seconds_sum", model="tiny") == pytest.approx(0.4)
    assert value(metrics, "end_to_end_seconds_sum", model="tiny") == 2
    tokens = [
        value(metrics, "model_tokens_total", model="tiny", kind=kind) for kind in ("prompt", "completion", "cached")
    ]
    assert tokens == [7, 5, 3]
    assert value(metrics, "key_tokens_total", key="k", kind="completion") == 5
    assert value(metrics, "tokens_total", kind="prompt") == 7


def test_where_no_usage_is_known_the_pieces_stand_for_tokens() -> None:
    metrics = with_models("tiny")
    metrics.generated("broken", 1.0, model="tiny", key_id="", ttft_s=0.5, chunks=6)
    metrics.generated("broken", 1.0, model="tiny", key_id="", ttft_s=0.5, chunks=1)
    assert value(metrics, "time_per_output_token_seconds_sum", model="tiny") == pytest.approx(0.1)
    assert value(metrics, "time_per_output_token_seconds_count", model="tiny") == 1
    assert value(metrics, "end_to_end_seconds_count", model="tiny") is None
    assert not list(metrics._generations.key_requests.values)


def test_a_client_makes_up_no_labels_and_no_name_means_the_workers_default() -> None:
    metrics = with_models("tiny")
    for model, worker_id in (("", "worker-0"), ("", ""), ("made-up", "worker-0")):
        metrics.generated("answered", 0.1, model=model, worker_id=worker_id, key_id="")
    assert value(metrics, "outcomes_total", model="tiny", outcome="answered") == 1
    assert value(metrics, "outcomes_total", model="unknown", outcome="answered") == 2


def test_models_and_keys_past_the_bounds_are_counted_together_until_others_are_gone() -> None:
    metrics = with_models("a", "b", "c", models_max=2, keys_max=1)
    for model, key in (("a", "k1"), ("b", "k2"), ("c", "k3")):
        metrics.generated("answered", 0.1, model=model, key_id=key, usage=Usage(1, 1), ttft_s=0.1)
    assert value(metrics, "outcomes_total", model="other", outcome="answered") == 1
    assert value(metrics, "key_requests_total", key="k1", outcome="answered") == 1
    assert value(metrics, "key_tokens_total", key="other", kind="prompt") == 2

    metrics.models.only({"b", "c"})
    metrics.keys.only({"k3"})
    metrics.generated("answered", 0.1, model="c", key_id="k3")
    assert value(metrics, "outcomes_total", model="c", outcome="answered") == 1
    assert value(metrics, "outcomes_total", model="a", outcome="answered") is None
    assert value(metrics, "end_to_end_seconds_count", model="a") is None
    assert value(metrics, "key_requests_total", key="k1", outcome="answered") is None
    assert value(metrics, "key_requests_total", key="k3", outcome="answered") == 1


def test_what_happens_to_workers_past_the_bound_is_told_together() -> None:
    metrics = GatewayMetrics(MetricSettings(workers_max=1))
    for worker in ("w-0", "w-1"):
        metrics.breaker_changed(worker, "open")
        metrics.retried(worker, "busy")
    assert value(metrics, "circuit_breaker_transitions_total", worker="other", to="open") == 1
    assert value(metrics, "retries_total", worker="other", reason="busy") == 1

    metrics.workers.only({"w-1"})
    metrics.retried("w-1", "busy")
    assert value(metrics, "retries_total", worker="w-1", reason="busy") == 1
    assert value(metrics, "retries_total", worker="w-0", reason="busy") is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (QueueFullError(""), "full"),
        (QueueTimeoutError(""), "timeout"),
        (QueueTooLongError(""), "too_long"),
        (BusyError(""), "busy"),
        (NoWorkerError(""), "none"),
        (DeadlineError(""), None),
        (LimiterUnavailableError(""), None),
    ],
)
def test_what_is_refused_for_load_counts_by_reason(error: GatewayError, reason: str | None) -> None:
    metrics = GatewayMetrics()
    metrics.turned_away(error)
    reasons = {labels[0]: count for labels, count in metrics._sheds.values.items() if count}
    assert reasons == ({reason: 1} if reason else {})


def test_what_a_limit_refuses_counts_by_limit() -> None:
    metrics = GatewayMetrics()
    for error in (RateLimitedError(""), RateLimitedError("", limit="address"), QuotaExhaustedError("", limit="budget")):
        metrics.turned_away(error)
    for status in (503, 408):
        metrics.refused(status)
    for limit in ("requests", "address", "budget", "connections"):
        assert value(metrics, "limits_hit_total", limit=limit) == 1

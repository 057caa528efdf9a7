"""A worker's metrics: as many models as their labels have places for, however many come and go."""

from __future__ import annotations

from prometheus_client import generate_latest

from neurogate.telemetry.metric_settings import MetricSettings
from neurogate.worker.metrics import ModelMetrics, WorkerMetrics


def metrics_of(models_max: int) -> WorkerMetrics:
    return WorkerMetrics(MetricSettings(models_max=models_max))


def told(metrics: WorkerMetrics) -> set[str]:
    """The models that have series."""
    lines = generate_latest(metrics.registry).decode().splitlines()
    return {line.split('model="')[1].split('"')[0] for line in lines if 'model="' in line}


def one_request(model: ModelMetrics) -> None:
    model.tokens_generated.value += 1
    model.prompt_tokens.value += 1
    model.continued.value += 1
    model.inference_duration.observe(1)
    model.time_to_first_token.observe(1)
    model.inter_token_latency.observe(1)
    model.ended("engine_failed")
    model.failed("engine_failed")


def test_a_model_whose_place_is_wanted_by_another_one_loses_its_series() -> None:
    metrics = metrics_of(3)
    for number in range(50):
        one_request(metrics.of_model(f"model-{number}"))
        metrics.models.only({f"model-{number + 1}"})
    assert told(metrics) == {"model-47", "model-48", "model-49"}


def test_failures_of_a_forgotten_model_stay_among_all_of_them() -> None:
    metrics = metrics_of(1)
    for model in ("first", "second"):
        one_request(metrics.of_model(model))
        metrics.models.only(())
    assert told(metrics) == {"second"}
    assert metrics.failed_total() == 2


def test_a_request_that_ends_after_its_model_is_forgotten_does_not_bring_it_back() -> None:
    metrics = metrics_of(1)
    first = metrics.of_model("first")
    first.ended("200")
    metrics.models.only(())
    metrics.of_model("second")
    one_request(first)
    first.ended("200")
    assert told(metrics) == {"second", "other"}
    assert (
        metrics.registry.get_sample_value("neurogate_worker_engine_requests_total", {"model": "other", "status": "200"})
        == 1
    )


def test_a_model_that_comes_back_begins_anew() -> None:
    metrics = metrics_of(1)
    for model in ("first", "second", "first"):
        one_request(metrics.of_model(model))
        metrics.models.only(())
    assert told(metrics) == {"first"}
    assert metrics.registry.get_sample_value("neurogate_worker_tokens_generated_total", {"model": "first"}) == 1

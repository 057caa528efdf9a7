"""The worker's Prometheus metrics. The six `neurogate_worker_*` names of the first NeuroGate hold."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SHORT_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class WorkerMetrics:
    """Every metric of a worker, on a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.inference_duration = Histogram(
            "neurogate_worker_inference_duration_seconds",
            "Time from a request's arrival to its last token.",
            ["model"],
            buckets=(0.5, 1, 2, 5, 10, 30, 60, 120, 300),
            registry=registry,
        )
        self.time_to_first_token = Histogram(
            "neurogate_worker_time_to_first_token_seconds",
            "Time from a request's arrival to its first token, streamed requests only.",
            ["model"],
            buckets=_SHORT_S,
            registry=registry,
        )
        self.inter_token_latency = Histogram(
            "neurogate_worker_inter_token_latency_seconds",
            "Time between the tokens of one request, streamed requests only.",
            ["model"],
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.2, 0.5, 1, 5),
            registry=registry,
        )
        self.tokens_generated = Counter(
            "neurogate_worker_tokens_generated_total", "Completion tokens.", ["model"], registry=registry
        )
        self.prompt_tokens = Counter(
            "neurogate_worker_prompt_tokens_total", "Prompt tokens.", ["model"], registry=registry
        )
        self.tokens_per_second = Gauge(
            "neurogate_worker_tokens_per_second",
            "Completion tokens a second of all requests together, while any is active.",
            ["model"],
            registry=registry,
        )
        self.requests = Counter(
            "neurogate_worker_engine_requests_total",
            "Requests by how they ended on the engine.",
            ["model", "status"],
            registry=registry,
        )
        self.errors = Counter(
            "neurogate_worker_engine_request_errors_total",
            "Failed requests by kind of failure.",
            ["model", "error_type"],
            registry=registry,
        )
        self.engine_connected = Gauge(
            "neurogate_worker_engine_connected", "1 while the engine answers.", registry=registry
        )
        self.engine_restarts = Gauge(
            "neurogate_worker_engine_restarts", "Restarts of a managed engine.", registry=registry
        )
        self.load = Gauge(
            "neurogate_worker_load", "Requests held over slots; 0 where the slots are not known.", registry=registry
        )
        self.canaries = Counter(
            "neurogate_worker_canaries_total",
            "Tokens asked of the engine to see whether it still generates, by what became of it:"
            " alive, hung, failed, refused.",
            ["outcome"],
            registry=registry,
        )
        self.canary_seconds = Histogram(
            "neurogate_worker_canary_seconds",
            "Time until a canary's token, where it came.",
            buckets=_SHORT_S,
            registry=registry,
        )
        self.stalls = Counter(
            "neurogate_worker_stalls_total",
            "Requests that were cut because nothing came of them any more, by phase: queue, prefill, decode.",
            ["phase"],
            registry=registry,
        )
        self.engine_deaths = Counter(
            "neurogate_worker_engine_deaths_total",
            "Deaths of a managed engine's process by cause: exit, signal, out of memory, hung, loading.",
            ["cause"],
            registry=registry,
        )
        self._by_model: dict[str, ModelMetrics] = {}
        self.active_inferences = Gauge("neurogate_worker_active_inferences", "Requests held now.", registry=registry)

    def failed_total(self) -> int:
        """Requests that failed so far."""
        samples = (sample for family in self.errors.collect() for sample in family.samples)
        return int(sum(sample.value for sample in samples if sample.name.endswith("_total")))

    def of_model(self, model: str) -> ModelMetrics:
        """The metrics of one model's requests."""
        found = self._by_model.get(model)
        if found is None:
            found = self._by_model[model] = ModelMetrics(self, model)
        return found


class ModelMetrics:
    """One model's children of the worker's metrics, looked up by label once instead of at every token."""

    __slots__ = (
        "_ends",
        "_errors",
        "_model",
        "_requests",
        "inference_duration",
        "inter_token_latency",
        "prompt_tokens",
        "time_to_first_token",
        "tokens_generated",
    )

    def __init__(self, metrics: WorkerMetrics, model: str) -> None:
        self._model = model
        self._requests = metrics.requests
        self._errors = metrics.errors
        self._ends: dict[str, Counter] = {}
        self.inference_duration = metrics.inference_duration.labels(model)
        self.time_to_first_token = metrics.time_to_first_token.labels(model)
        self.inter_token_latency = metrics.inter_token_latency.labels(model)
        self.prompt_tokens = metrics.prompt_tokens.labels(model)
        self.tokens_generated = metrics.tokens_generated.labels(model)

    def ended(self, status: str) -> None:
        """A request ended so: an HTTP status, or how it failed."""
        found = self._ends.get(status)
        if found is None:
            found = self._ends[status] = self._requests.labels(self._model, status)
        found.inc()

    def failed(self, error_type: str) -> None:
        """A request failed so."""
        self._errors.labels(self._model, error_type).inc()

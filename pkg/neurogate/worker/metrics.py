"""The worker's Prometheus metrics. The six `neurogate_worker_*` names of the first NeuroGate hold."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Counter

from neurogate.endpoint import WorkerReport
from neurogate.telemetry import catalog
from neurogate.telemetry.counting import Histograms
from neurogate.telemetry.metric_settings import MetricSettings
from neurogate.telemetry.names import OTHER, Names
from neurogate.telemetry.process_metrics import ProcessMetrics
from neurogate.worker.state_metrics import StateMetrics


class WorkerMetrics:
    """Every metric of a worker, on a registry of its own."""

    def __init__(
        self,
        settings: MetricSettings = MetricSettings(),  # noqa: B008 - frozen
        *,
        process: ProcessMetrics | None = None,
    ) -> None:
        """`settings` bound the values of labels; `process` has the metrics that every process has, and the registry."""
        self.process = process or ProcessMetrics("worker")
        self.registry = registry = self.process.registry
        self.models = Names(settings.models_max, self._forget_model)
        """Those that may be values of the label `model`."""
        self.inference_duration = Histograms(catalog.WORKER_DURATION, registry)
        self.time_to_first_token = Histograms(catalog.WORKER_TTFT, registry)
        self.inter_token_latency = Histograms(catalog.WORKER_ITL, registry)
        self.tokens_generated = catalog.WORKER_TOKENS.on(registry)
        self.prompt_tokens = catalog.WORKER_PROMPT_TOKENS.on(registry)
        self.requests = catalog.WORKER_REQUESTS.on(registry)
        self.errors = catalog.WORKER_ERRORS.on(registry)
        self.continued = catalog.WORKER_CONTINUED.on(registry)
        self.canaries = catalog.WORKER_CANARIES.on(registry)
        self.canary_seconds = catalog.WORKER_CANARY_SECONDS.on(registry)
        self.stalls = catalog.WORKER_STALLS.on(registry)
        self.engine_deaths = catalog.ENGINE_DEATHS.on(registry)
        self._links = catalog.WORKER_LINKS.on(registry)
        self._state = StateMetrics(self.models)
        registry.register(self._state)
        self._by_model: dict[str, ModelMetrics] = {}
        self._failed_forgotten = 0

    def show(
        self, report: Callable[[], WorkerReport], *, active: Callable[[], int], connected: Callable[[], bool]
    ) -> None:
        """Where the worker's state is asked when somebody looks: `active` requests are held, its engine `connected`."""
        self._state.show(report, active=active, connected=connected)

    def count_links(self, count: Callable[[], int]) -> None:
        """Where the number of gateways linked is asked when somebody looks."""
        self._links.set_function(count)

    def failed_total(self) -> int:
        """Requests that failed so far."""
        samples = (sample for family in self.errors.collect() for sample in family.samples)
        told = sum(sample.value for sample in samples if sample.name.endswith("_total"))
        return int(told) + self._failed_forgotten

    def of_model(self, model: str) -> ModelMetrics:
        """The metrics of one model's requests."""
        found = self._by_model.get(model)
        if found is None:
            name = self.models.of(model)
            found = self._by_model.get(name)
            if found is None:
                found = self._by_model[name] = ModelMetrics(self, name)
        return found

    def _forget_model(self, name: str) -> None:
        metrics = self._by_model.pop(name, None)
        if metrics is None:  # it was told of, and never asked for
            return
        for series in (self.inference_duration, self.time_to_first_token, self.inter_token_latency):
            series.forget(lambda labels: labels[0] == name)
        for counter in (self.tokens_generated, self.prompt_tokens, self.continued):
            counter.remove(name)
        self._failed_forgotten += metrics.forget()


class ModelMetrics:
    """One model's children of the worker's metrics, looked up by label once instead of at every token."""

    __slots__ = (
        "_ends",
        "_errors",
        "_failures",
        "_model",
        "_requests",
        "continued",
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
        self._failures: dict[str, int] = {}
        self.inference_duration = metrics.inference_duration.of(model)
        self.time_to_first_token = metrics.time_to_first_token.of(model)
        self.inter_token_latency = metrics.inter_token_latency.of(model)
        self.prompt_tokens = metrics.prompt_tokens.labels(model)
        self.tokens_generated = metrics.tokens_generated.labels(model)
        self.continued = metrics.continued.labels(model)

    def forget(self) -> int:
        """Drop the series of ends and failures. Gives the failures; a request that goes on ends as one of `other`."""
        for status in self._ends:
            self._requests.remove(self._model, status)
        for error_type in self._failures:
            self._errors.remove(self._model, error_type)
        failed = sum(self._failures.values())
        self._model = OTHER
        self._ends.clear()
        self._failures.clear()
        return failed

    def ended(self, status: str) -> None:
        """A request ended so: an HTTP status, or how it failed."""
        found = self._ends.get(status)
        if found is None:
            found = self._ends[status] = self._requests.labels(self._model, status)
        found.inc()

    def failed(self, error_type: str) -> None:
        """A request failed so."""
        self._failures[error_type] = self._failures.get(error_type, 0) + 1
        self._errors.labels(self._model, error_type).inc()

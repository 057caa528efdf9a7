"""The worker's Prometheus metrics. The six `neurogate_worker_*` names of the first NeuroGate hold."""

from __future__ import annotations

from collections.abc import Callable

from neurogate.endpoint import WorkerReport
from neurogate.telemetry import catalog
from neurogate.telemetry.counting import Cell, Counts, Histograms
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
        self.tokens_generated = Counts(catalog.WORKER_TOKENS, registry)
        self.prompt_tokens = Counts(catalog.WORKER_PROMPT_TOKENS, registry)
        self.requests = Counts(catalog.WORKER_REQUESTS, registry)
        self.errors = Counts(catalog.WORKER_ERRORS, registry)
        self.continued = Counts(catalog.WORKER_CONTINUED, registry)
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
        return int(sum(self.errors.values.values())) + self._failed_forgotten

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
        self._failed_forgotten += metrics.forget()
        for series in (self.inference_duration, self.time_to_first_token, self.inter_token_latency):
            series.forget(lambda labels: labels[0] == name)
        for counts in (self.tokens_generated, self.prompt_tokens, self.continued, self.requests, self.errors):
            counts.forget(lambda labels: labels[0] == name)


class ModelMetrics:
    """One model's children of the worker's metrics, looked up by label once instead of at every token."""

    __slots__ = (
        "_ends",
        "_errors",
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
        self._ends: dict[str, Cell] = {}
        self.inference_duration = metrics.inference_duration.of(model)
        self.time_to_first_token = metrics.time_to_first_token.of(model)
        self.inter_token_latency = metrics.inter_token_latency.of(model)
        self.prompt_tokens = metrics.prompt_tokens.of(model)
        self.tokens_generated = metrics.tokens_generated.of(model)
        self.continued = metrics.continued.of(model)

    def forget(self) -> int:
        """Its series are told no more. Gives the failures; a request that goes on ends as one of `other`."""
        failed = sum(value for labels, value in self._errors.values.items() if labels[0] == self._model)
        self._model = OTHER
        self._ends.clear()
        return int(failed)

    def ended(self, status: str) -> None:
        """A request ended so: an HTTP status, or how it failed."""
        found = self._ends.get(status)
        if found is None:
            found = self._ends[status] = self._requests.of(self._model, status)
        found.value += 1

    def failed(self, error_type: str) -> None:
        """A request failed so."""
        self._errors.add((self._model, error_type))

"""The gateway's Prometheus metrics. The `neurogate_gateway_*` names of the first NeuroGate hold.

What happens to every request is counted without a lock (telemetry/counting.py) and in one call at its end; what is
known elsewhere is asked when somebody looks.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping

from neurogate.dataplane.pool import EndpointPool
from neurogate.dataplane.state import WorkerState
from neurogate.edge.caller import Caller
from neurogate.edge.limits import Limiter
from neurogate.errors import (
    BusyError,
    GatewayError,
    NoWorkerError,
    QueueFullError,
    QueueTimeoutError,
    QueueTooLongError,
    RateLimitedError,
)
from neurogate.gateway.fleet_metrics import FleetMetrics, LinkMetrics, WorkerStates
from neurogate.gateway.generation_metrics import Generations, GenerationSeries
from neurogate.gateway.key_metrics import KeyMetrics
from neurogate.inference import Usage
from neurogate.rpc.link_client import LinkCounts
from neurogate.telemetry import catalog
from neurogate.telemetry.counting import Cell, Counts, Histograms, Sizes
from neurogate.telemetry.metric_settings import MetricSettings
from neurogate.telemetry.names import UNKNOWN, Names
from neurogate.telemetry.process_metrics import ProcessMetrics

_SHEDS = {
    QueueFullError: "full",
    QueueTimeoutError: "timeout",
    QueueTooLongError: "too_long",
    BusyError: "busy",
    NoWorkerError: "none",
}

_TOO_MANY_CONNECTIONS = 503
"""The only refusal of a listener with this status."""


class GatewayMetrics:
    """Every metric of a gateway, on a registry of its own."""

    def __init__(
        self,
        settings: MetricSettings = MetricSettings(),  # noqa: B008 - frozen
        *,
        process: ProcessMetrics | None = None,
    ) -> None:
        """`settings` bound the values of labels; `process` has the metrics that every process has, and the registry."""
        self.process = process or ProcessMetrics("gateway")
        self.registry = registry = self.process.registry
        self.workers = Names(settings.workers_max, self._forget_worker)
        """Those that may be values of the label `worker`; likewise the others."""
        self.models = Names(settings.models_max, self._forget_model)
        self.keys = Names(settings.keys_max, self._forget_key)
        self._requests = Counts(catalog.GATEWAY_REQUESTS, registry)
        self._durations = Histograms(catalog.GATEWAY_DURATION, registry)
        self._first_bytes = Histograms(catalog.GATEWAY_FIRST_BYTE, registry)
        self._tokens = Counts(catalog.GATEWAY_TOKENS, registry)
        self._active_requests = catalog.GATEWAY_ACTIVE.on(registry)
        self._limit_store = catalog.GATEWAY_LIMIT_STORE.on(registry)
        self._queued_requests = catalog.GATEWAY_QUEUED.on(registry)
        self._queue_waits = Histograms(catalog.GATEWAY_QUEUE_WAIT, registry)
        self._sheds = Counts(catalog.GATEWAY_SHEDS, registry)
        self._limits_hit = Counts(catalog.GATEWAY_LIMITS_HIT, registry)
        self._breaker_transitions = Counts(catalog.GATEWAY_BREAKER_TRANSITIONS, registry)
        self._probes = Counts(catalog.GATEWAY_PROBES, registry)
        self._refusals = Counts(catalog.GATEWAY_REFUSALS, registry)
        self._retries = Counts(catalog.GATEWAY_RETRIES, registry)
        self._retry_budget = catalog.GATEWAY_RETRY_BUDGET.on(registry)
        self._resumes = Counts(catalog.GATEWAY_RESUMES, registry)
        self._hedges = Counts(catalog.GATEWAY_HEDGES, registry)
        self._broken_streams = catalog.GATEWAY_BROKEN.on(registry)
        self._lost_log_lines = catalog.GATEWAY_LOST_LOG_LINES.on(registry)
        self._slow_clients = catalog.GATEWAY_SLOW_CLIENTS.on(registry)
        self._config_reloads = Counts(catalog.GATEWAY_CONFIG_RELOADS, registry)
        self._known: Callable[[], Container[str]] = tuple
        self._default_of: Callable[[str], str] = lambda _: ""
        self._prompt_tokens = self._tokens.of("prompt")
        self._completion_tokens = self._tokens.of("completion")
        self._by_status: dict[tuple[str, str, int], tuple[Cell, Sizes]] = {}
        self._generations = Generations(registry)
        self._series: dict[tuple[str, str], GenerationSeries] = {}
        """By model and key, as they are called: of those that have a place of their own."""
        for result in ("ok", "invalid"):
            self._config_reloads.add((result,), 0)
        for reason in _SHEDS.values():
            self._sheds.add((reason,), 0)

    def count_active(self, count: Callable[[], int]) -> None:
        """Where the number of requests in flight is asked when somebody looks, instead of counted at every request."""
        self._active_requests.set_function(count)

    def name_models(self, known: Callable[[], Container[str]], default_of: Callable[[str], str]) -> None:
        """Where a model's name is looked up, and the default model of a worker by its id, empty for what none has."""
        self._known, self._default_of = known, default_of

    def show_fleet(self, pool: EndpointPool, links: LinkCounts) -> None:
        """Where the fleet is asked about when somebody looks, and what a model is called."""
        self.show_states(pool.states)
        self.registry.register(FleetMetrics(pool, workers=self.workers, models=self.models))
        self.registry.register(LinkMetrics(links))
        self.name_models(lambda: pool.snapshot.models, pool.default_model)

    def show_keys(self, callers: Callable[[], Iterable[Caller]], limiter: Limiter) -> None:
        """Where the keys in force are asked when somebody looks, and what they have used."""
        self.registry.register(KeyMetrics(callers, limiter, self.keys))

    def show_states(self, states: Callable[[], Mapping[str, WorkerState]]) -> None:
        """Where every worker's state is asked when somebody looks, by its id."""
        self.registry.register(WorkerStates(states, self.workers))

    def limit_store(self, *, up: bool) -> None:
        """The store that limits are shared in answers, or does not any more."""
        self._limit_store.set(up)

    def count_queue(self, count: Callable[[], int]) -> None:
        """The same for the requests that wait for their turn."""
        self._queued_requests.set_function(count)

    def show_retry_budget(self, balance: Callable[[], float]) -> None:
        """Where the balance of the retry budget is asked when somebody looks."""
        self._retry_budget.set_function(balance)

    def waited(self, seconds: float, outcome: str) -> None:
        """A request left the queue: `turn`, `timeout`, `left`, or at once with `full` or `too_long`."""
        self._queue_waits.of(outcome).observe(seconds)

    def requests_by_status(self) -> dict[int, int]:
        """Requests so far."""
        found: dict[int, int] = {}
        for (_, _, status), count in self._requests.values.items():
            found[int(status)] = found.get(int(status), 0) + int(count)
        return found

    def queue_waits(self) -> dict[str, tuple[int, float]]:
        """(requests, seconds of all of them together) that were queued so far, by how it ended."""
        return {outcome: (sum(sizes.counts), sizes.sum) for (outcome,), sizes in self._queue_waits.series.items()}

    def request(self, method: str, path: str, status: int, duration_s: float, trace_id: str = "") -> None:
        """A request ended; 499 stands for a client that left. A `trace_id` is that of one that is traced."""
        kept = self._by_status.get((method, path, status))
        if kept is None:
            kept = self._requests.of(method, path, str(status)), self._durations.of(method, path)
            self._by_status[method, path, status] = kept
        count, durations = kept
        count.value += 1
        durations.observe(duration_s, trace_id)

    def first_byte(self, path: str, after_s: float) -> None:
        """A streamed answer began."""
        self._first_bytes.of(path).observe(after_s)

    def generated(
        self,
        outcome: str,
        duration_s: float,
        *,
        model: str,
        key_id: str,
        worker_id: str = "",
        usage: Usage | None = None,
        ttft_s: float | None = None,
        chunks: int = 0,
        trace_id: str = "",
    ) -> None:
        """A generation request ended, in the words of `records.generation_outcome`.

        `model` is empty for the default of the worker that was asked last. Of streamed ones `ttft_s` is the time to
        the first token, and `chunks` about how many there were, where no usage tells it.
        """
        series = self._series_of(model or self._default_of(worker_id), key_id)
        for count in series.outcome(outcome):
            count.value += 1
        if outcome == "answered":
            series.e2e.observe(duration_s, trace_id)
        if usage is not None:
            self.usage(usage.prompt_tokens, usage.completion_tokens)
            series.use(usage)
        if ttft_s is not None:
            series.ttft.observe(ttft_s, trace_id)
            tokens = usage.completion_tokens if usage is not None else chunks
            if tokens > 1:
                series.tpot.observe((duration_s - ttft_s) / (tokens - 1), trace_id)

    def usage(self, prompt: int, completion: int) -> None:
        """A finished request's tokens."""
        self._prompt_tokens.value += prompt
        self._completion_tokens.value += completion

    def turned_away(self, error: GatewayError) -> None:
        """A request is answered with this error; those for load and for limits are counted."""
        if isinstance(error, RateLimitedError):
            self._limits_hit.add((error.limit,))
        elif (reason := _SHEDS.get(type(error))) is not None:
            self._sheds.add((reason,))

    def broken_stream(self) -> None:
        """A started stream ended with an error event."""
        self._broken_streams.inc()

    def log_lines_lost(self, count: int) -> None:
        """Lines of the access log were lost. Called from any thread."""
        self._lost_log_lines.inc(count)

    def slow_client(self) -> None:
        """A request was cancelled for its client's slowness."""
        self._slow_clients.inc()

    def refused(self, status: int) -> None:
        """The listener answered by itself."""
        self._refusals.add((str(status),))
        if status == _TOO_MANY_CONNECTIONS:
            self._limits_hit.add(("connections",))

    def resumed(self, worker_id: str, outcome: str) -> None:
        """A stream broke on this worker: `resumed` on another one, or `refused`."""
        self._resumes.add((self.workers.of(worker_id), outcome))

    def hedged(self, worker_id: str, outcome: str) -> None:
        """A second worker was `asked` because this one was late, or has `won`."""
        self._hedges.add((self.workers.of(worker_id), outcome))

    def retried(self, worker_id: str, reason: str) -> None:
        """A request left a worker for another one."""
        self._retries.add((self.workers.of(worker_id), reason))

    def config_reload(self, result: str) -> None:
        """The configuration was read again: `ok`, or `invalid` and so the one before stays."""
        self._config_reloads.add((result,))

    def probed(self, worker_id: str, outcome: str) -> None:
        """A canary ended: `success`, `failure`, or `ignored` for one that said nothing."""
        self._probes.add((self.workers.of(worker_id), outcome))

    def breaker_changed(self, worker_id: str, state: str) -> None:
        """A breaker moved."""
        self._breaker_transitions.add((self.workers.of(worker_id), state))

    def _series_of(self, model: str, key_id: str) -> GenerationSeries:
        found = self._series.get((model, key_id))
        if found is None:
            name, key = self._label_of(model), self.keys.of(key_id) if key_id else ""
            found = GenerationSeries(self._generations, name, key)
            if (name, key) == (model, key_id):  # else the name is anybody's: it may get a place of its own later
                self._series[model, key_id] = found
        return found

    def _label_of(self, model: str) -> str:
        if model in self.models:
            return model
        return self.models.of(model) if model and model in self._known() else UNKNOWN

    def _forget_worker(self, name: str) -> None:
        for counts in (self._breaker_transitions, self._probes, self._retries, self._resumes, self._hedges):
            counts.forget(lambda labels: labels[0] == name)

    def _forget_model(self, name: str) -> None:
        self._series.clear()
        self._generations.forget_model(name)

    def _forget_key(self, name: str) -> None:
        self._series.clear()
        self._generations.forget_key(name)

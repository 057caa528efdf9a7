"""The gateway's Prometheus metrics. The `neurogate_gateway_*` names of the first NeuroGate hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from neurogate.dataplane.state import WorkerState

_BREAKER_VALUES = {"closed": 0, "open": 1, "half-open": 2}


class GatewayMetrics:
    """Every metric of a gateway, on a registry of its own. Hot children are kept, not looked up by label each time."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "neurogate_gateway_requests_total", "HTTP requests.", ["method", "path", "status"], registry=registry
        )
        self._durations = Histogram(
            "neurogate_gateway_request_duration_seconds",
            "Time from a request's head to the last byte of its answer.",
            ["method", "path"],
            buckets=(0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300),
            registry=registry,
        )
        self._first_bytes = Histogram(
            "neurogate_gateway_time_to_first_byte_seconds",
            "Time from a request's head to the first byte of its answer, streamed requests only.",
            ["path"],
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
            registry=registry,
        )
        self._active_requests = Gauge("neurogate_gateway_active_requests", "Requests in flight.", registry=registry)
        self._limit_store = Gauge(
            "neurogate_gateway_limit_store_up",
            "Whether the Redis that limits are shared in answers; 0 without one.",
            registry=registry,
        )
        self._queued_requests = Gauge(
            "neurogate_gateway_queued_requests", "Requests that wait for their turn.", registry=registry
        )
        self._queue_waits = Histogram(
            "neurogate_gateway_queue_wait_seconds",
            "Time in the queue of requests that had to wait, by how it ended: turn, timeout, left, full or too_long.",
            ["outcome"],
            buckets=(0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300),
            registry=registry,
        )
        self._breakers = Gauge(
            "neurogate_gateway_circuit_breaker_state",
            "0 closed, 1 open, 2 half-open.",
            ["worker"],
            registry=registry,
        )
        self._probes = Counter(
            "neurogate_gateway_probes_total",
            "Canaries sent to workers whose breakers were open, by outcome: success, failure or ignored.",
            ["worker", "outcome"],
            registry=registry,
        )
        self._refusals = Counter(
            "neurogate_gateway_http_refusals_total",
            "Connections closed because their client sent no request that could be handed on, or took too long.",
            ["status"],
            registry=registry,
        )
        self._retries = Counter(
            "neurogate_gateway_retries_total",
            "Requests that moved to another worker before their first byte.",
            ["worker", "reason"],
            registry=registry,
        )
        self._retry_budget = Gauge(
            "neurogate_gateway_retry_budget",
            "Retries after an engine's failure that could be made now.",
            registry=registry,
        )
        self._resumes = Counter(
            "neurogate_gateway_resumes_total",
            "Streams that broke on this worker after their first byte: resumed on another one, or refused.",
            ["worker", "outcome"],
            registry=registry,
        )
        self._hedges = Counter(
            "neurogate_gateway_hedges_total",
            "Second attempts beside one on this worker, whose first token was late: asked, and those that won.",
            ["worker", "outcome"],
            registry=registry,
        )
        self._tokens = Counter(
            "neurogate_gateway_tokens_total", "Tokens of finished requests.", ["kind"], registry=registry
        )
        self._prompt_tokens = self._tokens.labels("prompt")
        self._completion_tokens = self._tokens.labels("completion")
        self._broken_streams = Counter(
            "neurogate_gateway_broken_streams_total",
            "Streams that ended with an error event after their first byte.",
            registry=registry,
        )
        self._lost_log_lines = Counter(
            "neurogate_gateway_access_log_lost_lines_total",
            "Lines of the access log lost because the disk was slow, full or gone.",
            registry=registry,
        )
        self._slow_clients = Counter(
            "neurogate_gateway_slow_clients_total",
            "Requests cancelled because the client read too slowly.",
            registry=registry,
        )
        self._config_reloads = Counter(
            "neurogate_gateway_config_reloads_total",
            "Times the configuration was read again, by result: ok or invalid.",
            ["result"],
            registry=registry,
        )
        self._worker_up = Gauge(
            "neurogate_gateway_worker_linked", "1 while the worker's link is up.", ["worker"], registry=registry
        )
        self._first_byte_children: dict[str, Histogram] = {}
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def count_active(self, count: Callable[[], int]) -> None:
        """Where the number of requests in flight is asked when somebody looks, instead of counted at every request."""
        self._active_requests.set_function(count)

    def show_states(self, states: Callable[[], Mapping[str, WorkerState]]) -> None:
        """Where every worker's state is asked when somebody looks, by its id."""
        self.registry.register(_WorkerStates(states))

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
        self._queue_waits.labels(outcome).observe(seconds)

    def requests_by_status(self) -> dict[int, int]:
        """Requests so far."""
        found: dict[int, int] = {}
        for sample in _samples(self._requests, "_total"):
            status = int(sample.labels["status"])
            found[status] = found.get(status, 0) + int(sample.value)
        return found

    def queue_waits(self) -> dict[str, tuple[int, float]]:
        """(requests, seconds of all of them together) that were queued so far, by how it ended."""
        seconds = {sample.labels["outcome"]: sample.value for sample in _samples(self._queue_waits, "_sum")}
        return {
            sample.labels["outcome"]: (int(sample.value), seconds[sample.labels["outcome"]])
            for sample in _samples(self._queue_waits, "_count")
        }

    def request(self, method: str, path: str, status: int, duration_s: float) -> None:
        """A request ended; 499 stands for a client that left."""
        key = (method, path, status)
        children = self._children.get(key)
        if children is None:
            children = self._requests.labels(method, path, str(status)), self._durations.labels(method, path)
            self._children[key] = children
        children[0].inc()
        children[1].observe(duration_s)

    def first_byte(self, path: str, after_s: float) -> None:
        """A streamed answer began."""
        child = self._first_byte_children.get(path)
        if child is None:
            child = self._first_byte_children[path] = self._first_bytes.labels(path)
        child.observe(after_s)

    def usage(self, prompt: int, completion: int) -> None:
        """A finished request's tokens."""
        self._prompt_tokens.inc(prompt)
        self._completion_tokens.inc(completion)

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
        self._refusals.labels(str(status)).inc()

    def resumed(self, worker_id: str, outcome: str) -> None:
        """A stream broke on this worker: `resumed` on another one, or `refused`."""
        self._resumes.labels(worker_id, outcome).inc()

    def hedged(self, worker_id: str, outcome: str) -> None:
        """A second worker was `asked` because this one was late, or has `won`."""
        self._hedges.labels(worker_id, outcome).inc()

    def retried(self, worker_id: str, reason: str) -> None:
        """A request left a worker for another one."""
        self._retries.labels(worker_id, reason).inc()

    def config_reload(self, result: str) -> None:
        """The configuration was read again: `ok`, or `invalid` and so the one before stays."""
        self._config_reloads.labels(result).inc()

    def probed(self, worker_id: str, outcome: str) -> None:
        """A canary ended: `success`, `failure`, or `ignored` for one that said nothing."""
        self._probes.labels(worker_id, outcome).inc()

    def breaker_changed(self, worker_id: str, state: str) -> None:
        """A breaker moved."""
        self._breakers.labels(worker_id).set(_BREAKER_VALUES[state])

    def worker_changed(self, worker_id: str, event: str) -> None:
        """A worker came, went or is gone for good."""
        if event == "removed":
            self._breakers.remove(worker_id)
            self._worker_up.remove(worker_id)
        elif event in {"linked", "lost", "left", "added"}:
            self._worker_up.labels(worker_id).set(event == "linked")
            if event == "added":
                self._breakers.labels(worker_id).set(0)


class _WorkerStates(Collector):
    """One series per worker and state, for as long as there is the worker."""

    def __init__(self, states: Callable[[], Mapping[str, WorkerState]]) -> None:
        self._states = states

    def collect(self) -> Iterable[GaugeMetricFamily]:
        (family,) = self.describe()
        for worker_id, present in self._states().items():
            for state in WorkerState:
                family.add_metric([worker_id, state], state is present)
        return [family]

    def describe(self) -> list[GaugeMetricFamily]:
        told = "1 for the state that the worker is in, 0 for the others."
        return [GaugeMetricFamily("neurogate_worker_state", told, labels=["worker", "state"])]


def _samples(metric: Counter | Histogram, suffix: str) -> Iterator[Sample]:
    return (sample for family in metric.collect() for sample in family.samples if sample.name.endswith(suffix))

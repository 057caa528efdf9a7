"""The fleet, its models and its links as metrics: asked of the pool when somebody looks, and never in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import cast

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from neurogate.dataplane.member import Member
from neurogate.dataplane.pool import EndpointPool
from neurogate.dataplane.state import WorkerState
from neurogate.rpc.link_client import LinkCounts
from neurogate.telemetry import catalog
from neurogate.telemetry.metric import GaugeOf
from neurogate.telemetry.names import OTHER, Names
from neurogate.telemetry.scrape import Samples

_FIGURES: tuple[tuple[GaugeOf, Callable[[Member], float]], ...] = (
    (catalog.GATEWAY_WORKER_IN_FLIGHT, lambda member: member.in_flight),
    (catalog.GATEWAY_WORKER_RUNNING, lambda member: member.report.running),
    (catalog.GATEWAY_WORKER_QUEUED, lambda member: member.report.queued),
    (catalog.GATEWAY_WORKER_SLOTS, lambda member: member.report.slots_total),
    (catalog.GATEWAY_WORKER_SLOTS_BUSY, lambda member: member.report.slots_busy),
    (catalog.GATEWAY_WORKER_TPS, lambda member: member.report.tokens_per_s),
    (catalog.GATEWAY_WORKER_OUTSTANDING, lambda member: member.report.tokens_outstanding),
    (catalog.GATEWAY_WORKER_RESTARTS, lambda member: member.report.engine_restarts),
)
"""What adds up: workers without series of their own are told together."""

_BREAKER_VALUES = {"closed": 0, "open": 1, "half-open": 2}

_OWN: tuple[tuple[GaugeOf, Callable[[Member], float | None]], ...] = (
    (catalog.GATEWAY_WORKER_LINKED, lambda member: member.linked),
    (catalog.GATEWAY_BREAKERS, lambda member: _BREAKER_VALUES[member.breaker.state]),
    (catalog.GATEWAY_WORKER_KV, lambda member: member.report.kv_used_ratio),
)
"""What does not: it is told of workers with series of their own; None is not told."""

_ALL = (
    *(metric for metric, _ in _OWN),
    *(metric for metric, _ in _FIGURES),
    catalog.GATEWAY_MODEL_WORKERS,
    catalog.GATEWAY_MODEL_TPS,
)


_STATES = tuple(WorkerState)


class WorkerStates(Collector):
    """In which state every worker is, and how many are in each."""

    def __init__(self, states: Callable[[], Mapping[str, WorkerState]], workers: Names) -> None:
        """`states` are by worker; `workers` bounds the label, and those that are gone lose their places in it here."""
        self._states = states
        self._workers = workers

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Asked by the registry."""
        states = self._states()
        self._workers.only(states)
        by_worker, by_state = self.describe()
        named = Counter((self._workers.of(worker_id), state) for worker_id, state in states.items())
        names = list(dict.fromkeys(name for name, _ in named))

        def sample(number: int) -> Sample:
            name, state = names[number // len(_STATES)], _STATES[number % len(_STATES)]
            return Sample(by_worker.name, {"worker": name, "state": state}, named[name, state])

        by_worker.samples = cast("list[Sample]", Samples(len(names) * len(_STATES), sample))
        counted = Counter(states.values())
        for state in WorkerState:
            by_state.add_metric([state], counted[state])
        return [by_worker, by_state]

    def describe(self) -> list[GaugeMetricFamily]:
        """The same, empty."""
        return [catalog.WORKER_STATE.family(), catalog.GATEWAY_WORKERS.family()]


class FleetMetrics(Collector):
    """Every worker, those included that were removed and finish what they hold."""

    def __init__(self, pool: EndpointPool, *, workers: Names, models: Names) -> None:
        """`workers` and `models` bound the labels; models that are gone lose their places here."""
        self._pool = pool
        self._workers = workers
        self._models = models

    def collect(self) -> Iterable[Metric]:
        """Asked by the registry."""
        snapshot = self._pool.snapshot
        members = {member.id: member for member in (*self._pool.leaving, *snapshot.members)}
        self._models.only(snapshot.models)
        named = [(self._workers.of(worker_id), member) for worker_id, member in members.items()]
        for metric, own in _OWN:
            yield _told(metric, ((name, own(member)) for name, member in named))
        for metric, figure in _FIGURES:
            family = metric.family()
            for name, value in _summed((name, figure(member)) for name, member in named).items():
                family.add_metric([name], value)
            yield family
        yield from self._by_model()

    def describe(self) -> Iterable[Metric]:
        """The same, empty."""
        return [metric.family() for metric in _ALL]

    def _by_model(self) -> Iterator[GaugeMetricFamily]:
        """Of models without series of their own: the one with the fewest workers, and the tokens of all of them."""
        snapshot = self._pool.snapshot
        workers = catalog.GATEWAY_MODEL_WORKERS.family()
        fewest: dict[str, int] = {}
        for model in sorted(snapshot.models):
            name, count = self._models.of(model), len(snapshot.admitting(model))
            fewest[name] = min(count, fewest.get(name, count))
        for name, count in fewest.items():
            workers.add_metric([name], count)
        yield workers
        rates = catalog.GATEWAY_MODEL_TPS.family()
        firsts = (
            (self._models.of(member.report.default_model), member.report.tokens_per_s)
            for member in snapshot.members
            if member.report.models
        )
        for name, rate in _summed(firsts).items():
            rates.add_metric([name], rate)
        yield rates


class LinkMetrics(Collector):
    """What the links carried."""

    def __init__(self, counts: LinkCounts) -> None:
        self._counts = counts

    def collect(self) -> Iterable[CounterMetricFamily]:
        """Asked by the registry."""
        counts = self._counts
        frames, items = self.describe()
        frames.add_metric(["sent"], counts.frames_sent)
        frames.add_metric(["received"], counts.frames_received)
        items.add_metric(["sent"], counts.items_sent)
        items.add_metric(["received"], counts.items_received)
        return [frames, items]

    def describe(self) -> list[CounterMetricFamily]:
        """The same, empty."""
        return [catalog.GATEWAY_LINK_FRAMES.family(), catalog.GATEWAY_LINK_ITEMS.family()]


def _told(metric: GaugeOf, values: Iterable[tuple[str, float | None]]) -> GaugeMetricFamily:
    family = metric.family()
    for name, value in values:
        if value is not None and name != OTHER:
            family.add_metric([name], value)
    return family


def _summed(values: Iterable[tuple[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in values:
        found[name] = found.get(name, 0) + value
    return found

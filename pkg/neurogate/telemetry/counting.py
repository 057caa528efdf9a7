"""Counters and histograms without a lock: plain numbers that one thread counts, and tells when somebody looks.

A number of prometheus_client takes a lock at every change; a request is counted by a dozen of them. These take none, so
they are for what happens on the event loop, where scrapes are answered as well.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.samples import Exemplar

from neurogate.telemetry.asked import Asked
from neurogate.telemetry.metric import CounterOf, HistogramOf

Labels = tuple[str, ...]


class Cell:
    """One series of a counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class Counts:
    """A counter: numbers by their labels' values."""

    def __init__(self, metric: CounterOf, registry: CollectorRegistry) -> None:
        self._metric = metric
        self._cells: dict[Labels, Cell] = {}
        registry.register(Asked(self))

    @property
    def values(self) -> dict[Labels, float]:
        """What was counted so far."""
        return {labels: cell.value for labels, cell in self._cells.items()}

    def of(self, *labels: str) -> Cell:
        """The series with these values, to be kept by whoever counts often, until they are forgotten."""
        found = self._cells.get(labels)
        if found is None:
            found = self._cells[labels] = Cell()
        return found

    def add(self, labels: Labels, amount: float = 1) -> None:
        """Count."""
        self.of(*labels).value += amount

    def forget(self, wanted: Callable[[Labels], bool]) -> None:
        """Tell no more of the series that are wanted."""
        for labels in [labels for labels in self._cells if wanted(labels)]:
            del self._cells[labels]

    def told(self) -> CounterMetricFamily:
        """The numbers as they are now."""
        family = self._metric.family()
        for labels, value in self.values.items():
            family.add_metric(labels, value)
        return family

    def empty(self) -> CounterMetricFamily:
        """The metric without any."""
        return self._metric.family()


class Sizes:
    """One series of a histogram."""

    __slots__ = ("_bounds", "counts", "exemplars", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.exemplars: dict[int, Exemplar] = {}
        self.sum = 0.0

    def observe(self, value: float, trace_id: str = "") -> None:
        """Count one. With a trace id it becomes the example of its bucket."""
        bucket = bisect_left(self._bounds, value)
        self.counts[bucket] += 1
        self.sum += value
        if trace_id:
            self.exemplars[bucket] = Exemplar({"trace_id": trace_id}, value)


class Histograms:
    """A histogram: sizes by their labels' values."""

    def __init__(self, metric: HistogramOf, registry: CollectorRegistry) -> None:
        self._metric = metric
        self._shown = [*(str(float(bound)) for bound in metric.buckets), "+Inf"]
        self.series: dict[Labels, Sizes] = {}
        registry.register(Asked(self))

    def of(self, *labels: str) -> Sizes:
        """The series with these values, to be kept by whoever observes often."""
        found = self.series.get(labels)
        if found is None:
            found = self.series[labels] = Sizes(self._metric.buckets)
        return found

    def forget(self, wanted: Callable[[Labels], bool]) -> None:
        """Tell no more of the series that are wanted."""
        for labels in [labels for labels in self.series if wanted(labels)]:
            del self.series[labels]

    def told(self) -> HistogramMetricFamily:
        """The numbers as they are now."""
        family = self._metric.family()
        for labels, sizes in self.series.items():
            buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
            total = 0
            for index, bound in enumerate(self._shown):
                total += sizes.counts[index]
                example = sizes.exemplars.get(index)
                buckets.append((bound, total) if example is None else (bound, total, example))
            family.add_metric(labels, buckets, sizes.sum)
        return family

    def empty(self) -> HistogramMetricFamily:
        """The metric without any."""
        return self._metric.family()

"""What a metric is before any registry has it: a name, what it tells, its labels, its unit."""

from __future__ import annotations

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

SHORT_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Buckets of a time that somebody waits for."""
LONG_S = (0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Buckets of a whole answer's time."""
GAP_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
"""Buckets of the time between two tokens."""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading in the catalogue, and who tells what is under it."""

    title: str
    about: str


@dataclass(frozen=True, slots=True)
class Metric:
    """A declared metric. `labels` are its labels' names, `unit` what a value is counted in; empty for plain numbers."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""


@dataclass(frozen=True, slots=True)
class CounterOf(Metric):
    """Only grows. Its name ends in `_total`."""

    def on(self, registry: CollectorRegistry) -> Counter:
        """The counter, on a registry; once for each."""
        return Counter(self.name, self.help, self.labels, registry=registry)

    def family(self) -> CounterMetricFamily:
        """An empty family, for a collector that is asked when somebody looks."""
        return CounterMetricFamily(self.name, self.help, labels=self.labels)


@dataclass(frozen=True, slots=True)
class GaugeOf(Metric):
    """Goes up and down."""

    def on(self, registry: CollectorRegistry) -> Gauge:
        """The gauge, on a registry; once for each."""
        return Gauge(self.name, self.help, self.labels, registry=registry)

    def family(self) -> GaugeMetricFamily:
        """An empty family, for a collector that is asked when somebody looks."""
        return GaugeMetricFamily(self.name, self.help, labels=self.labels)


@dataclass(frozen=True, slots=True)
class HistogramOf(Metric):
    """Counts observations by size."""

    buckets: tuple[float, ...] = field(default=SHORT_S, kw_only=True)

    def on(self, registry: CollectorRegistry) -> Histogram:
        """The histogram, on a registry; once for each."""
        return Histogram(self.name, self.help, self.labels, buckets=self.buckets, registry=registry)

    def family(self) -> HistogramMetricFamily:
        """An empty family, for a collector that is asked when somebody looks."""
        return HistogramMetricFamily(self.name, self.help, labels=self.labels)

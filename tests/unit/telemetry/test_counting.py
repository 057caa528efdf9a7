"""Counters and histograms without locks: what they tell is what prometheus_client's own would tell."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

from neurogate.telemetry.counting import Counts, Histograms
from neurogate.telemetry.metric import CounterOf, HistogramOf

THINGS = CounterOf("things_total", "Things.", ("kind", "size"))
TIMES = HistogramOf("times_seconds", "Times.", ("kind",), "seconds", buckets=(0.1, 0.5, 1, 2.5))


def told(registry: CollectorRegistry) -> list[str]:
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


def test_a_counter_tells_what_prometheus_own_does() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counts = Counts(THINGS, ours)
    reference = Counter(THINGS.name, THINGS.help, THINGS.labels, registry=theirs)
    for labels, amount in [(("a", "1"), 1.0), (("b", "2"), 2.5), (("a", "1"), 3.0), (("c", "3"), 0.0)]:
        counts.add(labels, amount)
        reference.labels(*labels).inc(amount)

    assert told(ours) == told(theirs)


def test_a_histogram_tells_what_prometheus_own_does_on_the_bounds_too() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    histograms = Histograms(TIMES, ours)
    reference = Histogram(TIMES.name, TIMES.help, TIMES.labels, buckets=TIMES.buckets, registry=theirs)
    for kind, value in [("a", 0.05), ("a", 0.1), ("a", 2.5), ("a", 2.6), ("b", 0.0), ("b", 1.0)]:
        histograms.of(kind).observe(value)
        reference.labels(kind).observe(value)

    assert told(ours) == told(theirs)


def test_only_openmetrics_has_examples_and_only_of_what_is_traced() -> None:
    registry = CollectorRegistry()
    times = Histograms(TIMES, registry).of("a")
    times.observe(0.3)
    times.observe(0.4, "4bf92f3577b34da6a3ce929d0e0e4736")

    examples = [line for line in openmetrics(registry).decode().splitlines() if " # {" in line]
    assert examples == [
        'times_seconds_bucket{kind="a",le="0.5"} 2.0 # {trace_id="4bf92f3577b34da6a3ce929d0e0e4736"} 0.4'
    ]
    assert b"trace_id" not in generate_latest(registry)


def test_series_that_are_forgotten_begin_anew() -> None:
    registry = CollectorRegistry()
    counts, histograms = Counts(THINGS, registry), Histograms(TIMES, registry)
    for kind in ("a", "b"):
        counts.add((kind, "1"))
        histograms.of(kind).observe(1)
    counts.forget(lambda labels: labels[0] == "a")
    histograms.forget(lambda labels: labels[0] == "a")

    assert set(counts.values) == {("b", "1")}
    assert set(histograms.series) == {("b",)}
    assert histograms.of("a").sum == 0

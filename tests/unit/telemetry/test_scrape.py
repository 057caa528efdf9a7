"""A scrape is written in pieces, and what comes of it is to the byte what is written in one go."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import cast

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, Summary, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeHistogramMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from neurogate.telemetry.counting import Histograms
from neurogate.telemetry.metric import HistogramOf
from neurogate.telemetry.scrape import PIECE, Samples, Write, written


class Told(Collector):
    """Tells these families, and how many were asked for so far."""

    def __init__(self, *families: Metric) -> None:
        self._families = families
        self.told = 0

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            self.told += 1
            yield family

    def describe(self) -> Iterable[Metric]:
        return ()


def gauge(series: int, name: str = "states") -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, "With a \\ and a\nbreak.", labels=["worker"])
    for number in range(series):
        family.add_metric([f'w"{number}'], number)
    return family


def everything() -> CollectorRegistry:
    """A registry with every kind of metric, small and large."""
    registry = CollectorRegistry()
    Gauge("level", "A level.", registry=registry).set(1.5)
    Info("build", "What it is.", registry=registry).info({"version": "1"})
    counter = Counter("things", "Things.", ["kind"], registry=registry)
    summary = Summary("sizes", "Sizes.", ["kind"], registry=registry)
    histogram = Histogram("times", "Times.", ["kind"], registry=registry)
    own = Histograms(HistogramOf("waits_seconds", "Waits.", ("kind",), "seconds"), registry)
    for number in range(PIECE):
        counter.labels(str(number)).inc()
        summary.labels(str(number)).observe(number)
        histogram.labels(str(number)).observe(number)
        own.of(str(number)).observe(number, "a" * 32)
    sizes = GaugeHistogramMetricFamily("now", "Of now.", labels=["kind"])
    for number in range(PIECE):
        sizes.add_metric([str(number)], [("1.0", 1), ("+Inf", 2)], 3)
    timed = CounterMetricFamily("seen", "Seen.", labels=["kind"])
    for number in range(PIECE + 1):
        timed.add_metric([str(number)], number, timestamp=number)
    registry.register(Told(gauge(0, "none"), gauge(PIECE, "fits"), gauge(2 * PIECE + 1), sizes, timed))
    return registry


@pytest.mark.parametrize("write", [generate_latest, openmetrics])
@pytest.mark.parametrize("registry", [CollectorRegistry(), everything()], ids=["nothing", "everything"])
def test_the_text_is_the_same_as_in_one_go(registry: CollectorRegistry, write: Write) -> None:
    assert asyncio.run(written(registry, write)) == write(registry)


def test_openmetrics_end_once() -> None:
    text = asyncio.run(written(everything(), openmetrics))
    assert text.count(b"# EOF") == 1
    assert text.endswith(b"# EOF\n")


@pytest.mark.parametrize("write", [generate_latest, openmetrics])
def test_samples_may_be_made_as_they_are_written(write: Write) -> None:
    made: list[int] = []

    def sample(number: int) -> Sample:
        made.append(number)
        return Sample("states", {"worker": f'w"{number}'}, number)

    late, registry, whole = gauge(0), CollectorRegistry(), CollectorRegistry()
    late.samples = cast("list[Sample]", Samples(2 * PIECE + 1, sample))
    registry.register(Told(late))
    whole.register(Told(gauge(2 * PIECE + 1)))
    counts: list[int] = []

    async def main() -> bytes:
        writing = asyncio.create_task(written(registry, write))
        while not writing.done():
            counts.append(len(made))
            await asyncio.sleep(0)
        return await writing

    assert asyncio.run(main()) == write(whole)
    assert sorted(set(counts)) == [0, PIECE, 2 * PIECE, 2 * PIECE + 1]
    assert list(late.samples) == gauge(2 * PIECE + 1).samples


@pytest.mark.parametrize("write", [generate_latest, openmetrics])
def test_others_have_their_turns_between_families_and_within_a_long_one(write: Write) -> None:
    registry = CollectorRegistry()
    told = Told(gauge(1, "first"), gauge(10 * PIECE), gauge(1, "last"))
    registry.register(told)
    turns: list[int] = []

    async def main() -> None:
        writing = asyncio.ensure_future(written(registry, write))
        while not writing.done():
            turns.append(told.told)
            await asyncio.sleep(0)

    asyncio.run(main())
    assert turns.count(1) == 1
    assert turns.count(2) == 11  # its head, and ten pieces
    assert turns.count(3) == 1

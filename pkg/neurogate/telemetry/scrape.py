"""The text of a registry's metrics, written in pieces, so that nobody's tokens wait for a scrape of a large fleet.

A piece is a family of metrics, or so many series of it; between two of them the event loop has its turn. The text is
to the byte what prometheus_client writes in one go: each piece is written by it, and what it says at every piece,
a family's head and the end of the text, is told once.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import overload

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

PIECE = 200
"""Series that are written at once: one or two milliseconds."""

_TOLD_LAST = ("_created", "_gsum", "_gcount")
"""Of samples with such names plain text makes families of their own, behind theirs; gauges have none."""

Write = Callable[[Collector], bytes]
"""`generate_latest` of either format."""


class Samples(Sequence[Sample]):
    """Samples of a large family that are made as they are written, and not all of them before the first."""

    def __init__(self, count: int, make: Callable[[int], Sample]) -> None:
        """`make` gives each by its number, the same one whenever it is asked."""
        self._numbers = range(count)
        self._make = make

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self._make(number) for number in self._numbers[index]]
        return self._make(self._numbers[index])


async def written(registry: CollectorRegistry, write: Write) -> bytes:
    """What `write` would make of the registry. Values are as of when their family is written, not all of one moment."""
    end = write(_Families())
    text = []
    for family in registry.collect():
        for piece in _pieces(family, write, end):
            text.append(piece)
            await asyncio.sleep(0)
    return b"".join((*text, end))


class _Families(Collector):
    """These, as a writer asks for them."""

    def __init__(self, *families: Metric) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _pieces(family: Metric, write: Write, end: bytes) -> Iterator[bytes]:
    samples = family.samples
    whole = family.type != "gauge" and any(sample.name.endswith(_TOLD_LAST) for sample in samples)
    if whole or len(samples) <= PIECE:
        yield write(_Families(family)).removesuffix(end)
        return
    piece = copy.copy(family)
    piece.samples = []
    head = write(_Families(piece)).removesuffix(end)
    yield head
    for first in range(0, len(samples), PIECE):
        piece.samples = samples[first : first + PIECE]
        yield write(_Families(piece)).removesuffix(end).removeprefix(head)

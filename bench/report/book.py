"""The samples of a run, and the figures made of them.

Two gateways are compared within a round, where they were measured a moment apart: a figure is the ratio in each round,
and of those the least, the median and the most. Percentiles are divided by each other, never taken from each other;
what the engine itself takes is taken off medians alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

BASELINE = "direct"


@dataclass(frozen=True)
class Spread:
    """What was found in several rounds."""

    low: float
    median: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """None of nothing."""
        return cls(min(values), median(values), max(values), len(values)) if values else None

    def plain(self) -> dict[str, float]:
        """As data."""
        return {"min": self.low, "median": self.median, "max": self.high, "rounds": self.rounds}


class Book:
    """Finds samples by round, workload and gateway."""

    def __init__(self, results: Mapping[str, Any]) -> None:
        """`results` is what a run leaves; see run.py."""
        self.results = results
        self._samples = {(s["round"], s["workload"], s["peer"]): s for s in results["samples"] if "error" not in s}
        self.rounds = sorted({round_ for round_, _, _ in self._samples})

    def peers(self, workload: str | None = None) -> list[str]:
        """The gateways that were measured, in the order of the tables."""
        found = {peer for _, name, peer in self._samples if workload in {None, name}}
        return [peer for peer in self.results["peers"] if peer in found]

    def values(self, workload: str, peer: str, field: str) -> list[float]:
        """A field of a gateway's samples, one of each round that has it."""
        samples = (self._samples.get((round_, workload, peer), {}) for round_ in self.rounds)
        return [sample[field] for sample in samples if field in sample]

    def spread(self, workload: str, peer: str, field: str) -> Spread | None:
        """The same, in short."""
        return Spread.of(self.values(workload, peer, field))

    def ratio(self, workload: str, own: str, field: str, peer: str, peer_field: str | None = None) -> Spread | None:
        """One gateway's field over another's."""
        pairs = self._pairs(workload, own, peer)
        return _ratios((mine.get(field), other.get(peer_field or field)) for _, mine, other in pairs)

    def added_ratio(self, workload: str, own: str, field: str, peer: str) -> Spread | None:
        """What one gateway adds to the median of the baseline, over what another one adds."""
        found = []
        for round_, mine, other in self._pairs(workload, own, peer):
            baseline = self._samples.get((round_, workload, BASELINE), {}).get(field)
            if baseline is not None and field in mine and field in other:
                found.append((mine[field] - baseline, other[field] - baseline))
        return _ratios(found)

    def flags(self, workload: str, peer: str) -> list[str]:
        """What to know of a gateway's figures: that it was asked for less, or that the machine was busy throughout."""
        samples = [s for (_, name, who), s in self._samples.items() if (name, who) == (workload, peer)]
        wanted = self.results["workloads"][workload]
        found = []
        if any(sample["reduced"] for sample in samples):
            found.append(f"asked for {samples[0]['connections']} at once only")
        if any(sample["bad"] for sample in samples):
            found.append(f"{sum(sample['bad'] for sample in samples)} bad answers")
        expected = wanted["connections"] * wanted["tokens_per_s"] if wanted["tokens"] and not wanted["idle"] else 0
        share = min((sample["rate"] / expected for sample in samples), default=1.0) if expected else 1.0
        if share < 0.95 and not any(sample["reduced"] for sample in samples):
            found.append(f"{share:.0%} of the tokens")
        return found

    def _pairs(self, workload: str, own: str, peer: str) -> list[tuple[int, Mapping[str, Any], Mapping[str, Any]]]:
        keys = ((round_, (round_, workload, own), (round_, workload, peer)) for round_ in self.rounds)
        return [
            (round_, self._samples[mine], self._samples[other])
            for round_, mine, other in keys
            if mine in self._samples and other in self._samples
        ]


def _ratios(pairs: Iterable[tuple[float | None, float | None]]) -> Spread | None:
    return Spread.of([mine / other for mine, other in pairs if mine is not None and other is not None and other > 0])

"""Time to the first token in the last minute, estimated from the histogram that the metrics keep anyway."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry

Buckets = Mapping[float, float]
"""How many were at most so many seconds, by that bound."""

_WINDOW_S = 60.0


class FirstTokens:
    """The histogram of one registry, of all its labels together."""

    def __init__(self, registry: CollectorRegistry, name: str) -> None:
        self._registry = registry
        self._name = f"{name}_bucket"
        self._seen: deque[tuple[float, Buckets]] = deque()

    def quantiles(self, shares: Sequence[float], now: float) -> tuple[float | None, ...]:
        """The times that these shares of the streams were within; None where there was no stream. `now` is loop time.

        Counts from an earlier call of at most a minute ago: the first call knows nothing.
        """
        buckets = self._buckets()
        self._seen.append((now, buckets))
        while self._seen[0][0] < now - _WINDOW_S:
            self._seen.popleft()
        before = self._seen[0][1]
        grown = [(bound, count - before.get(bound, 0.0)) for bound, count in sorted(buckets.items())]
        return tuple(_quantile(grown, share) for share in shares)

    def _buckets(self) -> Buckets:
        found: dict[float, float] = {}
        for family in self._registry.restricted_registry([self._name]).collect():
            for sample in family.samples:
                bound = float(sample.labels["le"])
                found[bound] = found.get(bound, 0.0) + sample.value
        return found


def _quantile(cumulative: Sequence[tuple[float, float]], share: float) -> float | None:
    """As Prometheus' histogram_quantile: linear within a bucket, and the largest bound for what is past it."""
    total = cumulative[-1][1] if cumulative else 0.0
    if total <= 0:
        return None
    wanted = share * total
    low, below = 0.0, 0.0
    for bound, count in cumulative:
        if count >= wanted:
            return low if math.isinf(bound) else low + (bound - low) * (wanted - below) / (count - below)
        low, below = bound, count
    raise AssertionError("the last bucket has them all")

"""What prometheus_client asks for numbers that are not its own.

Its class is a base here alone, so that what counts at every request can be compiled (ADR 0030).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class Counted(Protocol):
    """Has the numbers of one metric."""

    def told(self) -> Metric:
        """The numbers as they are now."""
        ...

    def empty(self) -> Metric:
        """The metric without any."""
        ...


class Asked(Collector):
    """Tells a registry of one metric."""

    def __init__(self, counted: Counted) -> None:
        self._counted = counted

    def collect(self) -> Iterable[Metric]:
        """Asked by the registry."""
        return [self._counted.told()]

    def describe(self) -> Iterable[Metric]:
        """The same, empty."""
        return [self._counted.empty()]

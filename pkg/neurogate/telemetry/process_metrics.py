"""What every process tells of itself: what it is, how late its event loop runs, what it logs."""

from __future__ import annotations

import asyncio
import platform
import threading
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

from neurogate import __version__
from neurogate.telemetry import catalog
from neurogate.telemetry.counting import Histograms

_LOOKS_EVERY_S = 0.25
_LEVELS = ("debug", "info", "warning", "error", "critical")


class LogLines:
    """How many lines were logged, by level: a processor of structlog's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.by_level = dict.fromkeys(_LEVELS, 0)

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Count a line, which has its level already. Called from any thread."""
        level = event.get("level")
        if level in self.by_level:
            with self._lock:
                self.by_level[level] += 1
        return event


class ProcessMetrics:
    """The metrics of one process, and the registry that its others are on, too."""

    def __init__(self, process: str, log_lines: LogLines | None = None) -> None:
        """`process` is what it is: gateway or worker."""
        self.registry = registry = CollectorRegistry()
        catalog.BUILD_INFO.on(registry).labels(process, __version__, platform.python_version()).set(1)
        self._lag = Histograms(catalog.LOOP_LAG, registry).of()
        self._spans_lost = catalog.SPANS_LOST.on(registry)
        registry.register(_LogLines(log_lines or LogLines()))

    def spans_lost(self, count: int) -> None:
        """Spans could not be exported. Called from any thread."""
        self._spans_lost.inc(count)

    async def watch_loop(self, now: Callable[[], float]) -> None:
        """Measure how late the event loop is, four times a second, until cancelled; `now` is its time."""
        while True:
            due = now() + _LOOKS_EVERY_S
            await asyncio.sleep(_LOOKS_EVERY_S)
            self._lag.observe(max(0.0, now() - due))


class _LogLines(Collector):
    def __init__(self, lines: LogLines) -> None:
        self._lines = lines

    def collect(self) -> Iterable[CounterMetricFamily]:
        (family,) = self.describe()
        for level, count in self._lines.by_level.items():
            family.add_metric([level], count)
        return [family]

    def describe(self) -> list[CounterMetricFamily]:
        return [catalog.LOG_LINES.family()]

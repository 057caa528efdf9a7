"""How much of their months keys have used, asked of the limiter when somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from neurogate.edge.caller import Caller
from neurogate.edge.limits import Limiter
from neurogate.telemetry import catalog
from neurogate.telemetry.names import OTHER, Names


class KeyMetrics(Collector):
    """The keys that are in force and have a budget; one whose use is not known yet is left out."""

    def __init__(self, callers: Callable[[], Iterable[Caller]], limiter: Limiter, names: Names) -> None:
        """`names` bounds the label; keys that are gone lose their places in it here."""
        self._callers = callers
        self._limiter = limiter
        self._names = names

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Asked by the registry."""
        callers = {caller.key_id: caller for caller in self._callers()}
        self._names.only(callers)
        (family,) = self.describe()
        for key_id, caller in callers.items():
            used = self._limiter.month_used(caller)
            if used is not None and (name := self._names.of(key_id)) != OTHER:
                family.add_metric([name], used)
        return [family]

    def describe(self) -> list[GaugeMetricFamily]:
        """The same, empty."""
        return [catalog.GATEWAY_KEY_BUDGET.family()]

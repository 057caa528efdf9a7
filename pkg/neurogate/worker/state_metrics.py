"""What a worker and its engine are and do now, as metrics: what it reports to gateways, asked when somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from neurogate.endpoint import WorkerReport
from neurogate.telemetry import catalog
from neurogate.telemetry.metric import GaugeOf
from neurogate.telemetry.names import OTHER, Names

_FIGURES: tuple[tuple[GaugeOf, Callable[[WorkerReport], float | None]], ...] = (
    (catalog.WORKER_RUNNING, lambda report: report.running),
    (catalog.WORKER_QUEUED, lambda report: report.queued),
    (catalog.WORKER_SLOTS, lambda report: report.slots_total),
    (catalog.WORKER_SLOTS_BUSY, lambda report: report.slots_busy),
    (catalog.WORKER_KV, lambda report: report.kv_used_ratio),
    (catalog.WORKER_OUTSTANDING, lambda report: report.tokens_outstanding),
    (catalog.WORKER_DRAINING, lambda report: report.draining),
    (catalog.ENGINE_RESTARTS, lambda report: report.engine_restarts),
)

_RATES: tuple[tuple[GaugeOf, Callable[[WorkerReport], float]], ...] = (
    (catalog.WORKER_TPS, lambda report: report.tokens_per_s),
    (catalog.WORKER_PROMPT_TPS, lambda report: report.prompt_tokens_per_s),
)

_OTHERS = (
    catalog.WORKER_ACTIVE,
    catalog.WORKER_LOAD,
    catalog.ENGINE_CONNECTED,
    catalog.ENGINE_INFO,
    catalog.ENGINE_MODEL_INFO,
)


class StateMetrics(Collector):
    """The metrics of a worker that was shown to it; before that they have no values."""

    def __init__(self, models: Names) -> None:
        """`models` bounds the label; models that are gone lose their places in it here."""
        self._models = models
        self._look: Callable[[], Iterable[GaugeMetricFamily]] = self.describe

    def show(
        self, report: Callable[[], WorkerReport], *, active: Callable[[], int], connected: Callable[[], bool]
    ) -> None:
        """Where to look; see WorkerMetrics.show."""
        self._look = lambda: self._told(report(), active=active(), connected=connected())

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Asked by the registry."""
        return self._look()

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The same, empty."""
        return [metric.family() for metric in (*(metric for metric, _ in (*_FIGURES, *_RATES)), *_OTHERS)]

    def _told(self, report: WorkerReport, *, active: int, connected: bool) -> Iterator[GaugeMetricFamily]:
        for metric, figure in _FIGURES:
            value = figure(report)
            yield metric.family() if value is None else _one(metric, value)
        for metric, rate in _RATES:
            family = metric.family()
            if report.models:
                family.add_metric([self._models.of(report.default_model)], rate(report))
            yield family
        yield _one(catalog.WORKER_ACTIVE, active)
        yield _one(catalog.WORKER_LOAD, active / report.slots_total if report.slots_total else 0)
        yield _one(catalog.ENGINE_CONNECTED, connected)
        info = catalog.ENGINE_INFO.family()
        info.add_metric([report.engine_kind, report.engine_version], 1)
        yield info
        yield self._model_info(report)

    def _model_info(self, report: WorkerReport) -> GaugeMetricFamily:
        self._models.only({model.name for model in report.models})
        family = catalog.ENGINE_MODEL_INFO.family()
        for model in report.models:
            name = self._models.of(model.name)
            if name != OTHER:
                family.add_metric([name, "yes" if model.loaded else "no", model.quantization], 1)
        return family


def _one(metric: GaugeOf, value: float) -> GaugeMetricFamily:
    family = metric.family()
    family.add_metric([], value)
    return family

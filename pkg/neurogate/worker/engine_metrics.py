"""An engine's own metrics on its worker's port, so that one scrape per box is enough (ADR 0025).

llama.cpp's and vLLM's pass through under their names, `:` replaced by `_`, for a colon is for recording rules. Ollama
has none: its are made of what its API and its answers tell. Asked when somebody scrapes, at most once a second; an
engine that does not answer in time has no metrics this time, and the scrape goes on without.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import structlog
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from neurogate.endpoint import WorkerReport
from neurogate.engines.engine import Figures
from neurogate.model_names import LATEST
from neurogate.telemetry import catalog
from neurogate.telemetry.counting import Counts
from neurogate.telemetry.metric import CounterOf, GaugeOf
from neurogate.telemetry.names import OTHER
from neurogate.worker.metrics import WorkerMetrics

_PREFIXES = ("llamacpp:", "vllm:")
"""What else is in there is about their processes, under names that every process has."""
_OLLAMAS: tuple[GaugeOf | CounterOf, ...] = (
    catalog.OLLAMA_UP,
    catalog.OLLAMA_CONNECTED,
    catalog.OLLAMA_INFO,
    catalog.OLLAMA_MODEL_INSTALLED,
    catalog.OLLAMA_MODEL_LOADED,
    catalog.OLLAMA_MODEL_VRAM,
    catalog.OLLAMA_MODEL_EXPIRES,
    catalog.OLLAMA_REQUESTS,
    catalog.OLLAMA_ERRORS,
    catalog.OLLAMA_PROMPT_TOKENS,
    catalog.OLLAMA_TOKENS,
)
_FRESH_S = 1.0
_TIMEOUT_S = 1.5
_AT_ONCE_BYTES = 16 * 1024
"""A millisecond or two of parsing; llama.cpp's are a tenth of that."""

_log = structlog.get_logger("neurogate.worker")


class Counting(Protocol):
    """An engine that may count."""

    async def figures(self) -> Figures:
        """See Engine.figures."""
        ...


class EngineMetrics(Collector):
    """One engine's metrics, as of the latest `refresh`."""

    def __init__(self, engine: Counting, *, loop: asyncio.AbstractEventLoop) -> None:
        self._engine = engine
        self._loop = loop
        self._families: tuple[Metric, ...] = ()
        self.figures = Figures()
        """What it told last."""
        self._asked_at = -_FRESH_S
        self._asking = asyncio.Lock()
        self._problem = ""

    async def refresh(self) -> None:
        """Ask the engine, unless that was done within the last second. Never raises; takes 1.5 s at most."""
        async with self._asking:
            if self._loop.time() - self._asked_at < _FRESH_S:
                return
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    self.figures = await self._engine.figures()
                    self._families = await _read(self.figures.text)
            except Exception as error:  # noqa: BLE001 - whatever an engine says, the worker's own metrics are told
                self.figures, self._families = Figures(), ()
                self._say(f"{type(error).__name__}: {error}")
            self._asked_at = self._loop.time()

    def collect(self) -> Iterable[Metric]:
        """Asked by the registry."""
        return self._families

    def describe(self) -> Iterable[Metric]:
        """Nothing: nobody knows what an engine will tell."""
        return ()

    def _say(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            _log.debug("the engine's metrics cannot be had", reason=problem)


class OllamaMetrics(Collector):
    """Metrics made for an Ollama. Sizes of models without series of their own are told together."""

    def __init__(
        self, metrics: WorkerMetrics, *, report: Callable[[], WorkerReport], figures: Callable[[], Figures]
    ) -> None:
        self._metrics = metrics
        self._report = report
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """Asked by the registry."""
        report, models = self._report(), self._metrics.models
        up = catalog.OLLAMA_UP.family()
        connected = catalog.OLLAMA_CONNECTED.family()
        answers = bool(report.engine_version)
        for family in (up, connected):
            family.add_metric([], answers)
            yield family
        info = catalog.OLLAMA_INFO.family()
        if answers:
            info.add_metric([report.engine_version], 1)
        yield info
        installed = catalog.OLLAMA_MODEL_INSTALLED.family()
        names = {model.name for model in report.models}
        sizes: Counter[str] = Counter()
        for model in report.models:
            if model.name + LATEST not in names:  # the same model under another name
                sizes[models.of(model.name)] += model.size_bytes
        for name, size in sizes.items():
            installed.add_metric([name], size)
        yield installed
        yield from self._loaded()
        yield _copied(self._metrics.requests, catalog.OLLAMA_REQUESTS)
        yield _copied(self._metrics.errors, catalog.OLLAMA_ERRORS)
        yield _copied(self._metrics.prompt_tokens, catalog.OLLAMA_PROMPT_TOKENS)
        yield _copied(self._metrics.tokens_generated, catalog.OLLAMA_TOKENS)

    def describe(self) -> Iterable[Metric]:
        """The same, empty."""
        return [metric.family() for metric in _OLLAMAS]

    def _loaded(self) -> Iterator[Metric]:
        memory = catalog.OLLAMA_MODEL_LOADED.family()
        on_gpu = catalog.OLLAMA_MODEL_VRAM.family()
        expires = catalog.OLLAMA_MODEL_EXPIRES.family()
        sizes: Counter[str] = Counter()
        gpu_sizes: Counter[str] = Counter()
        for model in self._figures().loaded:
            name = self._metrics.models.of(model.name)
            sizes[name] += model.size_bytes
            gpu_sizes[name] += model.gpu_bytes
            if model.expires_at is not None and name != OTHER:
                expires.add_metric([name], model.expires_at)
        for name, size in sizes.items():
            memory.add_metric([name], size)
            on_gpu.add_metric([name], gpu_sizes[name])
        yield from (memory, on_gpu, expires)


def _copied(counts: Counts, metric: CounterOf) -> CounterMetricFamily:
    """What a counter of ours says, under another name."""
    family = metric.family()
    for labels, value in counts.values.items():
        family.add_metric(labels, value)
    return family


async def _read(text: bytes) -> tuple[Metric, ...]:
    """The same as `_parsed`; a long text does not hold up anybody's tokens."""
    return _parsed(text) if len(text) <= _AT_ONCE_BYTES else await asyncio.to_thread(_parsed, text)


def _parsed(text: bytes) -> tuple[Metric, ...]:
    """The engine's families under names that may be ours. Raises ValueError for what is no metrics."""
    families = []
    for family in text_string_to_metric_families(text.decode()):
        if family.name.startswith(_PREFIXES):
            renamed = Metric(_own(family.name), family.documentation, family.type)
            renamed.samples = [sample._replace(name=_own(sample.name)) for sample in family.samples]
            families.append(renamed)
    return tuple(families)


def _own(name: str) -> str:
    return name.replace(":", "_")

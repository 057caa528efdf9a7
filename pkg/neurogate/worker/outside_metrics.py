"""What a worker's port tells of others: its engine, and the GPUs of its machine. Asked when somebody scrapes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from neurogate.engines.engine import Engine
from neurogate.worker.backend import Worker
from neurogate.worker.engine_metrics import EngineMetrics, OllamaMetrics
from neurogate.worker.gpu import Gpus, Nvml, load_nvml
from neurogate.worker.gpu_metrics import GpuMetrics
from neurogate.worker.metrics import WorkerMetrics


class OutsideMetrics:
    """Puts them on the worker's registry."""

    def __init__(
        self,
        engine: Engine,
        worker: Worker,
        metrics: WorkerMetrics,
        *,
        loop: asyncio.AbstractEventLoop,
        load: Callable[[], Nvml] = load_nvml,
    ) -> None:
        """`load` gives NVIDIA's library."""
        self._gpus = Gpus(load)
        self._gpu_metrics = GpuMetrics(
            self._gpus.look, tokens=lambda: worker.report().completion_tokens_total, loop=loop
        )
        self._engine_metrics = EngineMetrics(engine, loop=loop)
        metrics.registry.register(self._engine_metrics)
        metrics.registry.register(self._gpu_metrics)
        if engine.kind == "ollama":
            metrics.registry.register(
                OllamaMetrics(metrics, report=worker.report, figures=lambda: self._engine_metrics.figures)
            )

    async def refresh(self) -> None:
        """Ask both, at the same time. Never raises; takes 1.5 s at most."""
        await asyncio.gather(self._engine_metrics.refresh(), self._gpu_metrics.refresh())

    def close(self) -> None:
        """Let go of the GPUs' driver, unless a thread is in it: then the process's end does."""
        if not self._gpu_metrics.looking:
            self._gpus.close()

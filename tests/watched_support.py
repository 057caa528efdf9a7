"""A worker that is observed and watched over as in its own process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from neurogate.channel import End
from neurogate.engines.engine import Engine
from neurogate.virtual_time import VirtualTimeLoop
from neurogate.worker.backend import Worker, WorkerLimits
from neurogate.worker.metrics import WorkerMetrics
from neurogate.worker.vigil import WatchSettings
from worker_support import NOW, FakeOutlet, incoming


class Watched:
    """A worker that is observed and watched like in its own process."""

    def __init__(self, engine: Engine, **settings: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.metrics = WorkerMetrics()
        self.worker = Worker(
            engine,
            name="w-1",
            limits=WorkerLimits(max_requests=100),
            metrics=self.metrics,
            loop=self.loop,
            now=lambda: NOW,
            on_change=lambda: None,
            watch=WatchSettings(**settings),
        )

    def canaries(self, outcome: str) -> float:
        return self.value("canaries_total", outcome=outcome)

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"neurogate_worker_{name}", labels) or 0.0

    async def until(self, wanted: Callable[[], bool], *, within_s: float) -> float:
        """Seconds until it is so, on the loop's clock."""
        began = self.loop.time()
        async with asyncio.timeout(within_s):
            while not wanted():
                await asyncio.sleep(0.05)
        return self.loop.time() - began

    def pause(self, seconds: float) -> None:
        """As a process that was stopped for so long, on virtual time."""
        assert isinstance(self.loop, VirtualTimeLoop)
        self.loop.advance(seconds)

    async def asked(self, body: Any = b"{}", **fields: Any) -> End:
        return await self.worker.answer(incoming(body, **fields), FakeOutlet())


@asynccontextmanager
async def watching(engine: Engine, **settings: float) -> AsyncIterator[Watched]:
    watched = Watched(engine, **settings)
    async with asyncio.TaskGroup() as tasks:
        background = [tasks.create_task(watched.worker.observe(1.0)), tasks.create_task(watched.worker.watch())]
        await watched.until(lambda: watched.worker.ready, within_s=5)
        yield watched
        for task in background:
            task.cancel()
    assert watched.worker.active == 0

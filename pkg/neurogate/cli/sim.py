"""`neurogate sim-engine`."""

from __future__ import annotations

import asyncio

from neurogate.engines.settings import SimSettings
from neurogate.engines.sim.server import serve
from neurogate.process import run


def main(settings: SimSettings, *, host: str, port: int, model: str) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code."""

    async def service(stopping: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(serve(settings, host=host, port=port, model=model), name="sim-engine")
            early = tasks.create_task(_cancel_when(stopping, serving), name="stop before it listens")
            await asyncio.wait([serving])
            early.cancel()

    return run(service)


async def _cancel_when(stopping: asyncio.Event, serving: asyncio.Task[None]) -> None:
    """The server minds the signals itself once it listens; this is for one that comes before."""
    await stopping.wait()
    serving.cancel()

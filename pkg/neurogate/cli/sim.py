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
            await stopping.wait()
            serving.cancel()

    return run(service)

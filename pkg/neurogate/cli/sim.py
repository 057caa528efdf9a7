"""`neurogate sim-engine`."""

from __future__ import annotations

import asyncio

from neurogate.engines.settings import SimSettings
from neurogate.engines.sim.server import serve
from neurogate.process import run, run_until


def main(settings: SimSettings, *, host: str, port: int, model: str) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code."""

    async def service(stopping: asyncio.Event) -> None:
        # The server minds the signals itself once it listens; `stopping` is for one that comes before.
        await run_until(stopping, serve(settings, host=host, port=port, model=model), name="sim-engine")

    return run(service)

"""A worker as a process sees it: its ops port tells life from readiness, and its limits reach every service."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from neurogate.engines.engine import Observation
from neurogate.testing.engines import READY, ScriptedEngine
from neurogate.worker.app import serve
from neurogate.worker.settings import WorkerSettings
from real_loop import run_real

SETTINGS = WorkerSettings(host="127.0.0.1", grpc_port=0, metrics_port=0, stats_interval_s=0.01, drain_timeout_s=0)


@pytest.mark.parametrize(
    ("observation", "ready", "status"),
    [(READY, 200, "healthy"), (Observation(ready=False, detail="loading the model"), 503, "unhealthy")],
)
def test_a_worker_that_loads_is_alive_and_not_ready(observation: Observation, ready: int, status: str) -> None:
    """Health is for whoever restarts workers: restarting one that loads would make it load for ever."""

    async def main() -> None:
        engine = ScriptedEngine(observation=observation)
        stopping = asyncio.Event()
        ports = asyncio.get_running_loop().create_future()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(serve(SETTINGS, engine, stopping, on_ports=lambda *both: ports.set_result(both)))
            _, ops_port = await ports
            await engine.observed.until(lambda observed: observed >= 2)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{ops_port}", trust_env=False) as client:
                alive = await client.get("/health")
                assert (alive.status_code, alive.json()["status"]) == (200, status)
                assert alive.json()["detail"] == observation.detail
                assert (await client.get("/ready")).status_code == ready
            stopping.set()
        assert engine.stopped

    run_real(main())

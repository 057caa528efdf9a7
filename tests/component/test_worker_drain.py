"""A worker drains by signal and by its ops port, over real gRPC and HTTP."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from link_support import RecordingSink, call, linking
from neurogate.channel import EndCode
from neurogate.errors import ConfigError
from neurogate.process import Stopping
from neurogate.testing.engines import Reply, ScriptedEngine
from neurogate.worker.app import serve
from neurogate.worker.settings import WorkerConfig, WorkerSettings
from real_loop import eventually, run_real

KEY = "an-admin-key-of-a-worker"
AUTH = {"Authorization": f"Bearer {KEY}"}


class Running:
    def __init__(self, address: str, ops: httpx.AsyncClient, stopping: Stopping) -> None:
        self.address = address
        self.ops = ops
        self.stopping = stopping


@asynccontextmanager
async def running(engine: ScriptedEngine, **settings: Any) -> AsyncIterator[Running]:
    given = WorkerSettings(
        **{"host": "127.0.0.1", "grpc_port": 0, "metrics_port": 0, "stats_interval_s": 0.05, **settings}
    )
    ports: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
    stopping = Stopping()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve(given, engine, stopping, on_ports=lambda *both: ports.set_result(both)))
        port, ops_port = await ports
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{ops_port}", trust_env=False) as ops:
            yield Running(f"127.0.0.1:{port}", ops, stopping)
        stopping.set()


def test_a_request_that_crosses_the_announcement_is_taken() -> None:
    async def main() -> None:
        engine = ScriptedEngine(replies=lambda _: Reply([b"{}"]))
        async with running(engine, drain_delay_s=5.0) as worker, linking(worker.address) as (client, observer):
            await eventually(lambda: bool(observer.reports) and observer.reports[-1].ready)
            worker.stopping.signal = signal.SIGTERM
            worker.stopping.set()
            await eventually(lambda: observer.reports[-1].draining)
            assert not observer.reports[-1].ready
            crossing = RecordingSink()
            client.submit(call(), crossing)
            assert (await crossing.ended()).http_status == 200

    run_real(main())


def test_an_admin_drains_a_worker_and_takes_that_back() -> None:
    async def main() -> None:
        engine = ScriptedEngine(replies=lambda _: Reply([b"{}"]))
        async with (
            running(engine, admin_key=(KEY,), drain_delay_s=0.0) as worker,
            linking(worker.address) as (client, observer),
        ):
            await eventually(lambda: bool(observer.reports) and observer.reports[-1].ready)
            answer = await worker.ops.post("/drain", headers=AUTH)
            assert (answer.status_code, answer.json()) == (
                200,
                {"status": "ok", "draining": True, "active_requests": 0},
            )
            assert (await worker.ops.get("/ready")).status_code == 503
            await eventually(lambda: observer.reports[-1].draining)
            late = RecordingSink()
            client.submit(call(), late)
            assert (await late.ended()).code is EndCode.CANCELLED

            answer = await worker.ops.post("/undrain", headers=AUTH)
            assert answer.json()["draining"] is False
            await eventually(lambda: observer.reports[-1].ready)
            again = RecordingSink()
            client.submit(call(), again)
            assert (await again.ended()).http_status == 200

    run_real(main())


@pytest.mark.parametrize("path", ["/drain", "/undrain"])
def test_a_worker_is_drained_with_its_admin_key_only(path: str) -> None:
    async def main() -> None:
        async with running(ScriptedEngine(), admin_key=(KEY,)) as worker:
            for headers in ({}, {"Authorization": "Bearer of-another-process"}):
                refused = await worker.ops.post(path, headers=headers)
                assert (refused.status_code, refused.json()["code"]) == (401, "invalid_api_key")
            assert (await worker.ops.get("/health")).json()["status"] != "draining"
        async with running(ScriptedEngine()) as worker:
            assert (await worker.ops.post(path, headers=AUTH)).status_code == 404

    run_real(main())


def test_a_weak_admin_key_is_refused() -> None:
    config = WorkerConfig(worker=WorkerSettings(admin_key=("short",)))
    assert [problem.text for problem in config.problems() if problem.keys == ("worker.admin_key",)]
    assert issubclass(ConfigError, Exception)


def test_a_hangup_is_said_and_ignored() -> None:
    """A terminal that closes, or a reload meant for a gateway, ends no worker."""

    async def main() -> None:
        gate = asyncio.Event()
        with capture_logs() as logs:
            async with running(ScriptedEngine()) as worker:
                os.kill(os.getpid(), signal.SIGHUP)
                await eventually(lambda: any("SIGHUP" in log["event"] for log in logs))
                assert (await worker.ops.get("/ping")).status_code == 200
        gate.set()

    run_real(main())

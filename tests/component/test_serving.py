"""A gateway's and a worker's whole life in one process: start, serve, drain, stop, and everything that prevents it."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from config_support import gateway_config
from link_support import RecordingSink, call, linking
from neurogate import __version__
from neurogate.channel import EndCode
from neurogate.engines.engine import EngineFatalError, Observation
from neurogate.errors import ConfigError
from neurogate.gateway import app as gateway_app
from neurogate.gateway.assembly import Gateway
from neurogate.gateway.settings import GatewayConfig
from neurogate.telemetry.settings import TraceSettings
from neurogate.testing.engines import HANG, Reply, ScriptedEngine
from neurogate.worker import app as worker_app
from neurogate.worker.settings import WorkerSettings
from real_loop import eventually, leftover_tasks, run_real

Ports = tuple[int, int]
Serving = Callable[[asyncio.Event, Callable[[int, int], None]], Coroutine[Any, Any, None]]


def worker_of(engine: ScriptedEngine, *, tracing: TraceSettings | None = None, **settings: Any) -> Serving:
    given = WorkerSettings(
        **{"host": "127.0.0.1", "grpc_port": 0, "metrics_port": 0, "stats_interval_s": 0.05, **settings}
    )
    return lambda stopping, on_ports: worker_app.serve(given, engine, stopping, tracing=tracing, on_ports=on_ports)


def gateway_of(**settings: Any) -> Serving:
    given = gateway_config(**{"host": "127.0.0.1", "http_port": 0, "metrics_port": 0, "grpc_port": 0, **settings})
    return lambda stopping, on_ports: gateway_app.serve(given, stopping, on_ports=on_ports)


class Running:
    """A process under way."""

    def __init__(self, ports: Ports, stopping: asyncio.Event, task: asyncio.Task[None]) -> None:
        self.port, self.ops_port = ports
        self.stopping = stopping
        self.task = task

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def ops(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient() as client:
            return await client.get(f"http://127.0.0.1:{self.ops_port}{path}")


@asynccontextmanager
async def running(serving: Serving) -> AsyncIterator[Running]:
    """A process that listens, and is stopped at the end."""
    ports: asyncio.Future[Ports] = asyncio.get_running_loop().create_future()
    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(serving(stopping, lambda port, ops: ports.set_result((port, ops))))
        yield Running(await ports, stopping, task)
        stopping.set()


async def failed(serving: Serving) -> BaseException:
    """The error that a start ends with, taken out of its groups."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - for the caller to look at
        await serving(asyncio.Event(), lambda _, __: pytest.fail("it listens"))
    error: BaseException = caught.value
    while isinstance(error, BaseExceptionGroup):
        [error] = error.exceptions
    return error


@asynccontextmanager
async def taken_port() -> AsyncIterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


# Worker


def test_a_worker_serves_health_readiness_and_metrics() -> None:
    async def main() -> None:
        engine = ScriptedEngine()
        async with running(worker_of(engine, worker_id="w-7")) as worker:
            await engine.observed.until(lambda observed: observed > 0)
            health = await worker.ops("/health")
            assert health.status_code == 200
            told = health.json()
            assert told.pop("canary") is None or told["status"] == "healthy"
            assert told == {
                "status": "healthy",
                "detail": "",
                "last_words": "",
                "worker_id": "w-7",
                "version": __version__,
                "engine": {"kind": "scripted", "version": "1.2.3"},
                "active_requests": 0,
            }
            assert (await worker.ops("/ready")).status_code == 200
            assert "neurogate_worker_engine_connected 1.0" in (await worker.ops("/metrics")).text
        assert engine.stopped == 1

    run_real(main())


def test_a_worker_whose_engine_loads_is_alive_and_not_ready() -> None:
    """Whoever restarts workers that are not healthy must not restart one that loads its model."""

    async def main() -> None:
        engine = ScriptedEngine(observation=Observation(ready=False, detail="loading"))
        async with running(worker_of(engine)) as worker, grpc.aio.insecure_channel(worker.address) as channel:
            health = await worker.ops("/health")
            assert (health.status_code, health.json()["status"]) == (200, "unhealthy")
            ready = await worker.ops("/ready")
            assert (ready.status_code, ready.json()["detail"]) == (503, "loading")
            assert ready.json()["worker_id"].endswith(f":{worker.port}")
            stub: Any = health_pb2_grpc.HealthStub(channel)
            watch = stub.Watch(health_pb2.HealthCheckRequest(service=""))
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            engine.observation = ScriptedEngine().observation
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            assert (await worker.ops("/ready")).status_code == 200
            watch.cancel()

    run_real(main())


def test_a_worker_that_stops_finishes_what_it_holds() -> None:
    """Its gateways hear at once that it takes nothing new, and its link ends as planned."""

    async def main() -> None:
        gate = asyncio.Event()
        engine = ScriptedEngine(replies=lambda _: Reply([gate, b"{}"]))
        async with running(worker_of(engine)) as worker, linking(worker.address) as (client, observer):
            await eventually(lambda: bool(observer.reports) and observer.reports[-1].ready)
            held, late = RecordingSink(), RecordingSink()
            client.submit(call(), held)
            await engine.active.until(lambda active: active == 1)
            worker.stopping.set()
            await eventually(lambda: observer.reports[-1].draining)
            client.submit(call(), late)
            assert (await late.ended()).code is EndCode.CANCELLED
            assert (await worker.ops("/health")).json()["status"] == "draining"
            assert (await worker.ops("/ready")).status_code == 503
            assert not worker.task.done()
            gate.set()
            assert (await held.ended()).http_status == 200
            await observer.hears("left")
        assert "down" not in observer.heard.value
        assert engine.stopped == 1

    run_real(main())


def test_a_worker_that_stops_cuts_what_does_not_end_in_time() -> None:
    async def main() -> None:
        engine = ScriptedEngine(replies=lambda _: Reply([HANG]))
        async with (
            running(worker_of(engine, drain_timeout_s=0.05)) as worker,
            linking(worker.address) as (client, observer),
        ):
            await eventually(lambda: bool(observer.reports) and observer.reports[-1].ready)
            held = RecordingSink()
            client.submit(call(), held)
            await engine.active.until(lambda active: active == 1)
            with capture_logs() as logs:
                worker.stopping.set()
                assert (await held.ended()).code is EndCode.CANCELLED
            assert {"event": "requests cut by the end of the drain", "requests": 1, "log_level": "warning"} in logs
        assert (engine.active.value, engine.aborted, engine.stopped) == (0, 1, 1)

    run_real(main())


@pytest.mark.parametrize("when", ["start", "supervise"])
def test_an_engine_that_can_never_start_ends_the_worker(when: str) -> None:
    """As a wrong setting: starting again without a change is of no use."""

    async def main() -> None:
        steps = {when: [EngineFatalError("the model file is missing")]}
        engine = ScriptedEngine(**steps)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="the model file is missing"):
            await worker_of(engine)(asyncio.Event(), lambda _, __: None)
        assert engine.stopped == 1
        assert leftover_tasks() == []

    run_real(main())


@pytest.mark.parametrize("setting", ["grpc_port", "metrics_port"])
def test_a_workers_port_that_is_taken_ends_it(setting: str) -> None:
    async def main() -> None:
        engine = ScriptedEngine()
        async with taken_port() as port:
            error = await failed(worker_of(engine, **{setting: port}))
        assert isinstance(error, OSError)
        assert f"cannot listen on 127.0.0.1:{port}" in str(error)
        assert engine.stopped == 1

    run_real(main())


def test_a_worker_traces_when_it_is_told_to(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        engine = ScriptedEngine()
        async with (
            running(worker_of(engine, tracing=TraceSettings(traces="console"))) as worker,
            linking(worker.address) as (client, observer),
        ):
            await eventually(lambda: bool(observer.reports) and observer.reports[-1].ready)
            sink = RecordingSink()
            client.submit(call(), sink)
            await sink.ended()

    run_real(main())
    spans = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    assert [(span["name"], span["parent_id"]) for span in spans] == [("call", "0x" + "b" * 16)]
    assert spans[0]["resource"]["attributes"]["service.name"] == "neurogate-worker"


# Gateway


def test_a_gateway_listens_before_any_worker_is_there() -> None:
    async def main() -> None:
        async with running(gateway_of(worker_addresses=("127.0.0.1:1",), failfast_s=0.01)) as gateway:
            assert (await gateway.ops("/ready")).json() == {"ready": True, "draining": False, "version": __version__}
            health = await gateway.ops("/health")
            assert (health.status_code, health.json()["status"]) == (503, "unhealthy")
            assert "neurogate_gateway_worker_linked" in (await gateway.ops("/metrics")).text
            async with httpx.AsyncClient(base_url=f"http://{gateway.address}") as client:
                answer = await client.post("/prompt", json={"query": "Why?"})
                assert (answer.status_code, answer.json()["code"]) == (503, "no_worker_available")
                assert int(answer.headers["retry-after"]) >= 1

    run_real(main())


def test_a_gateway_that_stops_finishes_what_it_holds() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        engine = ScriptedEngine(replies=lambda _: Reply([gate, b'{"done":1}']))
        async with (
            running(worker_of(engine)) as worker,
            running(gateway_of(worker_addresses=(worker.address,))) as gateway,
            httpx.AsyncClient(base_url=f"http://{gateway.address}") as client,
            asyncio.TaskGroup() as tasks,
        ):
            while (await gateway.ops("/health")).status_code != 200:
                pass
            asked = tasks.create_task(client.post("/v1/completions", json={"prompt": "x"}))
            await engine.active.until(lambda active: active == 1)
            gateway.stopping.set()
            while (await gateway.ops("/ready")).status_code != 503:
                pass
            gate.set()
            answer = await asked
            assert (answer.status_code, answer.json()) == (200, {"done": 1})
        assert engine.active.value == 0

    run_real(main())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"worker_addresses": ("nonsense",)}, "'nonsense' is not host:port"),
        ({"worker_addresses": ("a:1", "a:1")}, "an address is listed twice"),
    ],
)
def test_settings_that_cannot_work_end_a_gateway(settings: dict[str, Any], told: str) -> None:
    async def main() -> None:
        error = await failed(gateway_of(**settings))
        assert isinstance(error, ConfigError)
        assert str(error).startswith("WORKER_ADDRESSES")
        assert told in str(error)

    run_real(main())


@pytest.mark.parametrize("setting", ["http_port", "metrics_port"])
def test_a_gateways_port_that_is_taken_ends_it(setting: str) -> None:
    async def main() -> None:
        async with taken_port() as port:
            error = await failed(gateway_of(worker_addresses=("127.0.0.1:1",), **{setting: port}))
        assert isinstance(error, OSError)
        assert f"cannot listen on 127.0.0.1:{port}" in str(error)

    run_real(main())


def test_a_gateway_without_keys_says_that_anyone_may_call() -> None:
    async def main() -> None:
        with capture_logs() as logs:
            Gateway(GatewayConfig(), rng=random.Random(1), now_ns=lambda: 1)
            Gateway(gateway_config(api_keys=("a-long-key",)), rng=random.Random(1), now_ns=lambda: 1)
        assert [log["event"] for log in logs] == [
            "authentication is off: anyone may call this gateway; set API_KEYS or AUTH_KEYS_FILE"
        ]

    run_real(main())

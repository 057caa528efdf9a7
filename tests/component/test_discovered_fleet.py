"""A gateway that finds its workers: they come and go under load, and no request is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from config_support import gateway_config
from neurogate.config import Source
from neurogate.engines.settings import SimSettings
from neurogate.engines.sim.engine import SimEngine
from neurogate.errors import InvalidConfigError
from neurogate.gateway import app
from neurogate.gateway.assembly import Gateway
from neurogate.gateway.checks import findings
from neurogate.gateway.settings import GatewayConfig
from neurogate.testing.fake_kubernetes import FakeKubernetes
from neurogate.testing.sources import slice_object
from neurogate.worker import app as worker_app
from neurogate.worker.settings import WorkerSettings
from real_loop import eventually, run_real

KEY = "a-secret-key"


class Workers:
    """Workers as pods behind one Service. All live on this machine, so each has a slice with a port of its own."""

    def __init__(self, kubernetes: FakeKubernetes, tasks: asyncio.TaskGroup) -> None:
        self.kubernetes = kubernetes
        self._tasks = tasks
        self._stops: dict[str, asyncio.Event] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._ports: dict[str, int] = {}

    async def start(self, name: str) -> None:
        """Run one, and have Kubernetes find it ready."""
        stopping, port = asyncio.Event(), asyncio.get_running_loop().create_future()
        engine = SimEngine(
            SimSettings(prefill_tps=0, decode_tps=200, slots=32),
            model="tiny",
            rng=random.Random(1),
            now=lambda: 1_700_000_000.0,
        )
        settings = WorkerSettings(host="127.0.0.1", grpc_port=0, metrics_port=0, stats_interval_s=0.05)
        self._stops[name] = stopping
        self._running[name] = self._tasks.create_task(
            worker_app.serve(settings, engine, stopping, on_ports=lambda grpc_port, _: port.set_result(grpc_port))
        )
        self._ports[name] = await port
        self.tell(name)

    def tell(self, name: str, **conditions: bool) -> None:
        target = {"kind": "Pod", "name": name, "uid": name}
        endpoint = {"addresses": ["127.0.0.1"], "conditions": {"ready": True, **conditions}, "targetRef": target}
        self.kubernetes.store.put(slice_object(f"slice-{name}", [endpoint], ports=[("grpc", self._ports[name])]))

    async def stop(self, name: str) -> None:
        """As a pod is deleted: it is told to end, first by the list, then by its signal; then it is off the list."""
        self.tell(name, ready=False, terminating=True)
        self._stops[name].set()
        await self._running[name]
        self.kubernetes.store.delete(f"slice-{name}")

    def stop_all(self) -> None:
        for stopping in self._stops.values():
            stopping.set()


@asynccontextmanager
async def gateway(config: GatewayConfig, stopping: asyncio.Event | None = None) -> AsyncIterator[tuple[str, str]]:
    """(URL of the API, URL of the ops port) of a whole gateway."""
    stopping, ports = stopping or asyncio.Event(), asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(app.serve(config, stopping, on_ports=lambda *both: ports.set_result(both)))
        http, ops = await ports
        yield f"http://127.0.0.1:{http}", f"http://127.0.0.1:{ops}"
        stopping.set()


def config_of(kubernetes: FakeKubernetes, **settings: Any) -> GatewayConfig:
    return gateway_config(
        host="127.0.0.1",
        http_port=0,
        metrics_port=0,
        grpc_port=-1,
        drain_delay_s=0,
        api_keys=(KEY,),
        **{"sources": ("kubernetes:neurogate/workers",), "kubernetes_url": kubernetes.url, **settings},
    )


async def names(client: httpx.AsyncClient) -> set[str]:
    workers = (await client.get("/workers")).json()["workers"]
    return {worker["id"] for worker in workers if worker["ready"]}


async def until(condition: Callable[[], Any]) -> None:
    while not await condition():
        await asyncio.sleep(0.02)


def test_workers_come_and_go_under_load_and_no_request_is_lost():
    async def main() -> None:
        async with FakeKubernetes() as kubernetes, asyncio.TaskGroup() as tasks:
            workers = Workers(kubernetes, tasks)
            for name in ("w-0", "w-1"):
                await workers.start(name)
            async with (
                gateway(config_of(kubernetes)) as (url, ops),
                httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=20) as client,
            ):
                served: dict[str, int] = {}
                over = asyncio.Event()

                async def ask() -> None:
                    body = {"messages": [{"role": "user", "content": "hello"}], "stream": True, "max_tokens": 20}
                    while not over.is_set():
                        answer = await client.post("/v1/chat/completions", json=body)
                        assert answer.status_code == 200, answer.text
                        assert answer.text.endswith("data: [DONE]\n\n")
                        worker = answer.headers["x-neurogate-worker"]
                        served[worker] = served.get(worker, 0) + 1

                async with asyncio.TaskGroup() as load:
                    for _ in range(6):
                        load.create_task(ask())

                    async def has(*expected: str) -> bool:
                        return await names(client) == set(expected)

                    await until(lambda: has("w-0", "w-1"))
                    await workers.start("w-2")
                    await workers.start("w-3")
                    await until(lambda: has("w-0", "w-1", "w-2", "w-3"))
                    before = dict(served)
                    await eventually(lambda: all(served.get(f"w-{n}", 0) > before.get(f"w-{n}", 0) for n in range(4)))
                    for name in ("w-0", "w-1", "w-3"):
                        await workers.stop(name)
                    await until(lambda: has("w-2"))
                    kubernetes.cut()  # what breaks the watch costs nobody
                    before = dict(served)
                    await eventually(lambda: served["w-2"] > before["w-2"] + 5)
                    over.set()
                metrics = (await client.get(f"{ops}/metrics")).text
                source = '{source="kubernetes:neurogate/workers"}'
                assert f"neurogate_gateway_discovery_workers{source} 1.0" in metrics
                assert "neurogate_gateway_discovery_up{" in metrics
            workers.stop_all()

    run_real(main(), timeout_s=60)


def test_a_gateway_starts_without_its_source_and_finds_its_workers_when_it_is_there():
    async def main() -> None:
        async with FakeKubernetes() as kubernetes, asyncio.TaskGroup() as tasks:
            kubernetes.refuses["list"] = (403, "{}")
            workers = Workers(kubernetes, tasks)
            await workers.start("w-0")
            with capture_logs() as logs:
                async with (
                    gateway(config_of(kubernetes)) as (url, _),
                    httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {KEY}"}) as client,
                ):
                    assert await names(client) == set()
                    kubernetes.refuses.clear()

                    async def has_it() -> bool:
                        return await names(client) == {"w-0"}

                    await until(has_it)
            told = [log for log in logs if log.get("source") == "kubernetes:neurogate/workers"]
            assert [log["event"] for log in told] == ["workers not found: those of before stay", "workers found"]
            assert "may not list endpointslices" in told[0]["reason"]
            assert "may not list endpointslices" in told[1]["after"]
            workers.stop_all()

    run_real(main(), timeout_s=60)


def test_a_draining_gateway_still_finds_the_workers_that_its_requests_wait_for():
    """As when a cluster replaces gateways and workers at once."""

    async def main() -> None:
        async with FakeKubernetes() as kubernetes, asyncio.TaskGroup() as tasks:
            workers, stopping = Workers(kubernetes, tasks), asyncio.Event()
            config = config_of(kubernetes, failfast_s=30, drain_timeout_s=30)
            with capture_logs() as logs:
                async with (
                    gateway(config, stopping) as (url, ops),
                    httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=40) as client,
                    httpx.AsyncClient() as watching,
                ):
                    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}
                    asked = tasks.create_task(client.post("/v1/chat/completions", json=body))

                    async def waits() -> bool:
                        return "neurogate_gateway_active_requests 1.0" in (await watching.get(f"{ops}/metrics")).text

                    await until(waits)
                    stopping.set()
                    await eventually(lambda: any(log["event"] == "taking no more connections" for log in logs))
                    await workers.start("w-0")
                    answer = await asked
                    assert (answer.status_code, answer.headers["x-neurogate-worker"]) == (200, "w-0")
            workers.stop_all()

    run_real(main(), timeout_s=60)


def test_a_reload_changes_the_sources(tmp_path: Path):
    file = tmp_path / "n.yaml"
    file.write_text("discovery: {sources: [static]}")

    async def main() -> None:
        async with FakeKubernetes() as kubernetes:
            target = {"kind": "Pod", "name": "w-0"}
            kubernetes.store.put(slice_object("a", [{"addresses": ["10.0.0.1"], "targetRef": target}]))
            base = config_of(kubernetes, worker_addresses=("127.0.0.1:1",), sources=("static",))
            source = Source(GatewayConfig, base=base, path=str(file))
            made = Gateway(base, rng=random.Random(1), now_ns=lambda: 42, effective=source.read())

            def found() -> dict[str, str]:
                return {endpoint.id: endpoint.address for endpoint in made.resolver.endpoints}

            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(made.discovery.run())
                assert found() == {"worker-0": "127.0.0.1:1"}
                file.write_text("discovery: {sources: [static, 'kubernetes:neurogate/workers']}")
                await made.reloader.reload("test")
                await eventually(lambda: found() == {"worker-0": "127.0.0.1:1", "w-0": "10.0.0.1:50051"})
                file.write_text("discovery: {sources: ['kubernetes:neurogate/workers']}")
                await made.reloader.reload("test")
                await eventually(lambda: found() == {"w-0": "10.0.0.1:50051"})
                file.write_text("discovery: {sources: ['kubernetes:workers']}")
                with pytest.raises(InvalidConfigError, match="names no namespace"):
                    await made.reloader.reload("test")
                assert found() == {"w-0": "10.0.0.1:50051"}
                file.write_text("discovery: {sources: [static]}")
                await made.reloader.reload("test")
                await eventually(lambda: found() == {"worker-0": "127.0.0.1:1"})
                running.cancel()

    run_real(main())


def test_check_says_what_would_not_work_and_what_is_not_used():
    def said(**settings: Any) -> tuple[list[str], list[str]]:
        found = findings(gateway_config(**settings), now=lambda: 0.0)
        return found.problems, [warning for warning in found.warnings if "WORKER_ADDRESSES" in warning]

    problems, _ = said(sources=("kubernetes:workers",), kubernetes_url="http://localhost:1")
    assert any("names no namespace" in problem for problem in problems)
    _, warnings = said(sources=("dns:workers:50051",), worker_addresses=("a:1",))
    assert warnings == ["WORKER_ADDRESSES is given and not used: NEUROGATE_DISCOVERY has no `static` among its sources"]
    assert said(sources=("dns:workers:50051",)) == ([], [])
    assert said(sources=("static", "dns:workers:50051"), worker_addresses=("a:1",)) == ([], [])

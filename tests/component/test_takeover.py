"""A gateway takes over from another one, in one process: what is handed over, and what happens when it fails."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from config_support import gateway_config
from neurogate.gateway import app, handover, takeover
from neurogate.gateway.handover import Offer, TakeoverError
from neurogate.gateway.takeover import Owner, find
from neurogate.testing.engines import Reply, ScriptedEngine
from neurogate.worker.app import serve as serve_worker
from neurogate.worker.settings import WorkerSettings
from real_loop import eventually, run_real


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Too long for the name of a Unix socket."""
    directory = tmp_path / ("d" * 90)
    directory.mkdir()
    return directory / "gateway.sock"


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def is_there(path: Path) -> bool:
    return path.is_socket()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@asynccontextmanager
async def owning(path: Path, offer: Callable[[], Offer] = Offer) -> AsyncIterator[tuple[Owner, asyncio.Event]]:
    """An owner of the path, and whether it was taken over from."""
    taken = asyncio.Event()
    owner = Owner(path, offer, taken.set)
    owner.claim()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(owner.run())
        yield owner, taken
        running.cancel()
        owner.close()


def test_listening_sockets_and_ports_are_handed_over_by_name(path: Path) -> None:
    async def main() -> None:
        with listening() as http, listening() as ops:
            port = http.getsockname()[1]

            def offer() -> Offer:
                return Offer(7, "1.2", 3, {"http": http, "ops": ops}, {"grpc_port": 8002})

            async with owning(path, offer) as (_, taken):
                before = await find(path)
                assert before is not None
                offered = before.offer
                assert (offered.pid, offered.version, offered.usable) == (7, "1.2", 3)
                assert (offered.port("grpc_port", 0), offered.port("grpc_port", 9), offered.port("x", 0)) == (
                    8002,
                    9,
                    0,
                )
                assert offered.take("http", "127.0.0.1", port + 1) is None, "another port is wanted"
                assert offered.take("http", "127.0.0.2", port) is None, "another address is wanted"
                assert offered.take("http", "no.such.host.invalid", port) is None
                assert offered.take("https", "127.0.0.1", 0) is None, "there is none"
                own = offered.take("http", "localhost", port)
                assert own is not None
                with own:
                    assert own.getsockname() == http.getsockname()
                    assert not taken.is_set()
                    await before.drain()
                    assert taken.is_set()
                before.close()

    run_real(main())


def test_the_socket_is_its_users_alone_and_goes_with_its_owner(path: Path) -> None:
    async def main() -> None:
        async with owning(path):
            assert mode_of(path) == 0o600

    run_real(main())
    assert list(path.parent.iterdir()) == []


def test_nobody_is_found_where_nobody_is(path: Path) -> None:
    async def main() -> None:
        assert await find(path) is None
        dead = socket.socket(socket.AF_UNIX)
        with handover.address_of(path) as address:
            dead.bind(address)
        dead.close()
        assert await find(path) is None, "its owner was killed"
        async with owning(path):
            assert is_there(path)

    run_real(main())


def test_a_gateway_that_ends_before_it_serves_changes_nothing(path: Path) -> None:
    async def main() -> None:
        with listening() as http:
            async with owning(path, lambda: Offer(sockets={"http": http})) as (_, taken):
                with capture_logs() as logs:
                    for _ in range(2):
                        before = await find(path)
                        assert before is not None
                        before.close()
                    await eventually(lambda: sum("no gateway took over" in log["event"] for log in logs) == 2)
                assert not taken.is_set()
                assert http.fileno() >= 0

    run_real(main())


def test_a_gateway_that_ends_with_the_path_in_hand_leaves_it_to_the_one_before(path: Path) -> None:
    async def main() -> None:
        async with owning(path) as (_, taken):
            before = await find(path)
            assert before is not None
            short_lived = Owner(path, Offer, lambda: None)
            short_lived.claim()
            assert is_there(path)
            short_lived.close()
            before.close()
            await eventually(lambda: is_there(path))
            again = await find(path)
            assert again is not None
            again.close()
            assert not taken.is_set()

    run_real(main())


def test_the_path_is_the_new_owners_when_the_old_one_goes(path: Path) -> None:
    async def main() -> None:
        async with owning(path) as (old, _):
            before = await find(path)
            assert before is not None
            new = Owner(path, Offer, lambda: None)
            new.claim()
            await before.drain()
            before.close()
            old.close()
            assert is_there(path)
            new.close()
            assert not is_there(path)

    run_real(main())


def test_an_old_gateway_that_is_gone_needs_no_drain(path: Path) -> None:
    async def main() -> None:
        async with owning(path):
            before = await find(path)
            assert before is not None
        with capture_logs() as logs:
            await before.drain()
            await before.drain()
        assert logs[-1]["event"] == "the gateway before did not say that it drains"
        before.close()

    run_real(main())


@pytest.mark.parametrize(
    "answer", [b"", b"not JSON", b'{"pid":1,"version":"","usable":0,"sockets":["http"],"ports":{}}']
)
def test_something_else_at_the_path_is_not_taken_over_from(path: Path, answer: bytes) -> None:
    async def main() -> None:
        server = socket.socket(socket.AF_UNIX)
        with closing(server), handover.address_of(path) as address:
            server.bind(address)
            server.listen()

            def say() -> None:
                connection, _ = server.accept()
                with connection:
                    connection.sendall(answer)

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(asyncio.to_thread(say))
                with pytest.raises(TakeoverError, match=r"NEUROGATE_TAKEOVER_SOCKET.*something else"):
                    await find(path)

    run_real(main())


def test_a_descriptor_that_does_not_listen_is_refused(path: Path) -> None:
    async def main() -> None:
        with socket.socket() as plain:
            async with owning(path, lambda: Offer(sockets={"http": plain})):
                with pytest.raises(TakeoverError, match="something else than its listeners"):
                    await find(path)

    run_real(main())


def test_another_users_process_gets_nothing_and_gives_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with owning(path) as (_, taken):
            monkeypatch.setattr(handover.os, "geteuid", lambda: os.getuid() + 1)
            with pytest.raises(TakeoverError, match="belongs to another user's process"):
                await find(path)
            monkeypatch.setattr(takeover, "is_ours", lambda _: False)
            with capture_logs() as logs:
                await eventually(lambda: bool(logs) or not is_there(path))
                assert not taken.is_set()

    run_real(main())


@pytest.mark.parametrize(("module", "name"), [(socket, "SO_PEERCRED"), (socket, "MSG_CMSG_CLOEXEC"), (os, "O_PATH")])
def test_what_a_platform_lacks_is_named(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
    assert handover.lacking() == ""
    monkeypatch.delattr(module, name)
    assert handover.lacking() == f"linux has no {name}"


def test_descriptors_must_have_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(handover, "_DESCRIPTORS", tmp_path / "fd")
    assert handover.lacking() == f"there is no {tmp_path / 'fd'}"


@pytest.mark.parametrize("kind", ["file", "directory that is not there"])
def test_a_path_that_cannot_be_had_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file" if kind == "file" else tmp_path / "nowhere" / "gateway.sock"
    if kind == "file":
        path.write_text("precious")

    with pytest.raises(OSError, match=r"cannot listen on .* \(NEUROGATE_TAKEOVER_SOCKET\)"):
        Owner(path, Offer, lambda: None).claim()

    assert kind != "file" or path.read_text() == "precious"


# Whole gateways


@asynccontextmanager
async def a_worker(engine: ScriptedEngine) -> AsyncIterator[str]:
    stopping, port = asyncio.Event(), asyncio.get_running_loop().create_future()
    settings = WorkerSettings(host="127.0.0.1", grpc_port=0, metrics_port=0, stats_interval_s=0.05)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(
            serve_worker(settings, engine, stopping, on_ports=lambda grpc_port, _: port.set_result(grpc_port))
        )
        yield f"127.0.0.1:{await port}"
        stopping.set()


class Gateway:
    def __init__(self, path: Path, tasks: asyncio.TaskGroup, worker: str, **settings: Any) -> None:
        self.stopping = asyncio.Event()
        self.ports: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
        config = gateway_config(
            host="127.0.0.1", http_port=0, metrics_port=0, grpc_port=0, worker_addresses=(worker,),
            takeover_socket=str(path), **settings,
        )  # fmt: skip
        self.task = tasks.create_task(
            app.serve(config, self.stopping, on_ports=lambda *ports: self.ports.set_result(ports))
        )


def test_a_gateway_hands_over_its_ports_and_finishes_what_it_holds(path: Path) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        engine = ScriptedEngine(replies=lambda _: Reply([gate, b'{"done":1}']))
        async with a_worker(engine) as worker, asyncio.TaskGroup() as tasks:
            old = Gateway(path, tasks, worker)
            port, ops_port = await old.ports
            url, ops = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{ops_port}"
            async with httpx.AsyncClient(base_url=url) as client, httpx.AsyncClient(base_url=ops) as watcher:
                while (await watcher.get("/health")).status_code != 200:
                    pass
                asked = tasks.create_task(client.post("/v1/completions", json={"prompt": "x"}))
                await engine.active.until(lambda active: active == 1)
                new = Gateway(path, tasks, worker)
                assert await new.ports == (port, ops_port)
                assert (await client.get("/ready")).status_code == 200
                assert not old.task.done()
                gate.set()
                answer = await asked
                assert (answer.status_code, answer.json()) == (200, {"done": 1})
                await old.task
                assert (await watcher.get("/ready")).json()["ready"] is True
            new.stopping.set()
            await new.task
        assert not is_there(path)

    run_real(main())


def test_a_gateway_without_workers_does_not_take_over_from_one_that_has_some(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover.as_usable, "__defaults__", (0.2,))

    async def main() -> None:
        async with a_worker(ScriptedEngine()) as worker, asyncio.TaskGroup() as tasks:
            old = Gateway(path, tasks, worker)
            port, _ = await old.ports
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                while (await client.get("/health")).status_code != 200:
                    pass
                with pytest.raises(ExceptionGroup) as caught:
                    async with asyncio.TaskGroup() as others:
                        Gateway(path, others, "127.0.0.1:1")
                error: BaseException = caught.value
                while isinstance(error, BaseExceptionGroup):
                    [error] = error.exceptions
                assert str(error) == "no worker can be used after 0.2 s, and the running gateway has 1"
                assert (await client.get("/ready")).status_code == 200
            assert not old.task.done()
            old.stopping.set()

    run_real(main())


def test_a_gateway_that_is_stopped_while_it_starts_takes_nothing_over(path: Path) -> None:
    async def main() -> None:
        async with a_worker(ScriptedEngine()) as worker, asyncio.TaskGroup() as tasks:
            old = Gateway(path, tasks, worker)
            port, _ = await old.ports
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                while (await client.get("/health")).status_code != 200:
                    pass
                with capture_logs() as logs:
                    new = Gateway(path, tasks, "127.0.0.1:1")
                    await eventually(lambda: any("starts that will" in log["event"] for log in logs))
                    new.stopping.set()
                    await new.task
                    await eventually(lambda: any("no gateway took over" in log["event"] for log in logs))
                assert not new.ports.done()
                assert (await client.get("/ready")).status_code == 200
            assert is_there(path)
            old.stopping.set()

    run_real(main())


def test_grpc_health_follows_a_drain(path: Path) -> None:
    """An admin has the gateway drain: not ready anywhere, answers say close, and everything is served."""

    async def main() -> None:
        key = "an-admin-key-for-tests"
        headers = {"Authorization": f"Bearer {key}"}
        async with a_worker(ScriptedEngine()) as worker, asyncio.TaskGroup() as tasks:
            with capture_logs() as logs:
                gateway = Gateway(path, tasks, worker, admin_key=(key,))
                port, ops_port = await gateway.ports
            [grpc_port] = [log["grpc_port"] for log in logs if log["event"] == "gateway listens"]
            async with (
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers) as client,
                grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel,
            ):
                stub: Any = health_pb2_grpc.HealthStub(channel)
                watch = stub.Watch(health_pb2.HealthCheckRequest(service=""))
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
                drained = await client.post("/admin/drain")
                assert drained.json() == {"status": "ok", "draining": True}
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
                not_ready = await client.get("/ready")
                assert (not_ready.status_code, not_ready.headers["connection"]) == (503, "close")
                assert (await client.get(f"http://127.0.0.1:{ops_port}/ready")).status_code == 503
                assert (await client.get("/ping")).status_code == 200
                assert (await client.post("/admin/undrain")).json() == {"status": "ok", "draining": False}
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
                ready = await client.get("/ready")
                assert (ready.status_code, "connection" in ready.headers) == (200, False)
                watch.cancel()
            gateway.stopping.set()

    run_real(main())

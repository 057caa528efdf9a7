"""The long version of the fault suite: each fault under clients of every API, one after the other.

A worker that is hit leaves two others, so nobody may fail; where nobody could have answered, the test says so.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
import struct
from pathlib import Path

import pytest

from chaos_support.checker import Kind
from chaos_support.engine_proxy import Lie
from chaos_support.fault_proxy import Mode, Weather
from chaos_support.faults import SOON
from chaos_support.fleet import Plan
from chaos_support.stage import Stage, Theatre, any_may
from chaos_support.traffic import STREAMS, Asked
from redis_support import redis_server
from tls_support import Pki

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

LINKED = Plan(workers=3, links=True)


async def underway(stage: Stage) -> None:
    """A good part of the streams has begun."""
    await stage.some_started(len(stage.asked) // 2)
    await asyncio.sleep(0.1)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGABRT, signal.SIGTERM], ids=lambda number: number.name)
def test_worker_ends(theatre: Theatre, signum: signal.Signals) -> None:
    async def end(stage: Stage) -> None:
        await underway(stage)
        worker = stage.fleet.workers[0]
        worker.send(signum)
        await stage.in_thread(worker.popen.wait, 40)
        await stage.in_thread(stage.fleet.restart_worker, 0)
        await stage.fleet.until_ready()

    theatre.run(f"{signum.name} of a worker", Plan(workers=3), end, clients=48)


def test_worker_stops_and_goes_on(theatre: Theatre) -> None:
    async def stop(stage: Stage) -> None:
        await underway(stage)
        worker = stage.fleet.workers[0]
        worker.send(signal.SIGSTOP)
        await asyncio.sleep(8)
        worker.send(signal.SIGCONT)
        await stage.fleet.until_ready()

    theatre.run("SIGSTOP and SIGCONT of a worker", Plan(workers=3), stop, clients=48)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGABRT], ids=lambda number: number.name)
def test_engine_ends(theatre: Theatre, signum: signal.Signals) -> None:
    async def end(stage: Stage) -> None:
        await underway(stage)
        stage.fleet.engines[0].send(signum)
        await stage.in_thread(stage.fleet.engines[0].popen.wait, 40)
        await stage.in_thread(stage.fleet.restart_engine, 0)
        await stage.fleet.until_ready()

    theatre.run(f"{signum.name} of an engine", Plan(workers=3, engines="beside"), end, clients=48, apis=ENGINE_APIS)


def test_engine_stops_and_goes_on(theatre: Theatre) -> None:
    """It is found out by its silence, before it goes on."""

    async def stop(stage: Stage) -> None:
        await underway(stage)
        stage.fleet.engines[0].send(signal.SIGSTOP)
        await asyncio.wait([asyncio.ensure_future(served(stage))], timeout=30)
        stage.fleet.engines[0].send(signal.SIGCONT)
        await stage.fleet.until_ready()

    row = theatre.run(
        "SIGSTOP and SIGCONT of an engine",
        Plan(workers=3, engines="beside"),
        stop,
        clients=48,
        apis=ENGINE_APIS,
        explained=WEDGED,
    )
    assert row.longest_gap_s <= 15


WHOLES = ("chat", "completions", "prompt", "ollama chat", "ollama generate")
ENGINE_APIS = (*STREAMS, *WHOLES, "grpc stream")


def test_link_is_reset(theatre: Theatre) -> None:
    async def reset(stage: Stage) -> None:
        await underway(stage)
        for _ in range(3):
            stage.fleet.links[0].reset()
            await asyncio.sleep(0.5)
        await stage.fleet.until_ready()

    theatre.run("reset of a link, three times", LINKED, reset, clients=48)


@pytest.mark.parametrize("mode", [Mode.REFUSE, Mode.BLACK_HOLE, Mode.HALF_OPEN, Mode.DEAF], ids=lambda mode: mode.value)
def test_link_is_lost(theatre: Theatre, mode: Mode) -> None:
    async def lose(stage: Stage) -> None:
        await underway(stage)
        stage.fleet.links[0].set(mode)
        await asyncio.sleep(6)
        stage.fleet.links[0].set(Mode.PASS)
        await stage.fleet.until_ready()

    theatre.run(f"link: {mode.value}", LINKED, lose, clients=48)


@pytest.mark.parametrize(
    "weather", [Weather(latency_s=0.2), Weather(loss=0.01), Weather(latency_s=0.2, loss=0.01)], ids=str
)
def test_links_are_bad(theatre: Theatre, weather: Weather) -> None:
    async def worsen(stage: Stage) -> None:
        for link in stage.fleet.links:
            link.set_weather(weather)
        await stage.all_started()

    name = f"links: {weather.latency_s * 1000:.0f} ms, {weather.loss:.0%} loss"
    theatre.run(name, LINKED, worsen, clients=48)


@pytest.mark.parametrize("weather", [Weather(latency_s=0.2), Weather(loss=0.01)], ids=str)
def test_clients_are_far(theatre: Theatre, weather: Weather) -> None:
    async def worsen(stage: Stage) -> None:
        assert stage.fleet.client_proxy is not None
        stage.fleet.client_proxy.set_weather(weather)
        await stage.all_started()

    name = f"clients: {weather.latency_s * 1000:.0f} ms, {weather.loss:.0%} loss"
    theatre.run(name, Plan(workers=2, clients=True), worsen, clients=48)


@pytest.mark.parametrize("mode", [Mode.REFUSE, Mode.HALF_OPEN], ids=lambda mode: mode.value)
def test_clients_are_lost(theatre: Theatre, mode: Mode) -> None:
    """A client that is gone sees a cut connection at most, and all it held is given back."""

    async def lose(stage: Stage) -> None:
        await underway(stage)
        assert stage.fleet.client_proxy is not None
        stage.fleet.client_proxy.set(mode)
        await asyncio.sleep(1)
        stage.fleet.client_proxy.set(Mode.PASS)

    theatre.run(f"clients: {mode.value}", Plan(workers=2, clients=True), lose, clients=48, may_fail=any_may)


@pytest.mark.parametrize("lie", [lie for lie in Lie if lie is not Lie.NONE], ids=lambda lie: lie.value)
def test_engine_lies(theatre: Theatre, lie: Lie) -> None:
    """One engine of three gives wrong answers while it says that it is well."""

    async def start_lying(stage: Stage) -> None:
        stage.fleet.engine_proxies[0].set(lie)
        await stage.all_started()
        await asyncio.sleep(1)
        await asyncio.wait_for(served(stage), 60)
        stage.fleet.engine_proxies[0].set(Lie.NONE)

    plan = Plan(workers=3, engines="lying")
    theatre.run(
        f"engine: {lie.value}",
        plan,
        start_lying,
        clients=48,
        apis=ENGINE_APIS,
        explained=WEDGED,
        timeout_s=180,
    )


def test_engine_loses_requests(theatre: Theatre) -> None:
    """Some are never answered, while the engine answers all others: even where nothing shows before the end."""

    async def lose(stage: Stage) -> None:
        stage.fleet.engine_proxies[0].set(Lie.SILENT, share=0.3)
        await asyncio.sleep(0.5)
        await asyncio.wait_for(served(stage), 60)
        stage.fleet.engine_proxies[0].set(Lie.NONE)

    plan = Plan(workers=3, engines="lying", worker=SOON)
    theatre.run("engine: some are lost", plan, lose, clients=48, apis=WHOLES, explained=WEDGED)


WEDGED = ("engine wedged",)


async def served(stage: Stage) -> None:
    while any(one.verdict is None for one in stage.asked):
        await asyncio.sleep(0.05)


def test_disk_of_logs_is_full(theatre: Theatre, tmp_path: Path) -> None:
    """Neither the access log's disk nor the log's is worth a request."""

    async def fill(stage: Stage) -> None:
        for process in (stage.fleet.gateway, *stage.fleet.workers):
            limit_file_size(process.pid, 1024)
        await stage.all_started()

    for name, access_log in [("/dev/full", "/dev/full"), ("files", str(tmp_path / "access.log"))]:
        plan = Plan(
            workers=2,
            gateway={"NEUROGATE_ACCESS_LOG": access_log, "NEUROGATE_LOG_DIR": str(tmp_path / name.strip("/"))},
            worker={"NEUROGATE_LOG_DIR": str(tmp_path / f"worker {name.strip('/')}")},
        )
        theatre.run(f"disk of logs is full: {name}", plan, fill, clients=48, explained=DISK_FULL)


DISK_FULL = ("log lines are lost: the file cannot be written",)


def limit_file_size(pid: int, size: int) -> None:
    import resource

    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0, 86400.0 * 40], ids=lambda jump_s: f"{jump_s:.0f} s")
def test_clock_jumps(theatre: Theatre, tmp_path: Path, jump_s: float) -> None:
    clock = tmp_path / "skew"
    clock.write_bytes(struct.pack("d", 0.0))

    async def jump(stage: Stage) -> None:
        await underway(stage)
        with clock.open("r+b") as file:
            file.write(struct.pack("d", jump_s))
        await stage.all_started()

    plan = Plan(workers=2, clock=clock, gateway={"NEUROGATE_REQUESTS_PER_MINUTE": "100000"})
    theatre.run(f"wall clock jumps {jump_s:.0f} s", plan, jump, clients=48)


def test_file_descriptors_run_out(theatre: Theatre) -> None:
    """Who cannot be let in is not let in; who is in is served, and later everybody is."""
    import resource

    async def run_out(stage: Stage) -> None:
        await underway(stage)
        gateway = stage.fleet.gateway
        before = resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (gateway.open_files(), before[1]))
        late = stage.clients.draw(40, STREAMS, (5, 10))
        await stage.clients.learn(late)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stage.clients.ask_all(late))
            await asyncio.sleep(2)
            resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, before)
        await ask_again(stage)

    def came_late(one: Asked) -> bool:
        return one.max_tokens <= 10

    theatre.run(
        "file descriptors run out", Plan(workers=2), run_out, clients=48, may_fail=came_late, explained=OUT_OF_FILES
    )


OUT_OF_FILES = ("cannot accept", "accept failed")


def test_gateway_restarts_under_load(theatre: Theatre) -> None:
    """SIGTERM, and a new process behind it: who is served is served to the end; nobody listens only in between."""

    async def restart(stage: Stage) -> None:
        await stage.all_started()
        stage.fleet.gateway.send(signal.SIGTERM)
        late = stage.clients.draw(20, STREAMS, (5, 10))
        await stage.clients.learn(late)
        await asyncio.sleep(0.3)
        await stage.clients.ask_all(late)
        await stage.in_thread(stage.fleet.gateway.popen.wait, 40)
        await stage.in_thread(stage.fleet.start_gateway)
        await stage.fleet.until_ready()
        await ask_again(stage)

    def came_between(one: Asked) -> bool:
        return one.max_tokens <= 10

    theatre.run("restart of the gateway", Plan(workers=2), restart, clients=48, apis=STREAMS, may_fail=came_between)


def test_certificate_is_rotated_under_load(theatre: Theatre, tmp_path: Path) -> None:
    """Connections that are open are not touched, new ones meet the new certificate."""
    pki = Pki(tmp_path)
    certificate, key = pki.issue("gateway")
    trust = ssl.create_default_context(cafile=pki.ca)

    async def rotate(stage: Stage) -> None:
        await underway(stage)
        before = await shown(stage.fleet.http_port, trust)
        pki.issue("gateway")
        stage.fleet.gateway.send(signal.SIGHUP)
        while await shown(stage.fleet.http_port, trust) == before:
            await asyncio.sleep(0.1)
        await ask_again(stage)

    plan = Plan(
        workers=2,
        tls=trust,
        gateway={"NEUROGATE_TLS_CERT": certificate, "NEUROGATE_TLS_KEY": key, "NEUROGATE_GRPC_TLS_PORT": "-1"},
    )
    theatre.run("certificate is rotated", plan, rotate, clients=48)


async def shown(port: int, trust: ssl.SSLContext) -> bytes:
    """The certificate that a new connection meets."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return certificate


async def ask_again(stage: Stage, count: int = 20, tokens: tuple[int, int] = (5, 10)) -> None:
    """Behind the fault everybody is answered."""
    again = stage.clients.draw(count, STREAMS, tokens)
    await stage.clients.learn(again)
    await stage.clients.ask_all(again)
    wrong = [str(one.verdict) for one in again if one.verdict is None or one.verdict.kind is not Kind.WHOLE]
    assert not wrong, wrong


@pytest.mark.parametrize("way", ["killed", "hangs"])
def test_redis_is_gone_and_comes_back(theatre: Theatre, tmp_path: Path, way: str) -> None:
    """Limits are counted in memory meanwhile: nobody is refused for it, and every unit comes back."""
    with redis_server(tmp_path) as redis:

        async def lose(stage: Stage) -> None:
            await underway(stage)
            (redis.kill if way == "killed" else redis.pause)()
            await ask_again(stage)
            await asyncio.sleep(1)
            await stage.in_thread(redis.start if way == "killed" else redis.go_on)
            await asyncio.sleep(3)
            await served(stage)
            await ask_again(stage, 60)

        limits = {"REDIS_URL": redis.url, "NEUROGATE_CONCURRENT_PER_KEY": "70", "NEUROGATE_REQUESTS_PER_MINUTE": "9999"}
        theatre.run(f"Redis: {way}", Plan(workers=2, gateway=limits), lose, clients=48)


def test_units_of_limits_come_back(theatre: Theatre) -> None:
    """As many requests as a key may have at once are let in again after each round of kills."""

    async def kill(stage: Stage) -> None:
        for index in range(3):
            await underway(stage)
            stage.fleet.kill_worker(index)
            await stage.in_thread(stage.fleet.restart_worker, index)
            await served(stage)
            await stage.fleet.until_ready()
            await ask_again(stage, 48)

    limits = {"NEUROGATE_CONCURRENT_PER_KEY": "48", "NEUROGATE_TOKENS_PER_MINUTE": "1000000"}
    theatre.run("units of limits after kills", Plan(workers=3, gateway=limits), kill, clients=48)


def test_every_worker_dies(theatre: Theatre) -> None:
    """With nobody left every failure is honest; with somebody back, all is well again."""

    async def kill_all(stage: Stage) -> None:
        await underway(stage)
        for worker in stage.fleet.workers:
            worker.kill()
        await asyncio.sleep(3)
        for index in range(len(stage.fleet.workers)):
            await stage.in_thread(stage.fleet.restart_worker, index)
        await stage.fleet.until_ready()
        await ask_again(stage)

    plan = Plan(workers=2, gateway={"NEUROGATE_RESUME_WAIT_S": "1", "NEUROGATE_FAILFAST_S": "1"})
    theatre.run("every worker is killed", plan, kill_all, clients=48, may_fail=any_may)


def test_every_worker_dies_and_streams_wait_for_them(theatre: Theatre) -> None:
    async def kill_all(stage: Stage) -> None:
        await stage.all_started()
        for index, worker in enumerate(stage.fleet.workers):
            worker.kill()
            await stage.in_thread(stage.fleet.restart_worker, index)
        await stage.fleet.until_ready()

    plan = Plan(workers=2, gateway={"NEUROGATE_FAILFAST_S": "20", "NEUROGATE_RESUME_WAIT_S": "20"})
    theatre.run("every worker is killed and comes back", plan, kill_all, clients=48)

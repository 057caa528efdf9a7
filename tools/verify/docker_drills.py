"""What happens to a fleet in compose, under a load whose clients retry nothing: no request may be lost.

Every answer must be whole, and say what an undisturbed one said (closed_load.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from closed_load import BadAnswerError, ClosedLoad, ask
from docker_host import Fleet
from docker_smoke import WORKERS, workers
from report import Report

PORT = 8080
CLIENTS = 4
TOKENS = 24
SEEN_S = 30.0
BACK_S = 90.0
ADMITTED = 6


async def run(report: Report, fleet: Fleet, key: str) -> None:
    """Every drill, one after the other; the last one stops the fleet."""
    for drill in (_cut_off, _recreated):
        async with ClosedLoad(PORT, key, clients=CLIENTS, tokens=TOKENS) as load:
            await drill(report, fleet, load)
        name = drill.__name__.strip("_").replace("_", " ")
        report.expect(f"{name}: no request lost", load.whole > 0 and not load.failed, str(load))
    await _stopped(report, fleet, key)


async def _cut_off(report: Report, fleet: Fleet, load: ClosedLoad) -> None:
    """A worker's network goes away without a word, and comes back."""
    network, victim = f"{fleet.project}_default", "worker-2"
    await load.more(6)
    began = time.monotonic()
    await _docker(fleet, "network", "disconnect", network, fleet.container(victim))
    seen = await _until(lambda: _state(victim) != "ready", SEEN_S)
    after_s = time.monotonic() - began
    report.expect("cut off: the gateway sees it", seen, f"{_told(victim)} after {after_s:.1f} s")
    await load.more(16)
    states = {name: _state(name) for name in WORKERS if name != victim}
    report.expect("cut off: the others go on", set(states.values()) == {"ready"}, str(states))
    await _docker(fleet, "network", "connect", "--alias", victim, network, fleet.container(victim))
    began = time.monotonic()
    back = await _until(lambda: _state(victim) == "ready", BACK_S)
    report.expect(
        "cut off: it is ready again", back, f"{_told(victim)} {time.monotonic() - began:.1f} s after it could be"
    )
    await load.more(6)


async def _recreated(report: Report, fleet: Fleet, load: ClosedLoad) -> None:
    """One worker is replaced by a new container, as an update does."""
    await load.more(4)
    before = await asyncio.to_thread(fleet.docker.inspect, "container", fleet.container("worker-3"))
    words = fleet.words("up", "--detach", "--wait", "--no-deps", "--force-recreate", "worker-3")
    began = time.monotonic()
    await _docker(fleet, *words)
    after = await asyncio.to_thread(fleet.docker.inspect, "container", fleet.container("worker-3"))
    ready = await _until(lambda: all(_state(name) == "ready" for name in WORKERS), BACK_S)
    new = before["Id"] != after["Id"]
    report.expect("recreated: a new container, and three ready", new and ready, f"{time.monotonic() - began:.1f} s")
    await load.more(6)


async def _stopped(report: Report, fleet: Fleet, key: str) -> None:
    """`docker compose stop` lets finish what was admitted, and every process leaves by itself."""
    begun = [asyncio.Event() for _ in range(ADMITTED)]
    async with asyncio.TaskGroup() as tasks:
        streams = [tasks.create_task(_is_whole(key, number, event)) for number, event in enumerate(begun)]
        async with asyncio.timeout(120):
            for event in begun:
                await event.wait()
        began = time.monotonic()
        await _docker(fleet, *fleet.words("stop"))
        took_s = time.monotonic() - began
    whole = sum(stream.result() for stream in streams)
    report.expect(
        "stopped: every admitted stream is whole", whole == ADMITTED, f"{whole} of {ADMITTED}, {took_s:.1f} s"
    )
    codes = {name: fleet.exit_code(name) for name in ("gateway", *WORKERS)}
    report.expect("stopped: every process left by itself", not any(codes.values()), str(codes))


async def _is_whole(key: str, number: int, begun: asyncio.Event) -> bool:
    try:
        return bool(await ask(PORT, key, f"Tell me story number {number}.", tokens=64, begun=begun))
    except (BadAnswerError, OSError, EOFError):
        return False


async def _docker(fleet: Fleet, *words: str) -> None:
    await asyncio.to_thread(fleet.docker.said, *words)


async def _until(true: Callable[[], bool], timeout_s: float) -> bool:
    """Whether it came true in time; a gateway is asked four times a second."""
    deadline = time.monotonic() + timeout_s
    while not await asyncio.to_thread(true):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.25)
    return True


def _state(worker: str) -> str:
    return str(workers().get(worker, {}).get("state", "gone"))


def _told(worker: str) -> str:
    known = workers().get(worker, {})
    return (
        f"state {known.get('state')}, breaker {known.get('circuit_breaker_state')}, {known.get('detail', '')}".rstrip(
            ", "
        )
    )

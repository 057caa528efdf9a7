"""What happens to a fleet in compose, under a load whose clients retry nothing: no request may be lost.

The load is that of the rolling-restart test: every answer must be whole, and say what an undisturbed one said.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable

from docker_host import Fleet
from docker_smoke import WORKERS, workers
from report import ROOT, Report

sys.path.insert(0, str(ROOT / "tests"))
from steady_load import Counts, SteadyLoad  # type: ignore[import-not-found]  # tests are no part of what mypy checks

PORT = 8080
PER_SECOND = 2.0
TOKENS = 24
SEEN_S = 30.0
BACK_S = 90.0
ADMITTED = 6


async def run(report: Report, fleet: Fleet, key: str) -> None:
    """Every drill, one after the other; the last one stops the fleet."""
    for drill in (_cut_off, _recreated):
        async with SteadyLoad(PORT, key=key, per_second=PER_SECOND, max_tokens=TOKENS, prompts=4) as load:
            await drill(report, fleet, load)
        _count(report, drill.__name__.strip("_").replace("_", " "), load.counts)
    await _stopped(report, fleet, key)


def _count(report: Report, drill: str, counts: Counts) -> None:
    lost = counts.asked - counts.whole
    report.expect(f"{drill}: no request lost", not lost and counts.asked > 0, str(counts).replace("\n", ";"))


async def _cut_off(report: Report, fleet: Fleet, load: SteadyLoad) -> None:
    """A worker's network goes away without a word, and comes back."""
    network, victim = f"{fleet.project}_default", "worker-2"
    await load.until(load.counts.asked + 6)
    began = time.monotonic()
    await _docker(fleet, "network", "disconnect", network, fleet.container(victim))
    seen = await _until(lambda: _state(victim) != "ready", SEEN_S)
    after_s = time.monotonic() - began
    report.expect("cut off: the gateway sees it", seen, f"{_told(victim)} after {after_s:.1f} s")
    await load.until(load.counts.asked + 16)
    states = {name: _state(name) for name in WORKERS if name != victim}
    report.expect("cut off: the others go on", set(states.values()) == {"ready"}, str(states))
    await _docker(fleet, "network", "connect", "--alias", victim, network, fleet.container(victim))
    began = time.monotonic()
    back = await _until(lambda: _state(victim) == "ready", BACK_S)
    report.expect(
        "cut off: it is ready again", back, f"{_told(victim)} {time.monotonic() - began:.1f} s after it could be"
    )
    await load.until(load.counts.asked + 6)


async def _recreated(report: Report, fleet: Fleet, load: SteadyLoad) -> None:
    """One worker is replaced by a new container, as an update does."""
    await load.until(load.counts.asked + 4)
    before = await asyncio.to_thread(fleet.docker.inspect, "container", fleet.container("worker-3"))
    words = fleet.words("up", "--detach", "--wait", "--no-deps", "--force-recreate", "worker-3")
    began = time.monotonic()
    await _docker(fleet, *words)
    after = await asyncio.to_thread(fleet.docker.inspect, "container", fleet.container("worker-3"))
    ready = await _until(lambda: all(_state(name) == "ready" for name in WORKERS), BACK_S)
    new = before["Id"] != after["Id"]
    report.expect("recreated: a new container, and three ready", new and ready, f"{time.monotonic() - began:.1f} s")
    await load.until(load.counts.asked + 6)


async def _stopped(report: Report, fleet: Fleet, key: str) -> None:
    """`docker compose stop` lets finish what was admitted, and every process leaves by itself."""
    begun = [asyncio.Event() for _ in range(ADMITTED)]
    async with asyncio.TaskGroup() as tasks:
        streams = [tasks.create_task(_stream(key, number, event)) for number, event in enumerate(begun)]
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


async def _stream(key: str, number: int, begun: asyncio.Event) -> bool:
    """Ask for a stream; tell when its first event is there. Gives whether it came to its end mark."""
    question = {
        "messages": [{"role": "user", "content": f"Tell me story number {number}."}],
        "max_tokens": 96,
        "temperature": 0,
        "stream": True,
    }
    body = json.dumps(question)
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    try:
        writer.write(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 200"):
            await reader.readuntil(b"\n\n")
        begun.set()
        rest = await reader.read()
    except (OSError, EOFError):
        return False
    finally:
        begun.set()
        writer.close()
    return b"data: [DONE]" in rest and b'"error"' not in rest


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

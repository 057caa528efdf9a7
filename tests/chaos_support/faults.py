"""Faults of one worker, its engine or its link, each of which heals by itself; how long they last is drawn."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable

from chaos_support.engine_proxy import Lie
from chaos_support.fault_proxy import Mode, Weather
from chaos_support.fleet import Fleet

Fault = Callable[[Fleet, int, random.Random], Awaitable[str]]
"""Breaks something of the worker of that index, mends it, and tells what it was."""


async def kill_worker(fleet: Fleet, index: int, rng: random.Random) -> str:
    fleet.kill_worker(index)
    await asyncio.sleep(rng.uniform(0, 1))
    await asyncio.to_thread(fleet.restart_worker, index)
    return "SIGKILL"


async def stop_worker(fleet: Fleet, index: int, rng: random.Random) -> str:
    fleet.workers[index].send(signal.SIGSTOP)
    await asyncio.sleep(rng.uniform(0.1, 6))
    fleet.workers[index].send(signal.SIGCONT)
    return "SIGSTOP"


async def kill_engine(fleet: Fleet, index: int, rng: random.Random) -> str:
    fleet.engines[index].kill()
    await asyncio.sleep(rng.uniform(0, 1))
    await asyncio.to_thread(fleet.restart_engine, index)
    return "engine SIGKILL"


async def stop_engine(fleet: Fleet, index: int, rng: random.Random) -> str:
    fleet.engines[index].send(signal.SIGSTOP)
    await asyncio.sleep(rng.uniform(0.1, 6))
    fleet.engines[index].send(signal.SIGCONT)
    return "engine SIGSTOP"


async def cut_link(fleet: Fleet, index: int, rng: random.Random) -> str:
    mode = rng.choice([Mode.REFUSE, Mode.BLACK_HOLE, Mode.HALF_OPEN, Mode.DEAF])
    fleet.links[index].set(mode)
    await asyncio.sleep(rng.uniform(0.1, 5))
    fleet.links[index].set(Mode.PASS)
    return f"link {mode.value}"


async def reset_link(fleet: Fleet, index: int, rng: random.Random) -> str:
    for _ in range(rng.randint(1, 3)):
        fleet.links[index].reset()
        await asyncio.sleep(rng.uniform(0, 0.5))
    return "link reset"


async def worsen_link(fleet: Fleet, index: int, rng: random.Random) -> str:
    fleet.links[index].set_weather(Weather(latency_s=rng.uniform(0, 0.2), loss=rng.uniform(0, 0.02)))
    await asyncio.sleep(rng.uniform(0.5, 3))
    fleet.links[index].set_weather(Weather())
    return "link worse"


async def lie(fleet: Fleet, index: int, rng: random.Random) -> str:
    told = rng.choice([lie for lie in Lie if lie is not Lie.NONE])
    fleet.engine_proxies[index].set(told, share=rng.choice([0.3, 1.0]))
    await asyncio.sleep(rng.uniform(0.5, 3))
    fleet.engine_proxies[index].set(Lie.NONE)
    return f"engine {told.value}"


FAULTS: tuple[Fault, ...] = (
    kill_worker,
    stop_worker,
    kill_engine,
    stop_engine,
    cut_link,
    reset_link,
    worsen_link,
    lie,
)

SOON = {"NEUROGATE_STALL_PREFILL_S": "6", "NEUROGATE_STALL_DECODE_S": "4"}
"""Workers that take an engine's silence for a stall sooner than by default, so that many faults take not too long."""

EXPLAINED = ("engine wedged",)
"""What processes may log as errors because of them."""

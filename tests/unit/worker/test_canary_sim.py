"""Canaries and stalls on the simulated engine, whose slots, prompts and hangs take their time. On virtual time."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from neurogate.channel import End, EndCode
from neurogate.engines.settings import SimSettings
from neurogate.engines.sim.engine import SimEngine
from neurogate.virtual_time import run
from watched_support import Watched, watching
from worker_support import NOW, FakeOutlet, incoming


def sim(**settings: Any) -> SimEngine:
    return SimEngine(SimSettings(**settings), rng=random.Random(1), now=lambda: NOW)


async def told(watched: Watched, words: int, *, max_tokens: int = 20) -> tuple[End, float]:
    """The end of a stream, and the seconds it took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    body = {"messages": [{"role": "user", "content": "fox " * words}], "stream": True, "max_tokens": max_tokens}
    end = await watched.worker.answer(incoming(body, timeout_s=None), FakeOutlet())
    return end, loop.time() - began


@pytest.mark.parametrize("slots", [1, 4])
def test_minutes_of_prompt_are_no_wedge(slots: int) -> None:
    """The engine's counter grows all the while; a canary that waits behind the prompt is excused by it."""

    async def main() -> None:
        engine = sim(slots=slots, prefill_tps=4)
        await engine.start()
        async with watching(engine) as watched:
            end, took_s = await told(watched, 800)
            assert (end.code, end.http_status) == (EndCode.ANSWERED, 200)
            assert took_s > 180
            assert watched.canaries("hung") == 0
            assert watched.worker.ready

    run(main())


@pytest.mark.parametrize("slots", [2, 50])
def test_an_engine_that_hangs_at_once_is_out_though_new_requests_keep_coming(slots: int) -> None:
    async def main() -> None:
        engine = sim(slots=slots, faults="hang_after=0")
        await engine.start()
        async with watching(engine) as watched:
            async with asyncio.TaskGroup() as tasks:
                asked = []
                while watched.worker.ready:
                    asked.append(tasks.create_task(told(watched, 3)))
                    await asyncio.sleep(0.5)
                assert watched.loop.time() < 15
            assert len(asked) > 10
            assert {task.result()[0].code for task in asked} == {EndCode.UNAVAILABLE}
            assert (await engine.observe()).slots_busy == 0
            await asyncio.sleep(120)
            assert not watched.worker.ready

    run(main())


def test_streams_that_hang_in_an_engine_that_generates_are_cut_one_by_one() -> None:
    async def main() -> None:
        engine = sim(slots=4, faults="hang_after=5")
        await engine.start()
        async with watching(engine) as watched:
            end, took_s = await told(watched, 3)
            assert (end.code, end.message) == (EndCode.BROKEN, "the engine stalled in decode: nothing for 15 s")
            assert took_s < 20
            assert watched.worker.ready
            assert (await engine.observe()).slots_busy == 0

    run(main())


def test_an_engine_full_of_hung_streams_is_wedged() -> None:
    """Nobody can be asked, and nobody moves: that takes seconds, not minutes."""

    async def main() -> None:
        engine = sim(slots=2, faults="hang_after=5")
        await engine.start()
        async with watching(engine) as watched:
            await asyncio.sleep(2)
            async with asyncio.TaskGroup() as tasks:
                asked = [tasks.create_task(told(watched, 3)) for _ in range(5)]
            assert {task.result()[0].code for task in asked} == {EndCode.UNAVAILABLE}
            assert max(task.result()[1] for task in asked) < 10
            await watched.until(lambda: watched.worker.ready, within_s=5)

    run(main())


def test_a_busy_engine_is_not_disturbed() -> None:
    """Every token of a user's is a sign of life."""

    async def main() -> None:
        engine = sim(slots=2, decode_tps=5)
        await engine.start()
        async with watching(engine) as watched:
            await asyncio.sleep(2)
            before = watched.canaries("alive")
            async with asyncio.TaskGroup() as tasks:
                asked = [tasks.create_task(told(watched, 3, max_tokens=200)) for _ in range(10)]
            assert {task.result()[0].http_status for task in asked} == {200}
            assert watched.canaries("alive") == before
            assert watched.value("stalls_total", phase="queue") == 0

    run(main())

"""A loop that jumps to its next timer."""

from __future__ import annotations

import asyncio
import time

import pytest

from neurogate import virtual_time
from neurogate.virtual_time import VirtualTimeLoop


def test_hours_pass_in_no_time():
    async def main() -> float:
        await asyncio.sleep(3 * 3600)
        return asyncio.get_running_loop().time()

    before = time.perf_counter()
    assert virtual_time.run(main()) == 3 * 3600
    assert time.perf_counter() - before < 10


def test_time_starts_at_zero_and_stands_still_while_anyone_runs():
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        times = [loop.time()]
        for _ in range(100):
            await asyncio.sleep(0)
            times.append(loop.time())
        return times

    assert set(virtual_time.run(main())) == {0.0}


def test_timers_fire_in_order_each_at_its_moment():
    async def main() -> list[tuple[str, float]]:
        loop = asyncio.get_running_loop()
        fired: list[tuple[str, float]] = []
        for name, at in (("c", 2.5), ("a", 0.25), ("b", 1.0)):
            loop.call_at(at, lambda name=name: fired.append((name, loop.time())))
        await asyncio.sleep(3)
        return fired

    assert virtual_time.run(main()) == [("a", 0.25), ("b", 1.0), ("c", 2.5)]


def test_tasks_interleave_by_their_sleeps():
    async def main() -> list[str]:
        said: list[str] = []

        async def speak(name: str, every_s: float) -> None:
            for _ in range(3):
                await asyncio.sleep(every_s)
                said.append(name)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(speak("slow", 2.0))
            tasks.create_task(speak("fast", 0.9))
        return said

    assert virtual_time.run(main()) == ["fast", "fast", "slow", "fast", "slow", "slow"]


def test_timeouts_are_virtual():
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert virtual_time.run(main()) == 60.0


def test_what_is_ready_runs_before_time_passes():
    async def main() -> float:
        loop = asyncio.get_running_loop()
        woken_at = loop.create_future()
        loop.call_soon_threadsafe(lambda: woken_at.set_result(loop.time()))
        loop.call_later(5, lambda: None)
        return await woken_at

    assert virtual_time.run(main()) == 0.0


def test_waiting_for_what_no_timer_brings_is_a_deadlock_and_is_said():
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="deadlock: every task waits and no timer is set"):
        virtual_time.run(main())


def test_an_error_comes_out_as_it_was_raised():
    async def main() -> None:
        raise LookupError("as raised")

    with pytest.raises(LookupError, match="as raised"):
        virtual_time.run(main())


def test_a_test_can_move_the_clock():
    loop = VirtualTimeLoop()
    try:
        loop.advance(1.5)
        loop.advance(0.5)

        assert loop.time() == 2.0
    finally:
        loop.close()


def test_each_run_begins_anew():
    async def main() -> float:
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(7)
        return now

    assert [virtual_time.run(main()) for _ in range(2)] == [0.0, 0.0]

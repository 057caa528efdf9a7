"""A request's time, against asyncio's own timeout. On virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest

from neurogate.virtual_time import run
from neurogate.worker.bound import Bound


def bound(seconds: float | None) -> Bound:
    return Bound(asyncio.get_running_loop(), seconds)


def test_it_ends_what_takes_too_long() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError), bound(2.0) as time:
            await asyncio.sleep(10)
        assert loop.time() == 2.0
        assert time.expired()
        await asyncio.sleep(10)  # and nothing after it
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()

    run(main())


@pytest.mark.parametrize("seconds", [2.0, None])
def test_what_ends_in_time_ends_as_it_does(seconds: float | None) -> None:
    async def main() -> None:
        with bound(seconds) as time:
            await asyncio.sleep(1)
        with pytest.raises(ZeroDivisionError), bound(seconds):
            raise ZeroDivisionError
        await asyncio.sleep(10)
        assert not time.expired()

    run(main())


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_no_time_at_all_ends_at_the_first_wait(seconds: float) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError), bound(seconds):
            await asyncio.sleep(1)

    run(main())


def test_somebody_elses_cancellation_stays_one() -> None:
    async def wait(time: Bound) -> None:
        with time:
            await asyncio.sleep(10)

    async def main() -> None:
        for after_s in (1.0, 2.0):  # before its time has passed, and at that very moment
            time = bound(2.0)
            task = asyncio.create_task(wait(time))
            await asyncio.sleep(after_s)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main())


def test_an_inner_one_is_not_taken_for_the_outer_one() -> None:
    async def main() -> None:
        outer, inner = bound(1.0), bound(5.0)
        with pytest.raises(TimeoutError), outer, inner:
            await asyncio.sleep(10)
        assert (outer.expired(), inner.expired()) == (True, False)
        with bound(9.0) as around:
            with suppress(TimeoutError), bound(1.0):
                await asyncio.sleep(10)
            await asyncio.sleep(1)
        assert not around.expired()

    run(main())


@pytest.mark.parametrize("make", [bound, asyncio.timeout], ids=["bound", "asyncio"])
def test_it_can_be_ended_from_outside_as_long_as_it_runs(make: Callable[[float | None], Bound]) -> None:
    """As asyncio's, whose place it takes."""

    async def wait(time: Bound) -> None:
        if isinstance(time, Bound):
            with time:
                await asyncio.sleep(10)
        else:
            async with time:
                await asyncio.sleep(10)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for seconds in (None, 5.0):
            time = make(seconds)
            with pytest.raises(RuntimeError):
                time.reschedule(0.0)
            began = loop.time()
            task = asyncio.create_task(wait(time))
            await asyncio.sleep(1)
            time.reschedule(loop.time())
            assert not time.expired()
            with pytest.raises(TimeoutError):
                await task
            assert time.expired()
            assert loop.time() == began + 1
            with pytest.raises(RuntimeError):
                time.reschedule(0.0)

    run(main())


def test_it_belongs_into_a_task() -> None:
    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(RuntimeError, match="only a task"), Bound(loop, 1.0):
            pass
    finally:
        loop.close()

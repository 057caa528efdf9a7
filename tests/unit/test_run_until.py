"""Work that a process does until it is told to stop."""

from __future__ import annotations

import asyncio

import pytest

from neurogate.process import run_until
from neurogate.virtual_time import run


async def answer() -> int:
    await asyncio.sleep(1)
    return 42


async def fail() -> None:
    raise ValueError("a bug")


def test_work_that_ends_by_itself_leaves_its_result() -> None:
    async def main() -> None:
        assert (await run_until(asyncio.Event(), answer(), name="work")).result() == 42
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_work_is_cancelled_when_it_is_time_to_stop() -> None:
    """Also when that was so before it began."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for stop_at in (0.0, 0.5):
            stopping = asyncio.Event()
            loop.call_later(stop_at, stopping.set)
            began = loop.time()
            assert (await run_until(stopping, answer(), name="work")).cancelled()
            assert loop.time() - began == pytest.approx(stop_at)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_work_that_fails_says_so() -> None:
    async def main() -> None:
        with pytest.raises(ExceptionGroup) as group:
            await run_until(asyncio.Event(), fail(), name="work")
        assert group.group_contains(ValueError, match="a bug")
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())

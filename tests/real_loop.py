"""Running tests on the loop that production runs on, with real sockets, and looking that nothing is left behind.

One loop serves all of them, as one loop serves a process: grpc.aio has one poller, which cannot tell the loops of
successive tests apart and hands one test's late events to the next.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")

TIMEOUT_S = 30


def run_real(main: Coroutine[Any, Any, T], *, timeout_s: float = TIMEOUT_S) -> T:
    """Run `main` on uvloop, and check that no task outlives it and that nothing failed unheard."""
    return _runner().run(_checked(main, timeout_s))


def leftover_tasks() -> list[asyncio.Task[Any]]:
    """Every task but the one that asks."""
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def eventually(condition: Callable[[], bool]) -> None:
    """Let everybody else run until the condition holds, for what has no event to wait for. Bounded by `run_real`."""
    while not condition():
        await asyncio.sleep(0)


@functools.cache
def _runner() -> asyncio.Runner:
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    atexit.register(runner.close)
    return runner


async def _checked(main: Coroutine[Any, Any, T], timeout_s: float) -> T:
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    try:
        async with asyncio.timeout(timeout_s):
            result = await main
            await eventually(lambda: not leftover_tasks())
    finally:
        for task in (left := leftover_tasks()):
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=TIMEOUT_S)
    assert not unheard, unheard
    return result

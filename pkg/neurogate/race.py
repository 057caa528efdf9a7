"""Several ways to the same thing, of which any will do: a dead one costs a moment, not its time to run out."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")

STAGGER_S = 0.25
"""How long a way goes alone, as RFC 8305 has it for the addresses of a name."""


async def first_of(
    ways: Iterable[Callable[[], Coroutine[Any, Any, T]]], *, discard: Callable[[T], None], stagger_s: float = STAGGER_S
) -> T:
    """What the first one that succeeds brings.

    The next one begins when one fails or has had `stagger_s`, and none is given up for that. Those that are under way
    at the end are cancelled; what one of them brings all the same is given to `discard`. When none is left it raises
    the OSError of the last that failed; any other exception it raises at once. There must be a way.
    """
    running: set[asyncio.Task[T]] = set()
    try:
        return (await _decided(deque(ways), running, stagger_s)).result()  # kept nowhere: errors would hold themselves
    finally:
        await _give_up(running, discard)


async def _decided(
    left: deque[Callable[[], Coroutine[Any, Any, T]]], running: set[asyncio.Task[T]], stagger_s: float
) -> asyncio.Task[T]:
    loop = asyncio.get_running_loop()
    while True:
        if left:
            running.add(loop.create_task(left.popleft()()))
        done, _ = await asyncio.wait(running, timeout=stagger_s if left else None, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            running.discard(task)
            failed = not task.cancelled() and isinstance(task.exception(), OSError)
            if not failed or not (left or running):
                return task


async def _give_up(running: set[asyncio.Task[T]], discard: Callable[[T], None]) -> None:
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
    for task in running:
        if not task.cancelled() and task.exception() is None:
            discard(task.result())

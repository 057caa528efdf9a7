"""One connection to whichever of several addresses answers first.

As RFC 8305 has it: the next address is tried when the one before has failed or has kept silent for a moment. uvloop has
no such thing, and asyncio's would not say which addresses are dead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence

from neurogate.engines.connection import Connection, afresh

STAGGER_S = 0.25


async def dial(
    addresses: Sequence[str],
    connect: Callable[[str], Coroutine[None, None, Connection]],
    on_dead: Callable[[str], None],
) -> Connection:
    """The first connection that comes up. `on_dead` hears of each address that failed or was overtaken.

    Raises the OSError of the last address when none answers.
    """
    if len(addresses) == 1:
        try:
            return await connect(addresses[0])
        except OSError:
            on_dead(addresses[0])
            raise
    loop = asyncio.get_running_loop()
    left = list(reversed(addresses))
    running: dict[asyncio.Task[Connection], str] = {}
    failed = OSError("its name has no address")
    try:
        while left or running:
            if left:
                address = left.pop()
                running[loop.create_task(connect(address))] = address
            done, _ = await asyncio.wait(
                running, timeout=STAGGER_S if left else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in tuple(running):  # in the order of the addresses
                if task not in done:
                    continue
                error = task.exception()
                if error is None:
                    for other in tuple(running)[: tuple(running).index(task)]:
                        on_dead(running[other])
                    del running[task]
                    return task.result()
                on_dead(running.pop(task))
                if not isinstance(error, OSError):
                    raise error
                failed = error
        raise afresh(failed)
    finally:
        for task in running:
            task.cancel()
            task.add_done_callback(_drop)


def _drop(task: asyncio.Task[Connection]) -> None:
    """Nobody waits for this one any more."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()

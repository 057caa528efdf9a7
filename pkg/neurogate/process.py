"""Running a service as a process: its loop, its signals, its exit codes."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import structlog
import uvloop

from neurogate.errors import EXIT_CONFIG, ConfigError

EXIT_FAILURE = 1

_FORCED_S = 5.0
"""How long a process that ends at once may take for it."""

_GC_THRESHOLDS = (10_000, 20, 20)
"""Young collections fourteen times rarer than Python's default: the hot path makes no cycles (ADR 0001)."""

ResultT = TypeVar("ResultT")

_log = structlog.get_logger("neurogate.process")


class Stopping(asyncio.Event):
    """Set when a service is to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.signal: signal.Signals | None = None
        """The first one that came; None when the service itself decided."""


def was_terminated(stopping: asyncio.Event) -> bool:
    """Whether SIGTERM set it: whoever stops a service so may have told others, who need a moment to hear of it."""
    return isinstance(stopping, Stopping) and stopping.signal is signal.SIGTERM


def run(service: Callable[[asyncio.Event], Awaitable[None]]) -> int:
    """Run `service(stopping)` to its end on uvloop; SIGTERM and SIGINT set `stopping`, a `Stopping`.

    A second one cancels the service, and ends the process when that takes long.

    Returns the exit code: 0, 78 for a ConfigError, 1 for a port that is taken or a second signal; errors are told in
    one line each.
    """
    code = 0
    try:
        uvloop.run(_serve(service))
    except* ConfigError as group:
        _tell(group)
        code = EXIT_CONFIG
    except* OSError as group:
        _tell(group)
        code = code or EXIT_FAILURE
    except* asyncio.CancelledError:
        code = code or EXIT_FAILURE
    return code


@contextmanager
def on_hangup(callback: Callable[[], None]) -> Iterator[None]:
    """SIGHUP calls back on the running loop, and does not end the process; afterwards it is ignored."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, callback)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


async def run_until(stopping: asyncio.Event, work: Coroutine[Any, Any, ResultT], *, name: str) -> asyncio.Task[ResultT]:
    """Run `work` to its end, or cancel it once `stopping` is set. Returns its task, which is done."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(work, name=name)
        ending = tasks.create_task(_cancel_when(stopping, task), name=f"stop {name}")
        await asyncio.wait([task])
        ending.cancel()
    return task


async def _cancel_when(stopping: asyncio.Event, task: asyncio.Task[Any]) -> None:
    await stopping.wait()
    task.cancel()


async def _serve(service: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stopping = Stopping()
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()

    def stop(signum: int) -> None:
        if stopping.signal is not None and task is not None:
            _log.warning("second signal: stopping at once", signal=signal.Signals(signum).name)
            task.cancel()
            loop.call_later(_FORCED_S, os._exit, EXIT_FAILURE)
        stopping.signal = stopping.signal or signal.Signals(signum)
        stopping.set()

    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop, signum)
    gc.collect()
    gc.freeze()  # what start-up made lives as long as the process: never look at it again
    gc.set_threshold(*_GC_THRESHOLDS)
    await service(stopping)


def _tell(group: BaseExceptionGroup[BaseException]) -> None:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            _tell(error)
        else:
            print(f"neurogate: {error}", file=sys.stderr)  # noqa: T201 - the last words of a process

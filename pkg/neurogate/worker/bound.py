"""The time of one request: `asyncio.timeout` for the hot path, which knows its loop and looks nothing up.

That one asks for the running loop again and again, and each time CPython asks the system for the process's id: it was a
tenth of the instructions of an unstreamed request.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class Bound:
    """Ends its block with TimeoutError when so many `seconds` have passed; None is for ever. Used once, in a task."""

    __slots__ = ("_cancelling", "_expired", "_loop", "_seconds", "_task", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float | None) -> None:
        self._loop = loop
        self._seconds = seconds
        self._task: asyncio.Task[object] | None = None
        """The one inside the block."""
        self._timer: asyncio.Handle | None = None
        self._cancelling = 0
        self._expired = False

    def __enter__(self) -> Self:
        task = self._task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("only a task has its time bounded")
        self._cancelling = task.cancelling()
        if self._seconds is not None:
            self._timer = self._loop.call_later(self._seconds, self._expire)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        task, self._task = self._task, None
        if self._timer is not None:
            self._timer.cancel()
        if not self._expired or task is None:
            return
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expired(self) -> bool:
        """Whether its time has passed while it was inside."""
        return self._expired

    def reschedule(self, when: float) -> None:
        """End the block at this time of the loop instead. Raises RuntimeError where nothing can be ended."""
        if self._task is None or self._expired:
            raise RuntimeError("its block is not running")
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(max(0.0, when - self._loop.time()), self._expire)

    def _expire(self) -> None:
        self._expired = True
        if self._task is not None:
            self._task.cancel()

"""When requests run out of time: one timer for all of them, so that a request sets and cancels none of its own."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Set as AbstractSet
from operator import attrgetter
from typing import Protocol

_LOOK_S = 1.0
"""The longest between two looks while there is any request: the timer ends soon after the last one."""

_AGAIN_S = 0.01
"""The shortest between a look and the next one that it sets: deadlines nearer to each other are met together."""

_TIMER_SLACK_S = 0.001
"""Loops round timers to a millisecond: one may fire that much before the moment it was set for."""


class Timed(Protocol):
    """What an exchange shows."""

    @property
    def deadline(self) -> float:
        """Loop time."""
        ...

    @property
    def finished(self) -> bool:
        """It is over."""
        ...

    def expire(self) -> None:
        """Its time is over."""
        ...


class Deadlines:
    """Of the requests in a set, which its owner keeps."""

    def __init__(self, requests: AbstractSet[Timed], loop: asyncio.AbstractEventLoop) -> None:
        self._requests = requests
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._look_at = math.inf

    def watch(self, deadline: float) -> None:
        """A request came into the set."""
        if deadline < self._look_at:
            self._set(min(deadline, self._loop.time() + _LOOK_S))

    def _set(self, look_at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._look_at = look_at
        self._timer = self._loop.call_at(look_at, self._look)

    def _look(self) -> None:
        self._timer, self._look_at = None, math.inf
        now = self._loop.time()
        due: list[Timed] = []
        earliest = math.inf
        for request in self._requests:
            deadline = request.deadline
            if deadline <= now + _TIMER_SLACK_S:
                due.append(request)
            elif deadline < earliest:
                earliest = deadline
        for request in sorted(due, key=_deadline):
            if not request.finished:
                self._expire(request)
        if self._requests:
            self._set(min(self._look_at, max(now + _AGAIN_S, min(earliest, now + _LOOK_S))))

    def _expire(self, request: Timed) -> None:
        try:
            request.expire()
        except Exception as error:  # noqa: BLE001 - a bug costs this request, not everybody's deadline
            self._loop.call_exception_handler({"message": "a request's deadline raised", "exception": error})


_deadline = attrgetter("deadline")

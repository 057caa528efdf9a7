"""Noticing that a worker says nothing any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_PAUSE_S = 0.5
"""A timer that is this late means that this process did not run."""


class Silence:
    """Calls `on_silence` when nothing was heard for `limit_s`, once."""

    def __init__(self, limit_s: float, on_silence: Callable[[], None], *, loop: asyncio.AbstractEventLoop) -> None:
        self._limit_s = limit_s
        self._on_silence = on_silence
        self._loop = loop
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.heard_at = loop.time()
        """Written by whoever hears something."""
        self._wait()

    def stop(self) -> None:
        """Listen no longer."""
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        self._due = self.heard_at + self._limit_s
        self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        if now > self._due + _PAUSE_S:
            self.heard_at = now  # it was us who slept: what the worker sent waits in the socket
        if self.heard_at + self._limit_s > now:
            self._wait()
        else:
            self._on_silence()

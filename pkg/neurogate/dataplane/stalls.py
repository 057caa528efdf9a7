"""Streams that have begun and say nothing more: found by looking at all of them from time to time.

Workers watch their own engines, phase by phase, and tell (ADR 0020); this is the last line of defence, for a worker
that lives and reports and has forgotten a request. One timer for all streams, so that a token costs nothing here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Set as AbstractSet
from typing import Protocol

_LOOKS = 4
"""Looks within the time that a stream may be silent."""

_LOOK_S_MAX = 15.0
"""The longest between two looks: until the next one, streams that have ended are remembered."""


class Watched(Protocol):
    """What an exchange shows."""

    @property
    def flowing(self) -> bool:
        """Pieces have come from the worker that has it."""
        ...

    @property
    def chunks(self) -> int:
        """Pieces that came of it."""
        ...

    def stalled(self, silent_s: float) -> None:
        """It has been silent for so long."""
        ...


class StallWatch:
    """Looks at streams while there are any."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._stall_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._seen: dict[Watched, tuple[int, float]] = {}
        """Pieces that had come when it was looked at, and the loop time of the last change."""

    def configure(self, stall_s: float) -> None:
        """Streams may be silent for so long; 0 is for ever."""
        self._stall_s = stall_s
        if not stall_s and self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._seen = {}

    def watch(self, streams: AbstractSet[Watched]) -> None:
        """Look at these, as they will be, until there are none."""
        if self._timer is None and self._stall_s:
            self._timer = self._loop.call_later(min(self._stall_s / _LOOKS, _LOOK_S_MAX), self._look, streams)

    def _look(self, streams: AbstractSet[Watched]) -> None:
        self._timer = None
        now, before = self._loop.time(), self._seen
        self._seen = {}
        silent = []
        for stream in streams:
            if not stream.flowing:
                continue
            chunks, since = before.get(stream, (-1, now))
            if chunks != stream.chunks:
                since = now
            elif now - since >= self._stall_s:
                silent.append((stream, now - since))
                continue
            self._seen[stream] = stream.chunks, since
        for stream, silent_s in silent:
            stream.stalled(silent_s)
        if streams:
            self.watch(streams)

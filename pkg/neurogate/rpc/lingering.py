"""When a link writes: what is urgent at the end of the loop's turn, all else a moment after it last wrote."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Lingering:
    """Calls `write` for whoever had something to say, all of them together. `write` must not raise.

    An idle link writes at the end of the turn. A busy one gathers for `linger_s` after it last wrote, unless somebody
    waits for what there is to say: a request on its way, or the first of an answer.
    """

    def __init__(self, write: Callable[[], None], linger_s: float, *, loop: asyncio.AbstractEventLoop) -> None:
        self._write = write
        self._linger_s = linger_s
        self._loop = loop
        self._written_at = loop.time() - linger_s
        self.due: asyncio.Handle | None = None
        """What will write; None when nothing is said that is not written."""
        self._waits = False
        """For its time, not only for the end of the turn."""

    def say(self, *, urgent: bool = False) -> None:
        """Somebody has something to say."""
        if self.due is not None:
            if not (urgent and self._waits):
                return
            self.due.cancel()
        at = self._written_at + self._linger_s
        self._waits = not urgent and at > self._loop.time()
        self.due = self._loop.call_at(at, self.now) if self._waits else self._loop.call_soon(self.now)

    def now(self) -> None:
        """Write what there is without waiting any longer."""
        self.stop()
        self._written_at = self._loop.time()
        self._write()

    def end(self) -> None:
        """Write no more, and let go of who writes."""
        self.stop()
        self._write = _nothing

    def stop(self) -> None:
        """Forget what was said."""
        if self.due is not None:
            self.due.cancel()
            self.due = None


def _nothing() -> None: ...

"""When a link writes: an idle one at the end of the loop's turn, a busy one a moment after it last wrote."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Lingering:
    """Calls `write` for whoever had something to say, all of them together. `write` must not raise."""

    def __init__(self, write: Callable[[], None], linger_s: float, *, loop: asyncio.AbstractEventLoop) -> None:
        self._write = write
        self._linger_s = linger_s
        self._loop = loop
        self._written_at = loop.time() - linger_s
        self._due: asyncio.Handle | None = None

    def say(self) -> None:
        """Somebody has something to say."""
        if self._due is None:
            at = self._written_at + self._linger_s
            if at > self._loop.time():
                self._due = self._loop.call_at(at, self.now)
            else:
                self._due = self._loop.call_soon(self.now)

    def now(self) -> None:
        """Write what there is without waiting any longer."""
        self.stop()
        self._written_at = self._loop.time()
        self._write()

    def stop(self) -> None:
        """Forget what was said."""
        if self._due is not None:
            self._due.cancel()
            self._due = None

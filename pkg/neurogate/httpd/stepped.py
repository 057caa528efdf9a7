"""Running a coroutine without a task: its first step here and now, the others from what it waits for.

A task costs more than many a request's steps together. What runs so is no task: it must not ask which one it is, as
`asyncio.timeout` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Stepped:
    """One coroutine, which must raise nothing. `on_end` is called with this when it is over."""

    __slots__ = ("_cancelled", "_coroutine", "_loop", "_on_end", "_over", "_waits_for")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, None],
        on_end: Callable[[Stepped], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._coroutine = coroutine
        self._on_end = on_end
        self._loop = loop
        self._waits_for: asyncio.Future[Any] | None = None
        self._cancelled = False
        """While its next step was on its way already."""
        self._over = False

    def step(self, _: object = None) -> bool:
        """Go on until it waits again; True when it is over."""
        if self._over:
            return True
        if self._cancelled:
            self._cancelled = False
            return self._go_on(self._coroutine.throw, asyncio.CancelledError())
        return self._go_on(self._coroutine.send, None)

    def cancel(self) -> None:
        """Raise CancelledError where it waits."""
        if self._over:
            return
        if self._waits_for is not None and self._waits_for.remove_done_callback(self.step):
            self._go_on(self._coroutine.throw, asyncio.CancelledError())
        else:
            self._cancelled = True

    def _go_on(self, resume: Callable[[Any], Any], value: BaseException | None) -> bool:
        try:
            waits_for = resume(value)
        except (StopIteration, asyncio.CancelledError):
            return self._end()
        except Exception as error:  # noqa: BLE001 - a bug: the loop's handler hears of it, and nobody waits for its end
            self._loop.call_exception_handler({"message": "a request raised", "exception": error})
            return self._end()
        self._waits_for = waits_for
        if waits_for is None:  # a bare yield: asyncio.sleep(0)
            self._loop.call_soon(self.step)
        else:
            waits_for._asyncio_future_blocking = False  # noqa: SLF001 - what a task does to say that it waits
            waits_for.add_done_callback(self.step)
        return False

    def _end(self) -> bool:
        self._waits_for = None
        self._over = True
        self._on_end(self)
        return True

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

    __slots__ = ("_coroutine", "_loop", "_on_end", "_waits_for")

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

    def step(self, _: object = None) -> bool:
        """Go on until it waits again; True when it is over."""
        return self._go_on(self._coroutine.send, None)

    def cancel(self) -> None:
        """Raise CancelledError where it waits."""
        if self._waits_for is not None:
            self._waits_for.remove_done_callback(self.step)
            self._go_on(self._coroutine.throw, asyncio.CancelledError())

    def _go_on(self, resume: Callable[[Any], Any], value: BaseException | None) -> bool:
        try:
            waits_for = resume(value)
        except StopIteration:
            self._waits_for = None
            self._on_end(self)
            return True
        self._waits_for = waits_for
        if waits_for is None:  # a bare yield: asyncio.sleep(0)
            self._loop.call_soon(self.step)
        else:
            waits_for._asyncio_future_blocking = False  # noqa: SLF001 - what a task does to say that it waits
            waits_for.add_done_callback(self.step)
        return False

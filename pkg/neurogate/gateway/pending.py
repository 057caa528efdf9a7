"""Coroutines whose first step is taken without a task.

The hot path writes a token by running the server's `send` coroutine right where the token arrived: nearly always it
ends in its first step, and no task need be woken (ADR 0001). When it does wait, because the client reads too
slowly, `Pending` carries it on from the callbacks of whatever future it waits for, and `Resumed` lets a task await it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any


class Pending:
    """The rest of a coroutine whose first step ended in `waits_for`.

    `on_result(value)` is called when it returns, `on_error(error)` when it raises an Exception or what it waits for is
    cancelled. `close` ends it early and calls neither.
    """

    __slots__ = ("_closed", "_coroutine", "_on_error", "_on_result")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Any],
        waits_for: asyncio.Future[Any] | None,
        *,
        on_result: Callable[[Any], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._coroutine = coroutine
        self._on_result = on_result
        self._on_error = on_error
        self._closed = False
        self._wait_for(waits_for)

    def close(self) -> None:
        """End the coroutine where it waits. Idempotent."""
        self._closed = True
        self._coroutine.close()

    def _wait_for(self, future: asyncio.Future[Any] | None) -> None:
        if future is None:  # a bare yield: asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(self._step, None)
            return
        future._asyncio_future_blocking = False  # noqa: SLF001 - what a task does to acknowledge that it waits
        future.add_done_callback(self._step)

    def _step(self, _: object) -> None:
        if self._closed:  # while this call was already scheduled
            return
        try:
            future = self._coroutine.send(None)
        except StopIteration as end:
            self._on_result(end.value)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - handed to the owner, as a task would
            self._on_error(error)
        else:
            self._wait_for(future)


class Resumed:
    """Awaits the rest of a coroutine whose first step ended in `waits_for`."""

    __slots__ = ("_coroutine", "_waits_for")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], waits_for: asyncio.Future[Any] | None) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, Any]:
        """Yield what the coroutine yields, and pass on what the task throws, such as its cancellation."""
        waits_for = self._waits_for
        while True:
            try:
                try:
                    yield waits_for
                except BaseException as error:  # noqa: BLE001 - the coroutine decides what it means
                    waits_for = self._coroutine.throw(error)
                else:
                    waits_for = self._coroutine.send(None)
            except StopIteration as end:
                return end.value

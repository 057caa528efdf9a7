"""A request's wait for a worker: until there may be one, or its time is over.

Snapshots call back on the loop's next turn, and timers when they please; whichever comes first, the others must find
that the wait is over. So it is one object with one state, and what comes late comes to nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from neurogate.dataplane.pool import EndpointPool


class Wait:
    """At most one wait at a time, any number of them one after the other."""

    __slots__ = ("_again_timer", "_look", "_loop", "_on", "_over", "_over_timer", "_pool")

    def __init__(
        self,
        pool: EndpointPool,
        loop: asyncio.AbstractEventLoop,
        *,
        look: Callable[[], None],
        over: Callable[[], None],
    ) -> None:
        """`look` is called when there may be a worker, `over` when there was none in time. The wait has ended then."""
        self._pool = pool
        self._loop = loop
        self._look = look
        self._over = over
        self._on = False
        self._over_timer: asyncio.TimerHandle | None = None
        self._again_timer: asyncio.TimerHandle | None = None

    def go_on(self, time_s: float, *, again_s: float | None = None) -> None:
        """Wait for the next snapshot, or look again after `again_s`.

        `time_s` counts from the first of several calls between which there was no `stop`.
        """
        self._on = True
        if self._over_timer is None:
            self._over_timer = self._loop.call_later(time_s, self._expired)
        if again_s is not None:
            self._again_timer = self._loop.call_later(again_s, self._woken)
        self._pool.wait(self._woken)

    def stop(self) -> None:
        """There is a worker, or nobody wants one any more."""
        self._pause()
        if self._over_timer is not None:
            self._over_timer.cancel()
            self._over_timer = None

    def _pause(self) -> None:
        self._on = False
        self._pool.unwait(self._woken)
        if self._again_timer is not None:
            self._again_timer.cancel()
            self._again_timer = None

    def _woken(self) -> None:
        if self._on:
            self._pause()
            self._look()

    def _expired(self) -> None:
        self.stop()
        self._over()

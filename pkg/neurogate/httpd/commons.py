"""What all connections of one listener share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from starlette.types import ASGIApp, Scope
from uvicorn.server import ServerState

from neurogate.httpd.at_once import never
from neurogate.httpd.limits import HttpLimits


class Swept(Protocol):
    """A connection, as far as its listener is concerned."""

    def sweep(self) -> None:
        """Look whether the client took too long."""
        ...

    def leave(self, quiet_before: float) -> None:
        """The listener stops: close when nothing came since `quiet_before`, or with the answer that is due."""
        ...

    def abort(self) -> None:
        """Cut it now."""
        ...


class Commons:
    """App, limits, clock, and the set of the connections themselves."""

    def __init__(
        self,
        app: ASGIApp,
        state: ServerState,
        *,
        limits: HttpLimits,
        security: bytes,
        secure: bool,
        on_refused: Callable[[int], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.serve(app)
        self.state = state
        """uvicorn's: its connections and its tasks."""
        self.limits = limits
        self.lines = self._security = security
        """Lines of every answer's head."""
        self.closes = False
        """Every answer says that its connection will be closed."""
        self.secure = secure
        """Whether the connections speak TLS."""
        self.on_refused = on_refused
        """Hears the status of every answer that the listener gave itself."""
        self.loop = loop
        self.now = loop.time()
        """The time of the last sweep: reading it costs nothing."""
        self._timer: asyncio.TimerHandle | None = None

    def serve(self, app: ASGIApp) -> None:
        """Run requests with this app from now on."""
        self.app = app
        self.at_once: Callable[[Scope], bool] = getattr(app, "at_once", never)

    @property
    def connections(self) -> set[Swept]:
        """Those that are open."""
        return self.state.connections  # type: ignore[return-value]

    def date(self, now: bytes) -> None:
        """Answers are of this second from now on."""
        self.lines = self._security + b"date: %b\r\n" % now

    def start_sweeping(self) -> None:
        """Sweep from now on."""
        self.now = self.loop.time()
        self._timer = self.loop.call_later(self.limits.sweep_interval_s, self._sweep)

    def stop_sweeping(self) -> None:
        """Sweep no more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()

    def cut(self) -> None:
        """Abort every connection."""
        for connection in list(self.connections):
            connection.abort()

    def _sweep(self) -> None:
        interval_s, last = self.limits.sweep_interval_s, self.now
        self.now = self.loop.time()
        if self.now - last < 2 * interval_s:  # else it is we who were slow: what clients sent was not read yet
            for connection in list(self.connections):
                connection.sweep()
        self._timer = self.loop.call_later(interval_s, self._sweep)

"""The listener inside a process: uvicorn's server without its own signal handling, started and stopped by its owner."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import ssl as tls
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate

import uvicorn
from starlette.types import ASGIApp

from neurogate.httpd.commons import Commons
from neurogate.httpd.limits import HttpLimits
from neurogate.httpd.protocol import HttpConnection
from neurogate.httpd.security_headers import security_headers

_BACKLOG = 4096
_LOOK_S = 0.05
"""Seconds between two looks at the connections of a listener that stops."""


class HttpServer:
    """One ASGI app on one port, with TLS when there is a context for it."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        name: str,
        host: str,
        port: int,
        limits: HttpLimits | None = None,
        ssl: tls.SSLContext | None = None,
        on_refused: Callable[[int], None] = lambda _: None,
        send_buffer_bytes: int = 0,
    ) -> None:
        """`send_buffer_bytes` is what the kernel holds for a client that does not read; 0 leaves that to the kernel."""
        self._name = name
        self._host = host
        self._port = port
        self._send_buffer_bytes = send_buffer_bytes
        self._server = _QuietServer(app, limits or HttpLimits(), ssl, on_refused)
        self._task: asyncio.Task[None] | None = None
        self._listener: socket.socket | None = None

    @property
    def connections(self) -> int:
        """Those that are open."""
        return len(self._server.server_state.connections)

    @property
    def listener(self) -> socket.socket | None:
        """What it listens on, to be handed to another process; None when it does not."""
        return self._listener

    async def start(self, tasks: asyncio.TaskGroup, listener: socket.socket | None = None) -> int:
        """Listen, on `listener` if there is one; port 0 takes a free one.

        Returns the port. Raises OSError naming the address when it is taken.
        """
        self._listener = listener = listener or self._open()
        port: int = listener.getsockname()[1]
        if self._send_buffer_bytes:
            listener.setsockopt(
                socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer_bytes
            )  # its connections inherit it
        self._task = tasks.create_task(self._server.serve([listener]), name=f"http {self._name}")
        await self._server.listening.wait()
        return port

    def _open(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            return socket.create_server((self._host, self._port), family=family, backlog=_BACKLOG)
        except OSError as error:
            raise OSError(f"cannot listen on {self._host}:{self._port} ({self._name}): {error.strerror}") from error

    def set_limits(self, limits: HttpLimits) -> None:
        """Hold connections to other limits from now on."""
        self._server.set_limits(limits)

    def set_app(self, app: ASGIApp) -> None:
        """Serve requests with another app from now on."""
        self._server.set_app(app)

    def say_close(self, *, close: bool) -> None:
        """Whether every answer tells its client to open another connection, of a later request at the latest."""
        self._server.say_close(close=close)

    async def stop(self, grace_s: float, *, quiet_s: float = 0.0) -> None:
        """Refuse new connections, let open requests finish for `grace_s`, then cut them. Idempotent.

        Connections without a request are closed when they have been quiet for `quiet_s`; requests that come before are
        answered.
        """
        self._listener = None
        self._server.leave(grace_s, quiet_s)
        if self._task is not None:
            await asyncio.wait([self._task])


class _QuietServer(uvicorn.Server):
    """Leaves signals to the process, speaks our protocol, and says when it listens."""

    def __init__(
        self, app: ASGIApp, limits: HttpLimits, ssl: tls.SSLContext | None, on_refused: Callable[[int], None]
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=HttpConnection,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
            )
        )
        self.listening = asyncio.Event()
        self.servers = []
        self._app = app
        self._limits = limits
        self._ssl = ssl
        self._on_refused = on_refused
        self._commons: Commons | None = None
        self._stopping = asyncio.Event()
        self._closes = False
        self._grace_s = self._quiet_s = 0.0

    def leave(self, grace_s: float, quiet_s: float) -> None:
        if not self.should_exit:
            self._grace_s, self._quiet_s = grace_s, quiet_s
            self.should_exit = True
            self._stop_accepting()
            self.say_close(close=True)
            self._stopping.set()

    def say_close(self, *, close: bool) -> None:
        self._closes = close
        self._renew_headers()

    def set_limits(self, limits: HttpLimits) -> None:
        self._limits = limits
        if self._commons is not None:
            self._commons.limits = limits

    def set_app(self, app: ASGIApp) -> None:
        self._app = app
        if self._commons is not None:
            self._commons.serve(app)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        self._commons = commons = Commons(
            self._app,
            self.server_state,
            limits=self._limits,
            security=security_headers(secure=self._ssl is not None),
            secure=self._ssl is not None,
            on_refused=self._on_refused,
            loop=loop,
        )
        self._renew_headers()
        handshake_s = None if self._ssl is None else self._limits.handshake_timeout_s
        self.servers = [
            await loop.create_server(
                lambda: HttpConnection(commons),
                sock=listener,
                ssl=self._ssl,
                ssl_handshake_timeout=handshake_s,
                backlog=_BACKLOG,
            )
            for listener in sockets or ()
        ]
        commons.start_sweeping()
        self.started = True
        self.listening.set()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().serve(sockets)
        finally:
            self._stop_accepting()
            for listener in sockets or ():
                listener.close()
            if self._commons is not None:
                self._commons.stop_sweeping()
                self._commons.cut()

    async def main_loop(self) -> None:
        while not self.should_exit:
            self._renew_headers()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in sockets or ():
            listener.close()
        state, commons = self.server_state, self._commons
        now = began = asyncio.get_running_loop().time()
        while commons is not None and (state.connections or state.tasks) and now <= began + self._grace_s:
            commons.now = now
            quiet_before = now - self._quiet_s
            for connection in list(commons.connections):
                connection.leave(quiet_before if quiet_before >= began else -math.inf)
            await asyncio.sleep(_LOOK_S)
            self._renew_headers()
            now = asyncio.get_running_loop().time()
        for task in list(state.tasks):  # one that runs without a task ends here and now, and leaves the set
            task.cancel()

    def _stop_accepting(self) -> None:
        for server in self.servers:
            server.close()

    def _renew_headers(self) -> None:
        """The date of the second, and what else every answer says."""
        commons = self._commons
        if commons is not None:
            commons.closes = self._closes
            commons.date(formatdate(time.time(), usegmt=True).encode())  # noqa: TID251 - a header for people, nothing is timed by it

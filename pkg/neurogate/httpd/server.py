"""The listener inside a process: uvicorn's server without its own signal handling, started and stopped by its owner."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl as tls
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from neurogate.httpd.commons import Commons
from neurogate.httpd.limits import HttpLimits
from neurogate.httpd.protocol import HttpConnection
from neurogate.httpd.security_headers import security_headers

_BACKLOG = 4096


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
    ) -> None:
        self._name = name
        self._host = host
        self._port = port
        self._server = _QuietServer(app, limits or HttpLimits(), ssl, on_refused)
        self._task: asyncio.Task[None] | None = None

    @property
    def connections(self) -> int:
        """Those that are open."""
        return len(self._server.server_state.connections)

    async def start(self, tasks: asyncio.TaskGroup) -> int:
        """Listen; port 0 takes a free one. Returns the port. Raises OSError naming the address when it is taken."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            listener = socket.create_server((self._host, self._port), family=family, backlog=_BACKLOG)
        except OSError as error:
            raise OSError(f"cannot listen on {self._host}:{self._port} ({self._name}): {error.strerror}") from error
        port: int = listener.getsockname()[1]
        self._task = tasks.create_task(self._server.serve([listener]), name=f"http {self._name}")
        await self._server.listening.wait()
        return port

    def set_limits(self, limits: HttpLimits) -> None:
        """Hold connections to other limits from now on."""
        self._server.set_limits(limits)

    def set_app(self, app: ASGIApp) -> None:
        """Serve requests with another app from now on."""
        self._server.set_app(app)

    async def stop(self, grace_s: float) -> None:
        """Refuse new connections, let open requests finish for `grace_s`, then cut them. Idempotent."""
        self._server.config.timeout_graceful_shutdown = max(1, round(grace_s))
        self._server.should_exit = True
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
        self._app = app
        self._limits = limits
        self._ssl = ssl
        self._on_refused = on_refused
        self._commons: Commons | None = None

    def set_limits(self, limits: HttpLimits) -> None:
        self._limits = limits
        if self._commons is not None:
            self._commons.limits = limits

    def set_app(self, app: ASGIApp) -> None:
        self._app = app
        if self._commons is not None:
            self._commons.app = app

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        self._commons = commons = Commons(
            self._app,
            self.server_state,
            limits=self._limits,
            headers=security_headers(secure=self._ssl is not None),
            secure=self._ssl is not None,
            on_refused=self._on_refused,
            loop=loop,
        )
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

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self._commons is not None:
            self._commons.stop_sweeping()
            self._commons.cut()

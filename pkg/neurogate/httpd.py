"""An HTTP listener inside a process: uvicorn without its own signal handling, started and stopped by its owner."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class HttpServer:
    """One ASGI app on one port."""

    def __init__(self, app: ASGIApp, *, name: str, host: str, port: int, keep_alive_s: int = 60) -> None:
        self._name = name
        self._host = host
        self._port = port
        self._server = _QuietServer(
            uvicorn.Config(
                app,
                http=_AbortableProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                backlog=4096,
                timeout_keep_alive=keep_alive_s,
            )
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self, tasks: asyncio.TaskGroup) -> int:
        """Listen; port 0 takes a free one. Returns the port. Raises OSError naming the address when it is taken."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            listener = socket.create_server((self._host, self._port), family=family, backlog=4096)
        except OSError as error:
            raise OSError(f"cannot listen on {self._host}:{self._port} ({self._name}): {error.strerror}") from error
        port: int = listener.getsockname()[1]
        self._task = tasks.create_task(self._server.serve([listener]), name=f"http {self._name}")
        await self._server.listening.wait()
        return port

    async def stop(self, grace_s: float) -> None:
        """Refuse new connections, let open requests finish for `grace_s`, then cut them. Idempotent."""
        self._server.config.timeout_graceful_shutdown = max(1, round(grace_s))
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.wait([self._task])


class _AbortableProtocol(HttpToolsProtocol):
    """Gives the application a way to cut its connection: a slow client's unread bytes must not outlive its request."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: dict[str, Any] = {"neurogate.abort": self.transport.abort}
        self.scope["extensions"] = extensions


class _QuietServer(uvicorn.Server):
    """Leaves signals to the process, and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

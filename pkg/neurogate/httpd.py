"""An HTTP listener inside a process: uvicorn without its own signal handling, started and stopped by its owner."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES_MAX = 64 * 1024
"""Request line and headers; a client that sends more is refused."""

FLUSH_TIMEOUT_S = 30.0
"""How long a client may take to read what is left of its answer before its connection is cut."""

LINGER_S = 5.0
"""How long a client may go on sending a body that nobody reads, once it has its answer."""

_HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class HttpServer:
    """One ASGI app on one port."""

    def __init__(self, app: ASGIApp, *, name: str, host: str, port: int, keep_alive_s: int = 60) -> None:
        self._name = name
        self._host = host
        self._port = port
        self._server = _QuietServer(
            uvicorn.Config(
                app,
                http=_HttpProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
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


class Connection(Protocol):
    """What an endpoint may ask of its client's connection: `scope["extensions"]["neurogate.connection"]`.

    ASGI's own way to hear of a disconnect costs a coroutine, a future and an event for every request.
    """

    def on_lost(self, callback: Callable[[], None] | None) -> None:
        """Call back when the connection is lost; None takes it back. One callback at a time."""
        ...

    def abort(self) -> None:
        """Cut the connection now, dropping what is unsent: a slow client's bytes must not outlive its request."""
        ...


class _HttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with one write for the head and the first of the body, and itself as the `Connection`."""

    _lost_callback: Callable[[], None] | None = None
    _in_head = True
    _began_now = False
    """The head began in the data at hand, which may hold the end of another request as well: it is not counted."""
    _head_bytes = 0
    _flush_timer: asyncio.TimerHandle | None = None
    _linger_timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        if self._linger_timer is not None:
            return
        self._began_now = False
        super().data_received(data)
        if self._in_head and not self._began_now:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
                self.transport.write(_HEAD_TOO_LARGE)
                self.transport.close()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.flow.write_paused:  # the client has not read its whole answer yet, and nobody waits for it any more
            self._flush_timer = self.loop.call_later(FLUSH_TIMEOUT_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_flush_timer()

    def _stop_flush_timer(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(_HeadHolder(cast("asyncio.Transport", transport), self.loop, self._linger))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._began_now = True
        self._head_bytes = 0
        extensions: dict[str, Any] = {"neurogate.connection": self}
        self.scope["extensions"] = extensions

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_flush_timer()
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        if self._lost_callback is not None:
            self._lost_callback()

    def _linger(self) -> bool:
        """Whether a connection that is to be closed must be heard for a while, because its client is still sending.

        A close would answer what it sends with a reset, which may overtake the answer (RFC 9112, section 9.6).
        """
        cycle: Any = self.cycle  # None before the first request, whatever its type says
        if self._linger_timer is not None or cycle is None or not (cycle.response_complete and cycle.more_body):
            return False
        self._linger_timer = self.loop.call_later(LINGER_S, self.transport.close)
        self.flow.resume_reading()
        return True

    def on_lost(self, callback: Callable[[], None] | None) -> None:
        self._lost_callback = callback
        if callback is not None and self.transport.is_closing():
            callback()

    def abort(self) -> None:
        if self.cycle is not None:
            self.cycle.disconnected = True  # or uvicorn would report an application that forgot to answer
        self.transport.abort()


class _HeadHolder(asyncio.Transport):
    """Holds a response's head until the next write, or the end of this turn of the loop.

    A write is a system call, the dearest single thing the gateway does; head and body in one write save one for every
    unstreamed answer (docs/performance.md).
    """

    __slots__ = ("_half_closed", "_held", "_linger", "_loop", "_transport")

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, linger: Callable[[], bool]
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._linger = linger
        self._held = b""
        self._half_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held + data)
        elif data[:9] == b"HTTP/1.1 " and data[9:12] != b"100":
            self._held = bytes(data)
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def close(self) -> None:
        self._flush()
        if self._linger():
            self._half_closed = True
            self._transport.write_eof()
        else:
            self._transport.close()

    def abort(self) -> None:
        self._held = b""
        self._transport.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self._half_closed or self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._transport.set_protocol(protocol)

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)


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

"""Two connections joined byte for byte: a client's, and one to gRPC's server in the same process.

Whoever reads slowly slows the other down, so nothing piles up here. The end of one side's bytes is passed on, and soon
after it both connections are gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

_LINGER_S = 5.0
"""How long the rest may take once one side has ended."""
_HIGH_BYTES = 256 * 1024
"""What a side may have unsent before the other one is read no further."""


class Splice:
    """A client's connection and gRPC's end of it."""

    def __init__(
        self, client: asyncio.Transport, *, loop: asyncio.AbstractEventLoop, on_over: Callable[[Splice], None]
    ) -> None:
        """The client's connection is read once there is the other one. `on_over` hears when both are gone."""
        self._loop = loop
        self._on_over = on_over
        self._left = 2
        self._linger: asyncio.TimerHandle | None = None
        self._client = _Side(self, is_server=False)
        self._server = _Side(self, is_server=True)
        self._client.other, self._server.other = self._server, self._client
        client.pause_reading()
        client.set_protocol(self._client)
        self._client.connection_made(client)

    def server(self, first: bytes) -> asyncio.Protocol:
        """The protocol of the connection to gRPC's server, which `first` is written to."""
        self._server.first = first
        return self._server

    def unreachable(self) -> None:
        """There is no connection to gRPC's server."""
        self._server.connection_lost(None)

    def abort(self) -> None:
        """End both at once."""
        for side in (self._client, self._server):
            if side.transport is not None:
                side.transport.abort()

    def ends(self) -> None:
        """One side sends nothing more."""
        if self._linger is None:
            self._linger = self._loop.call_later(_LINGER_S, self.abort)

    def lost(self) -> None:
        """One side is gone."""
        self.ends()
        self._left -= 1
        if not self._left and self._linger is not None:
            self._linger.cancel()
            self._on_over(self)


class _Side(asyncio.Protocol):
    """One of the two connections; what it reads goes to the other one."""

    __slots__ = ("_is_server", "_splice", "first", "other", "transport")

    def __init__(self, splice: Splice, *, is_server: bool) -> None:
        self._splice: Splice | None = splice
        """None once this side is gone, as `other`: what is over frees itself, without a collector."""
        self._is_server = is_server
        self.transport: asyncio.Transport | None = None
        self.first = b""
        self.other: _Side | None = None

    @property
    def _to(self) -> asyncio.Transport | None:
        return None if self.other is None else self.other.transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(_HIGH_BYTES)
        if self._is_server:
            client = self._to
            if client is None or client.is_closing():  # it went while we connected
                self.transport.abort()
            else:
                self.transport.write(self.first)
                self.first = b""
                client.resume_reading()

    def data_received(self, data: bytes) -> None:
        to = self._to
        if to is not None:
            to.write(data)

    def eof_received(self) -> bool:
        if self._splice is not None:
            self._splice.ends()
        to = self._to
        if to is not None and not to.is_closing():
            if self._is_server:
                to.close()  # gRPC's server reads nothing more either
            else:
                to.write_eof()
        return True

    def pause_writing(self) -> None:
        source = self._to
        if source is not None and not source.is_closing():
            source.pause_reading()

    def resume_writing(self) -> None:
        source = self._to
        if source is not None and not source.is_closing():
            source.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        to, self.other = self._to, None
        splice, self._splice = self._splice, None
        if to is not None:
            if exc is None or self._is_server:
                to.close()  # behind what is not sent yet
            else:
                to.abort()
        if splice is not None:
            splice.lost()

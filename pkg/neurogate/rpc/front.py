"""A worker's port without TLS: links are served by us, everything else is gRPC's (ADR 0029).

Who a connection is for is seen by its first bytes. Whatever cannot be told apart, by what it says or in time, goes to
gRPC's server, which serves links too: the fast way is never needed for a right answer.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

import structlog

from neurogate.rpc.back_door import BackDoor
from neurogate.rpc.http2.first_bytes import Whose, whose
from neurogate.rpc.listening import BACKLOG, listen, peer_of
from neurogate.rpc.splice import Splice

Welcome = Callable[[asyncio.Transport, bytes, str], None]
"""Serve a link: its connection, the bytes that were read already, and who is there."""

_FIRST_BYTES_S = 5.0
"""How long a connection may be unclear. Every client speaks first, and goes on with what it began."""
_UNCLEAR = 256
"""Connections that may be so at once; the oldest of more are gRPC's."""
_STOP_S = 1.0
"""How long the last bytes of gRPC's server may take to be sent."""

_log = structlog.get_logger("neurogate.rpc")


class Front:
    """Accepts connections and passes each of them on."""

    def __init__(self, back_door: BackDoor, welcome: Welcome, *, loop: asyncio.AbstractEventLoop) -> None:
        self._back_door = back_door
        self._welcome = welcome
        self._loop = loop
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._unclear: dict[_Visitor, None] = {}
        self._splices: set[Splice] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()

    @property
    def unclear(self) -> int:
        """Connections that have not said enough."""
        return len(self._unclear)

    @property
    def spliced(self) -> int:
        """Connections that gRPC's server serves."""
        return len(self._splices)

    async def listen(self, address: str) -> int:
        """Listen on host:port; port 0 takes a free one. Returns the port. Raises OSError."""
        self._sockets = await listen(address)
        port: int = self._sockets[0].getsockname()[1]
        return port

    async def start(self) -> None:
        """Take who comes, and came since we listen."""
        for listener in self._sockets:
            server = await self._loop.create_server(lambda: _Visitor(self, self._loop), sock=listener, backlog=BACKLOG)
            self._servers.append(server)

    def close(self) -> None:
        """Take no connection any more, and let go of those that have said nothing."""
        for server in self._servers:
            server.close()
        for listener in self._sockets:
            listener.close()
        for visitor in tuple(self._unclear):
            visitor.leave()

    async def stop(self) -> None:
        """End what gRPC's server, which has stopped, has not ended. Idempotent."""
        self.close()
        for task in self._connecting:
            task.cancel()
        if self._splices:
            self._empty.clear()
            try:
                async with asyncio.timeout(_STOP_S):
                    await self._empty.wait()
            except TimeoutError:
                for splice in tuple(self._splices):
                    splice.abort()

    def came(self, visitor: _Visitor) -> None:
        """A connection begins."""
        self._unclear[visitor] = None
        if len(self._unclear) > _UNCLEAR:
            next(iter(self._unclear)).give_up()

    def went(self, visitor: _Visitor) -> None:
        """It is unclear no more."""
        self._unclear.pop(visitor, None)

    def serve(self, transport: asyncio.Transport, first: bytes) -> None:
        """It begins with a link."""
        self._welcome(transport, first, peer_of(transport))

    def pass_on(self, transport: asyncio.Transport, first: bytes) -> None:
        """It is gRPC's."""
        splice = Splice(transport, loop=self._loop, on_over=self._over)
        self._splices.add(splice)
        task = self._loop.create_task(self._connect(splice, first, peer_of(transport)))
        self._connecting.add(task)
        task.add_done_callback(lambda done: self._connected(splice, done))

    def _connected(self, splice: Splice, task: asyncio.Task[None]) -> None:
        self._connecting.discard(task)
        if task.cancelled():
            splice.unreachable()

    async def _connect(self, splice: Splice, first: bytes, peer: str) -> None:
        try:
            await self._back_door.connect(lambda: splice.server(first), peer)
        except OSError as error:
            _log.warning("a connection could not be passed on to gRPC's server", peer=peer, reason=str(error))
            splice.unreachable()

    def _over(self, splice: Splice) -> None:
        self._splices.discard(splice)
        if not self._splices:
            self._empty.set()


class _Visitor(asyncio.Protocol):
    """A connection until it is clear whose it is."""

    def __init__(self, front: Front, loop: asyncio.AbstractEventLoop) -> None:
        self._front = front
        self._loop = loop
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._timer = self._loop.call_later(_FIRST_BYTES_S, self.give_up)
        self._front.came(self)

    def data_received(self, data: bytes) -> None:
        self._data = self._data + data if self._data else data
        found = whose(self._data)
        if found is not Whose.UNCLEAR:
            self._settle(self._front.serve if found is Whose.OURS else self._front.pass_on)

    def connection_lost(self, _: Exception | None) -> None:
        self._timer.cancel()
        self._front.went(self)

    def give_up(self) -> None:
        """There is no telling: it is gRPC's."""
        self._settle(self._front.pass_on)

    def leave(self) -> None:
        """Nobody serves any more."""
        self._transport.abort()

    def _settle(self, serve: Callable[[asyncio.Transport, bytes], None]) -> None:
        self._timer.cancel()
        self._front.went(self)
        data, self._data = self._data, b""
        serve(self._transport, data)

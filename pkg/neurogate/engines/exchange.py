"""One request to an engine and its answer, for as long as they have a connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from neurogate.engines.connection import Connection
from neurogate.engines.engine import EngineBrokenError, EngineCall, EngineReply, PushedBody
from neurogate.engines.lost import ConnectionLostError, reason_of


class ReplyBody(PushedBody):
    """The bytes of an answer as they arrive; raises EngineBrokenError when the engine breaks off."""

    __slots__ = ("_connection", "_first", "_turn")

    def __init__(self, connection: Connection, *, first: bytes = b"") -> None:
        self._connection = connection
        self._turn = connection.turn
        self._first = first

    async def __anext__(self) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        try:
            piece = await self._own().read()
        except OSError as error:
            raise _broke_off(error) from error
        if not piece:
            raise StopAsyncIteration
        return piece

    async def pump(self, take: Callable[[bytes], bool]) -> bool:
        """See PushedBody."""
        if self._first:
            first, self._first = self._first, b""
            if not take(first):
                return True
        try:
            return await self._own().pump(take)
        except OSError as error:
            raise _broke_off(error) from error

    def _own(self) -> Connection:
        """The connection, as long as it carries this answer."""
        if self._connection.turn != self._turn:
            raise ConnectionLostError("it was given up")
        return self._connection


class Exchange:
    """One request and its answer: a connection from its beginning to its end."""

    __slots__ = ("_begin", "_call", "_connection", "_end")

    def __init__(
        self,
        call: EngineCall,
        begin: Callable[[EngineCall], Awaitable[tuple[Connection, EngineReply]]],
        end: Callable[[Connection], None],
    ) -> None:
        self._call = call
        self._begin = begin
        self._end = end

    async def __aenter__(self) -> EngineReply:
        self._connection, reply = await self._begin(self._call)
        return reply

    async def __aexit__(self, *_: object) -> None:
        self._end(self._connection)


def _broke_off(error: OSError) -> EngineBrokenError:
    return EngineBrokenError(f"the engine broke off in the middle of its answer ({reason_of(error)})")

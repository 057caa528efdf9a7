"""The server's end of a call."""

from __future__ import annotations

import asyncio

import grpc

from neurogate.rpc.http2 import call, frames
from neurogate.rpc.http2.call import STREAM, CallOwner, GrpcCall
from neurogate.rpc.http2.connection import CallEnd
from neurogate.rpc.http2.frames import Http2Error
from neurogate.rpc.http2.headers import Fields, block, quoted

_PING_S = 30.0
"""Seconds between two looks whether the client's machine is still there."""
_PATIENCE_S = 10.0
"""How long it may take to answer."""
_LATE_S = 0.5
"""A timer that is this late means that this process did not run."""

_ANSWER = frames.frame(
    frames.HEADERS,
    frames.END_HEADERS,
    STREAM,
    block(((":status", "200"), ("content-type", "application/grpc"))),
)


class ServerCall(GrpcCall):
    """Answers whatever is called; who is served is for others to know."""

    def __init__(self, owner: CallOwner, *, loop: asyncio.AbstractEventLoop, max_message_bytes: int) -> None:
        super().__init__(owner, loop=loop, max_message_bytes=max_message_bytes, first=frames.PREFACE)
        self._begun = False
        self._asked_out = False
        """The client's half is closed."""
        self._finished = False
        self._heard = False
        """Something came since we asked for it."""
        self._timer: asyncio.TimerHandle | None = None

    def finish(self, code: grpc.StatusCode, message: str = "") -> None:
        """Tell how the call ended, behind every message, and close the connection. Idempotent."""
        if self._finished:
            return
        self._finished = True
        words = frames.goaway(STREAM, frames.NO_ERROR, message)
        if self._begun:
            trailers = block((("grpc-status", str(code.value[0])), ("grpc-message", quoted(message))))
            words += frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, STREAM, trailers)
        self._finish(words)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        super().connection_made(transport)
        self._timer = self._loop.call_later(_PING_S, self._ask)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        self._heard = True
        super().data_received(data)

    def _ask(self) -> None:
        self._heard = False
        if not self._over:
            self._write(frames.frame(frames.PING, 0, 0, bytes(8)))
        self._timer = self._loop.call_later(_PATIENCE_S, self._look, self._loop.time() + _PATIENCE_S)

    def _look(self, due: float) -> None:
        if self._heard or self._loop.time() > due + _LATE_S:
            self._timer = self._loop.call_later(_PING_S - _PATIENCE_S, self._ask)
            return
        self._tell(CallEnd(grpc.StatusCode.UNAVAILABLE, "the client does not answer"))
        self.abort()

    def _opening(self) -> bytes:
        return call.settings(frames.MAX_CONCURRENT_STREAMS, 1)

    def _headers_came(self, _: Fields, *, last: bool) -> None:
        if not self._begun:
            self._begun = self._may_talk = True
            self._write(_ANSWER)
        elif not last or self._asked_out:
            raise Http2Error(frames.PROTOCOL_ERROR, "headers in the midst of the stream")
        if last:
            self._half_closed()

    def _half_closed(self) -> None:
        self._asked_out = True
        self._may_talk = False
        self._tell(CallEnd(grpc.StatusCode.OK, "the client has said everything"))

    def _stranger(self, kind: int, stream: int) -> None:
        if kind == frames.HEADERS:  # of others, what follows is on its way until the client hears of this
            self._answer(frames.rst_stream(stream, frames.REFUSED_STREAM))

    def _goodbye(self, _: int, code: int) -> None:
        if code:
            self._end(CallEnd(grpc.StatusCode.UNAVAILABLE, self._farewell))

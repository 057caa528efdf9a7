"""One gRPC call on one HTTP/2 connection: what both of its ends do alike."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Protocol

import grpc

from neurogate.rpc.http2 import frames
from neurogate.rpc.http2.connection import CallEnd, Http2Connection
from neurogate.rpc.http2.frames import Http2Error
from neurogate.rpc.http2.headers import BLOCK_BYTES, Fields
from neurogate.rpc.http2.messages import MessageReader, MessageWriter

STREAM = 1
"""The one stream: the first that a client opens."""
WINDOW = 4 * 1024 * 1024
"""What the other side may have under way to us; it is credited back by halves."""
_CREDIT_AT = WINDOW // 2


class CallOwner(Protocol):
    """Hears of a call, in the callback that brought the bytes."""

    def on_message(self, message: bytes) -> None:
        """A whole message has come. What this raises ends the call."""
        ...

    def on_sendable(self) -> None:
        """`sendable` is true again."""
        ...

    def on_end(self, end: CallEnd) -> None:
        """Nothing comes any more. It is said once, and not after `abort`."""
        ...


class _Nobody:
    """The owner of a call that is over."""

    def on_message(self, message: bytes) -> None: ...

    def on_sendable(self) -> None: ...

    def on_end(self, end: CallEnd) -> None: ...


_NOBODY = _Nobody()


class GrpcCall(Http2Connection):
    """The part of a call that both roles share: a role says how it begins and what headers mean."""

    def __init__(
        self, owner: CallOwner, *, loop: asyncio.AbstractEventLoop, max_message_bytes: int, first: bytes = b""
    ) -> None:
        super().__init__(loop, first=first)
        self._owner = owner
        self._messages = MessageReader(max_message_bytes)
        self._writer = MessageWriter(STREAM)
        self._held = False
        """`sendable` was false when something was sent: the owner waits for `on_sendable`."""
        self._uncredited = 0
        self._may_talk = False
        """The other side's messages may come now: its headers have, and its end has not."""
        self._words = b""
        """What is said last of all, behind the messages that wait."""

    @property
    def sendable(self) -> bool:
        """Whether a message would go out now. Whoever has much to say waits for `on_sendable` while it is false."""
        return not (self._paused or self._over or self._writer or self._transport is None)

    def send(self, message: bytes) -> None:
        """Send a message. What the other side's windows do not let through waits here, whatever its size."""
        if not self._over:
            data = self._writer.put(message)
            if data:
                self._write(data)
            if self._writer:
                self._held = True

    @abstractmethod
    def _headers_came(self, fields: Fields, *, last: bool) -> None:
        """Take a header list of the stream; `last` when nothing follows it. May raise Http2Error."""

    @abstractmethod
    def _half_closed(self) -> None:
        """The other side's last message has come, and no headers after it. May raise Http2Error."""

    @abstractmethod
    def _stranger(self, kind: int, stream: int) -> None:
        """A frame of another stream has come. May raise Http2Error."""

    def _finish(self, words: bytes) -> None:
        """Say these behind every message, and close the connection; the owner hears nothing more."""
        self._told = True
        self._words = words
        self._go_on()

    def data_received(self, data: bytes) -> None:
        """Take what has come: nearly always one frame with one message, and so nothing that must be put together."""
        message = None
        if (
            self._may_talk
            and self._uncredited < _CREDIT_AT - frames.FRAME_BYTES
            and not (self._over or self._headers.inside or self._reader.rest)
        ):
            message = self._messages.only(data, STREAM)
        if message is None:
            super().data_received(data)
            return
        self._uncredited += len(data) - frames.HEAD_BYTES
        try:
            self._owner.on_message(message)
        except Exception:  # noqa: BLE001 - a bug of the owner's costs this call and not the process
            self._failed()

    def pause_writing(self) -> None:
        """The transport has enough."""
        super().pause_writing()
        self._held = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner, unless it knows, and let go of it: what is over frees itself, without a collector."""
        super().connection_lost(exc)
        self._owner = _NOBODY

    def _ended(self, end: CallEnd) -> None:
        self._owner.on_end(end)

    def _data(self, flags: int, stream: int, payload: bytes) -> None:
        self._credit(len(payload))
        if stream != STREAM:
            self._stranger(frames.DATA, stream)
            return
        if not self._may_talk:
            raise Http2Error(frames.STREAM_CLOSED, "data outside of the stream")
        if flags & frames.PADDED:
            payload = frames.unpadded(flags, payload)
        for message in self._messages.feed(payload):
            self._owner.on_message(message)
            if self._over:
                return
        if flags & frames.END_STREAM:
            self._check_whole()
            self._half_closed()

    def _credit(self, size: int) -> None:
        self._uncredited += size
        if self._uncredited >= _CREDIT_AT:
            if self._uncredited > WINDOW:
                raise Http2Error(frames.FLOW_CONTROL_ERROR, "more data than was allowed")
            self._answer(frames.window_update(0, self._uncredited) + frames.window_update(STREAM, self._uncredited))
            self._uncredited = 0

    def _check_whole(self) -> None:
        if self._messages.inside:
            raise Http2Error(frames.PROTOCOL_ERROR, "the stream ends inside a message")

    def _header_list(self, stream: int, fields: Fields, *, last: bool) -> None:
        if stream != STREAM:
            self._stranger(frames.HEADERS, stream)
            return
        if last:
            self._check_whole()
        self._headers_came(fields, last=last)

    def _configure(self, settings: dict[int, int]) -> None:
        self._writer.configure(settings)
        self._go_on()

    def _widen(self, stream: int, more: int) -> None:
        if stream not in {0, STREAM}:
            self._stranger(frames.WINDOW_UPDATE, stream)
            return
        self._writer.widen(stream, more)
        self._go_on()

    def _reset(self, stream: int, code: int) -> None:
        if stream != STREAM:
            self._stranger(frames.RST_STREAM, stream)
            return
        status = _STATUS_OF_RESET.get(code, grpc.StatusCode.INTERNAL)
        self._end(CallEnd(status, self._farewell or f"the other side reset the stream with code {code}"))

    def _go_on(self) -> None:
        """Send what waits, as far as it may go, and tell the owner when all of it went."""
        if self._paused or self._over:
            return
        if self._writer:
            data = self._writer.more()
            if data:
                self._write(data)
        if self._words and not self._writer:
            self._write(self._words)
            self._over = True
            if self._out is None:
                self._shut()
        elif self._held and self.sendable:
            self._held = False
            self._owner.on_sendable()


_STATUS_OF_RESET = {
    frames.NO_ERROR: grpc.StatusCode.CANCELLED,
    frames.CANCEL: grpc.StatusCode.CANCELLED,
    frames.REFUSED_STREAM: grpc.StatusCode.UNAVAILABLE,
    frames.ENHANCE_YOUR_CALM: grpc.StatusCode.RESOURCE_EXHAUSTED,
    frames.INADEQUATE_SECURITY: grpc.StatusCode.PERMISSION_DENIED,
}


def settings(first: int, value: int) -> bytes:
    """What a role announces: one setting of its own, its windows, and its bound of header lists."""
    values = {first: value, frames.INITIAL_WINDOW_SIZE: WINDOW, frames.MAX_HEADER_LIST_SIZE: BLOCK_BYTES}
    return frames.settings(values) + frames.window_update(0, WINDOW - frames.WINDOW_BYTES)

"""gRPC's messages in the DATA frames of one stream, out and in. Pure: bytes here, bytes there.

A message has a prefix of five bytes: whether it is compressed, and its length. Where frames begin and end says nothing.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator

from neurogate.rpc.http2 import frames
from neurogate.rpc.http2.frames import Http2Error

_prefix = struct.Struct(">BI")
_whole = struct.Struct(">IBIBI")  # a frame's head and a message's prefix


class MessageReader:
    """Cuts what DATA frames carry into messages."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._max_in_frame = min(max_bytes, frames.FRAME_BYTES - _prefix.size)
        self._part = bytearray()
        """The beginning of a message that is not whole, with its prefix."""
        self._needed = _prefix.size
        """What `_part` must have before there is something to do."""

    @property
    def inside(self) -> bool:
        """Whether a message has begun and is not whole."""
        return bool(self._part)

    def only(self, data: bytes, stream: int) -> bytes | None:
        """The message, when these bytes are one frame of that stream with one whole message, and none has begun."""
        size = len(data) - _whole.size
        if size < 0 or size > self._max_in_frame or self._part:
            return None
        head = _whole.pack(size + _prefix.size << 8, 0, stream, 0, size)
        return data[_whole.size :] if data.startswith(head) else None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Every message that is whole now. Raises Http2Error; then it is over."""
        if self._part:
            self._part += data
            if len(self._part) < self._needed:
                return
            data = bytes(self._part)
            self._part.clear()
        at, end = 0, len(data)
        while at < end:
            begins = at + _prefix.size
            if begins > end:
                self._needed = _prefix.size
                break
            compressed, size = _prefix.unpack_from(data, at)
            if compressed:
                raise Http2Error(frames.PROTOCOL_ERROR, "a compressed message, which was not agreed on")
            if size > self._max:
                raise Http2Error(frames.ENHANCE_YOUR_CALM, f"a message of {size} bytes, more than {self._max}")
            upto = begins + size
            if upto > end:
                self._needed = _prefix.size + size
                break
            at = upto
            yield data[begins:upto]
        if at < end:
            self._part += memoryview(data)[at:]


class MessageWriter:
    """Puts messages into DATA frames, as many as the other side's windows let through; the others wait here."""

    def __init__(self, stream: int) -> None:
        self._stream = stream
        self._waiting: deque[memoryview] = deque()
        self._frame_bytes = frames.FRAME_BYTES
        self._initial = frames.WINDOW_BYTES
        self._connection_window = frames.WINDOW_BYTES
        self._stream_window = frames.WINDOW_BYTES

    def __bool__(self) -> bool:
        """Whether something waits."""
        return bool(self._waiting)

    def put(self, message: bytes) -> bytes:
        """The message in frames, as far as it may go now; the rest of it waits."""
        size = len(message) + _prefix.size
        if not self._waiting and size <= self._frame_bytes and size <= self._room:
            self._connection_window -= size
            self._stream_window -= size
            return _whole.pack(size << 8, 0, self._stream, 0, len(message)) + message
        self._waiting.append(memoryview(_prefix.pack(0, len(message)) + message))
        return self.more()

    def more(self) -> bytes:
        """What of the waiting messages may go now."""
        out: list[bytes] = []
        waiting = self._waiting
        while waiting and (room := self._room) > 0:
            piece = waiting[0][: min(room, self._frame_bytes)]
            if len(piece) == len(waiting[0]):
                waiting.popleft()
            else:
                waiting[0] = waiting[0][len(piece) :]
            self._connection_window -= len(piece)
            self._stream_window -= len(piece)
            out.append(frames.frame(frames.DATA, 0, self._stream, bytes(piece)))
        return b"".join(out)

    def widen(self, stream: int, more: int) -> None:
        """Take a WINDOW_UPDATE for the stream, or with 0 for the connection. Raises Http2Error."""
        if not more:
            raise Http2Error(frames.PROTOCOL_ERROR, "WINDOW_UPDATE of nothing")
        if stream:
            self._stream_window += more
        else:
            self._connection_window += more
        if max(self._stream_window, self._connection_window) > frames.WINDOW_BYTES_MAX:
            raise Http2Error(frames.FLOW_CONTROL_ERROR, "a window is too large")

    def configure(self, settings: dict[int, int]) -> None:
        """Take the other side's settings; a window may be below zero then. Raises Http2Error."""
        self._frame_bytes = settings.get(frames.MAX_FRAME_SIZE, self._frame_bytes)
        initial = settings.get(frames.INITIAL_WINDOW_SIZE, self._initial)
        self._stream_window += initial - self._initial
        self._initial = initial
        if self._stream_window > frames.WINDOW_BYTES_MAX:
            raise Http2Error(frames.FLOW_CONTROL_ERROR, "a window is too large")

    @property
    def _room(self) -> int:
        return min(self._connection_window, self._stream_window)

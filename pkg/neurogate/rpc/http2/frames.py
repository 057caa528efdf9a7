"""HTTP/2 frames (RFC 9113), out and in. Pure: bytes here, bytes there."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client's connection begins with."""

DATA = 0x0
HEADERS = 0x1
PRIORITY = 0x2
RST_STREAM = 0x3
SETTINGS = 0x4
PUSH_PROMISE = 0x5
PING = 0x6
GOAWAY = 0x7
WINDOW_UPDATE = 0x8
CONTINUATION = 0x9

ACK = 0x1
END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WITH_PRIORITY = 0x20

NO_ERROR = 0x0
PROTOCOL_ERROR = 0x1
INTERNAL_ERROR = 0x2
FLOW_CONTROL_ERROR = 0x3
STREAM_CLOSED = 0x5
FRAME_SIZE_ERROR = 0x6
REFUSED_STREAM = 0x7
CANCEL = 0x8
COMPRESSION_ERROR = 0x9
ENHANCE_YOUR_CALM = 0xB
INADEQUATE_SECURITY = 0xC

ENABLE_PUSH = 0x2
MAX_CONCURRENT_STREAMS = 0x3
INITIAL_WINDOW_SIZE = 0x4
MAX_FRAME_SIZE = 0x5
MAX_HEADER_LIST_SIZE = 0x6

FRAME_BYTES = 16_384
"""The largest payload of either side's frames until it announces another; we announce none."""
FRAME_BYTES_MAX = 2**24 - 1
WINDOW_BYTES = 65_535
"""Every window at first."""
WINDOW_BYTES_MAX = 2**31 - 1
HEAD_BYTES = 9

_head = struct.Struct(">IBI")  # three bytes of length and the type; flags; stream
_setting = struct.Struct(">HI")
_two = struct.Struct(">II")


class Http2Error(Exception):
    """The other side broke the protocol; `code` is what HTTP/2 calls it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return _head.pack(len(payload) << 8 | kind, flags, stream) + payload


def settings(values: Mapping[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_setting.pack(*item) for item in values.items()))


def window_update(stream: int, more: int) -> bytes:
    """A WINDOW_UPDATE frame: the other side may send so many bytes more."""
    return frame(WINDOW_UPDATE, 0, stream, more.to_bytes(4, "big"))


def rst_stream(stream: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def goaway(last_stream: int, code: int, text: str = "") -> bytes:
    """A GOAWAY frame; `text` is for whoever reads the other side's log."""
    return frame(GOAWAY, 0, 0, _two.pack(last_stream, code) + text.encode()[:1024])


def read_settings(payload: bytes) -> dict[int, int]:
    """What a SETTINGS frame says. Raises Http2Error."""
    if len(payload) % _setting.size:
        raise Http2Error(FRAME_SIZE_ERROR, "SETTINGS of a strange length")
    found = dict(_setting.iter_unpack(payload))
    if found.get(INITIAL_WINDOW_SIZE, 0) > WINDOW_BYTES_MAX:
        raise Http2Error(FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE is too large")
    if not FRAME_BYTES <= found.get(MAX_FRAME_SIZE, FRAME_BYTES) <= FRAME_BYTES_MAX:
        raise Http2Error(PROTOCOL_ERROR, "SETTINGS_MAX_FRAME_SIZE is out of its range")
    return found


def read_number(payload: bytes) -> int:
    """The one number of a WINDOW_UPDATE or RST_STREAM frame. Raises Http2Error."""
    if len(payload) != 4:
        raise Http2Error(FRAME_SIZE_ERROR, "a frame of one number has another length")
    return int.from_bytes(payload, "big")


def read_goaway(payload: bytes) -> tuple[int, int, str]:
    """Last stream, code and text of a GOAWAY frame. Raises Http2Error."""
    if len(payload) < _two.size:
        raise Http2Error(FRAME_SIZE_ERROR, "GOAWAY is too short")
    last, code = _two.unpack_from(payload)
    return last & WINDOW_BYTES_MAX, code, payload[_two.size :].decode("utf-8", "replace")


def unpadded(flags: int, payload: bytes) -> bytes:
    """The payload of a DATA or HEADERS frame without its padding. Raises Http2Error."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise Http2Error(PROTOCOL_ERROR, "more padding than frame")
    return payload[1 : len(payload) - payload[0]]


class FrameReader:
    """Cuts what arrives into frames. `first` is what must come before all of them."""

    def __init__(self, first: bytes = b"") -> None:
        self._first = first
        self.rest = b""
        """The beginning of what is not whole: at most a frame."""

    def feed(self, data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        """Type, flags, stream and payload of every frame that is whole now. Raises Http2Error; then it is over."""
        if self.rest:
            data = self.rest + data
            self.rest = b""
        at = 0
        if self._first:
            at = len(self._first)
            if data[:at] != self._first[: len(data)]:
                raise Http2Error(PROTOCOL_ERROR, "the preface is not HTTP/2's")
            if len(data) < at:
                self.rest = data
                return
            self._first = b""
        end = len(data)
        while end - at >= HEAD_BYTES:
            word, flags, stream = _head.unpack_from(data, at)
            size = word >> 8
            if size > FRAME_BYTES:
                raise Http2Error(FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            upto = at + HEAD_BYTES + size
            if upto > end:
                break
            payload = data[at + HEAD_BYTES : upto]
            at = upto
            yield word & 0xFF, flags, stream & WINDOW_BYTES_MAX, payload
        self.rest = data[at:]

"""The other side of an HTTP/2 call for tests, byte by byte: a transport in memory, and what frames say."""

from __future__ import annotations

import asyncio
from typing import Any

from neurogate.rpc.http2 import frames
from neurogate.rpc.http2.client import ClientCall
from neurogate.rpc.http2.connection import CallEnd
from neurogate.rpc.http2.dialing import LINK
from neurogate.rpc.http2.frames import FrameReader
from neurogate.rpc.http2.headers import block

Frame = tuple[int, int, int, bytes]

SETTINGS = frames.settings({})
HEADERS = frames.frame(
    frames.HEADERS, frames.END_HEADERS, 1, block(((":status", "200"), ("content-type", "application/grpc")))
)


def message(data: bytes) -> bytes:
    """A gRPC message."""
    return b"\0" + len(data).to_bytes(4, "big") + data


def data(payload: bytes, *, flags: int = 0, stream: int = 1) -> bytes:
    """A DATA frame."""
    return frames.frame(frames.DATA, flags, stream, payload)


def trailers(status: int, text: str = "") -> bytes:
    """A header list that ends the stream."""
    fields = (("grpc-status", str(status)), ("grpc-message", text))
    return frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 1, block(fields))


class MemoryTransport(asyncio.Transport):
    """Keeps what is written; tells its protocol of its end in the next turn, as real ones do."""

    def __init__(self, protocol: asyncio.Protocol, extra: dict[str, Any] | None = None) -> None:
        super().__init__(extra)
        self._protocol = protocol
        self.writes: list[bytes] = []
        self.closing = self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closing, "written after the end"
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.aborted = True
        self.close()

    @property
    def written(self) -> bytes:
        """Everything since the last look."""
        found = b"".join(self.writes)
        self.writes.clear()
        return found

    def frames(self) -> list[Frame]:
        """Whole frames since the last look, which must not end inside of one."""
        reader = FrameReader()
        found = list(reader.feed(self.written.removeprefix(frames.PREFACE)))
        assert not reader.rest
        return found


class RecordingOwner:
    """Keeps what a call tells."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.sendable = 0
        self.ends: list[CallEnd] = []

    def on_message(self, message: bytes) -> None:
        assert not self.ends, "a message came after the end"
        self.messages.append(message)

    def on_sendable(self) -> None:
        self.sendable += 1

    def on_end(self, end: CallEnd) -> None:
        self.ends.append(end)
        assert len(self.ends) == 1, "an end came twice"


def opening(path: str = LINK) -> bytes:
    """What a gateway's connection begins with."""
    loop = asyncio.new_event_loop()
    call = ClientCall(RecordingOwner(), path, authority="w:1", secure=False, loop=loop, max_message_bytes=1 << 20)
    transport = MemoryTransport(call)
    call.connection_made(transport)
    loop.close()
    return transport.written

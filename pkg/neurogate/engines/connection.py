"""One HTTP/1.1 connection to an engine. What arrives is passed on where it arrives: a token costs a call, and no task.

A connection carries one request at a time. `ask` sends it and waits for the head of its answer; the body is then pushed
by `pump`, or taken with `read`. llhttp reads the answers, as leniently as aiohttp has it do, because engines are not
all strict.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import cast

import httptools

from neurogate.engines.lost import ConnectionLostError, afresh

HEAD_BYTES_MAX = 64 * 1024
_JOINED_BYTES_MAX = 16 * 1024
"""A body up to here is copied behind its head: cheaper than a write of two buffers."""
_HELD_BYTES = 128 * 1024
"""Of a body that nobody takes: more is left in the socket, so that the engine waits."""
_INFLATED_BYTES_MAX = 32 << 20
"""Of one piece of an answer that is compressed although it was asked not to be."""
_COMPRESSED = frozenset({b"gzip", b"x-gzip", b"deflate"})
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
_SHORT_BYTES = 2048
"""Chunks up to here are read without llhttp, where it would find nothing but one."""


def _chunk_heads() -> tuple[bytes, ...]:
    """By the size of a whole chunk, head and end and all, how it begins; the last of all chunks is none of them."""
    heads = [b"-" * _SHORT_BYTES] * _SHORT_BYTES  # longer than what is looked up: of some sizes there is no chunk
    for size in range(1, _SHORT_BYTES):
        head = b"%x\r\n" % size
        whole = len(head) + size + 2
        if whole < _SHORT_BYTES:
            heads[whole] = head
    return tuple(heads)


_CHUNK_HEADS = _chunk_heads()


class Connection(asyncio.Protocol):
    """See the module. `on_lost` hears when it is gone."""

    __deletable__ = ("_parser",)
    """For the compiler (ADR 0030), whose classes keep what they have unless this says otherwise."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_lost: Callable[[Connection], None]) -> None:
        self._loop = loop
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._waiter: asyncio.Future[bool] | None = None
        self._take: Callable[[bytes], bool] | None = None
        self._lost: OSError | None = None
        self._pieces: list[bytes] = []
        self._held = 0
        self._paused = False
        self._inflater: zlib._Decompress | None = None
        self._packed = False
        """Something compressed has come."""
        self._head_bytes = 0
        self._headed = False
        self._encodings = b""
        """All that the answer says of its transfer, in lower case."""
        self._to_the_end = False
        """The body goes on until the connection is closed."""
        self._in_chunk = True
        """What the parser wants next is not the beginning of a chunk, as far as is known."""
        self._between_chunks = False
        """It is, and what a chunk holds is passed on as it is."""
        self._complete = True
        self._keeps = True
        """It can carry another request."""
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        """Of the answer, by lower-case names; of several, the first."""
        self.turn = 0
        """Requests that were sent: tells one's answer from the next one's."""
        self.idle_since = 0.0

    def __repr__(self) -> str:
        return f"<Connection {'lost' if self._lost else 'idle' if self._complete else 'busy'}>"

    @property
    def reusable(self) -> bool:
        """Its answer is whole, and another request can be sent."""
        transport = self._transport
        return (
            self._complete
            and self._keeps
            and self._lost is None
            and transport is not None
            and not transport.is_closing()
            and not transport.get_write_buffer_size()
        )

    async def ask(self, head: bytes, body: bytes) -> None:
        """Send a request and wait for the head of its answer. Raises OSError."""
        transport = self._transport
        if transport is None or transport.is_closing():
            raise afresh(self._lost or ConnectionLostError("the connection is closed"))
        self._headed = self._complete = self._to_the_end = False
        self._head_bytes = self._held = 0
        self._in_chunk, self._between_chunks = True, False
        self._inflater = None
        self._pieces.clear()
        self.turn += 1
        if len(body) <= _JOINED_BYTES_MAX:
            transport.write(head + body)
        else:
            transport.writelines((head, body))
        while not self._headed:
            await self._changed()

    async def read(self) -> bytes:
        """What has arrived of the body; nothing at its end. Raises OSError when the engine broke off."""
        while not self._pieces:
            if self._complete:
                return b""
            await self._changed()
        return self._taken()

    async def pump(self, take: Callable[[bytes], bool]) -> bool:
        """Have the body taken as it arrives, until its end or until `take` says False. Whether there may be more.

        Raises OSError when the engine broke off, and what `take` raises.
        """
        while True:
            if self._pieces and not take(self._taken()):
                return True
            if self._complete:
                return False
            self._take = take
            try:
                if await self._changed():
                    return True
            finally:
                self._take = None

    def close(self, error: OSError | None = None) -> None:
        """Close it; whoever waits hears of it. What is not yet sent is not sent any more."""
        self._lose(error or ConnectionLostError("the connection was closed"))
        if self._transport is not None:
            self._transport.abort()

    async def _changed(self) -> bool:
        """Wait for the head, a piece, or the end; True when `take` wants no more. Raises OSError when there is none."""
        if self._lost is not None:
            raise afresh(self._lost)
        waiter = self._waiter = self._loop.create_future()
        try:
            stopped: bool = await waiter
        finally:
            self._waiter = None
        return stopped

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(False)

    def _lose(self, error: OSError) -> None:
        if self._lost is None:
            self._lost = error
        self._wake()

    def _taken(self) -> bytes:
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._held = 0
        if self._paused:
            self._paused = False
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()
        return data

    def _push(self, take: Callable[[bytes], bool], waiter: asyncio.Future[bool]) -> None:
        if self._pieces:
            try:
                goes_on = take(self._taken())
            except Exception as error:  # noqa: BLE001 - it is told where the body is read
                waiter.set_exception(error)
                return
            if not goes_on:
                waiter.set_result(True)
                return
        if self._complete:
            waiter.set_result(False)

    def _check_inflated(self) -> None:
        """Raises ConnectionLostError for a compressed body that has no end; an empty one has none."""
        inflater = self._inflater
        if inflater is not None and self._packed and not inflater.eof:
            raise ConnectionLostError("its compressed answer is cut")

    # The transport's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio's."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        """Asyncio's: parse it, and pass on what it holds."""
        waiter, take = self._waiter, self._take
        if (
            self._between_chunks
            and take is not None
            and waiter is not None
            and len(data) < _SHORT_BYTES
            and data.startswith(head := _CHUNK_HEADS[len(data)])
            and data[-2:] == b"\r\n"
            and not waiter.done()
        ):  # one chunk, behind which the parser would be where it is
            try:
                if not take(data[len(head) : -2]):
                    waiter.set_result(True)
            except Exception as raised:  # noqa: BLE001 - it is told where the body is read
                waiter.set_exception(raised)
            return
        if self._complete:  # nothing was asked
            self.close(ConnectionLostError("the engine spoke without being asked"))
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.close(ConnectionLostError(f"its answer is no HTTP: {error}"))
            return
        if not self._headed:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self.close(ConnectionLostError(f"the head of its answer has more than {HEAD_BYTES_MAX} bytes"))
            return
        self._between_chunks = not self._in_chunk and data[-2:] == b"\r\n"
        waiter, take = self._waiter, self._take
        if take is not None and waiter is not None and not waiter.done():
            self._push(take, waiter)
            return
        self._wake()
        transport = self._transport
        if self._held > _HELD_BYTES and transport is not None and not (self._paused or self._complete):
            self._paused = True
            transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio's: the end of an answer without a length, or of one that is cut."""
        if exc is None and self._lost is None and self._headed and self._to_the_end:
            try:
                self._check_inflated()
            except ConnectionLostError as error:
                self._lose(error)
            else:
                self._complete = True
        self._keeps = False
        self._lose(exc if isinstance(exc, OSError) else ConnectionLostError("the engine closed the connection"))
        self._transport = None
        del self._parser  # each refers to the other
        self._on_lost(self)

    # The parser's callbacks

    def on_message_begin(self) -> None:
        """Of llhttp."""
        if self._complete:  # behind the answer to what was asked
            self._keeps = False
            return
        self.headers = {}
        self._encodings = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of llhttp; behind the body there are trailers."""
        if not self._headed:
            name = name.lower()
            if name == b"transfer-encoding":
                self._encodings += value.lower()
            self.headers.setdefault(name, value)

    def on_headers_complete(self) -> None:
        """Of llhttp."""
        status = self._parser.get_status_code()
        if self._complete or status < 200:
            return
        self.status = status
        self._headed = True
        headers = self.headers
        if b"content-length" not in headers:
            # llhttp decides what is chunked; where it might be, the connection's end is never the answer's
            self._to_the_end = b"chunked" not in self._encodings
        if headers.get(b"content-encoding", b"").lower() in _COMPRESSED:
            self._inflater = zlib.decompressobj(_GZIP_OR_ZLIB)
            self._packed = False

    def on_chunk_header(self) -> None:
        """Of llhttp."""
        self._in_chunk = True

    def on_chunk_complete(self) -> None:
        """Of llhttp."""
        self._in_chunk = self._inflater is not None  # what is compressed is never passed on as it is

    def on_body(self, data: bytes) -> None:
        """Of llhttp."""
        if self._complete:
            return
        if self._inflater is not None:
            self._packed = True
            data = self._inflater.decompress(data, _INFLATED_BYTES_MAX)
            if self._inflater.unconsumed_tail:
                raise ConnectionLostError(f"a piece of its answer has more than {_INFLATED_BYTES_MAX} bytes")
        if data:
            self._held += len(data)
            self._pieces.append(data)

    def on_message_complete(self) -> None:
        """Of llhttp; also of an answer that only announces another one."""
        if self._headed and not self._complete:
            self._check_inflated()
            self._complete = True
            self._keeps = self._parser.should_keep_alive()

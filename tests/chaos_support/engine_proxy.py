"""Stands between a worker and its engine, and makes a liar of the engine: generations go wrong, health is fine.

The engine's other paths are passed on as they are, so that a worker has no other sign than the generation itself.
"""

from __future__ import annotations

import asyncio
import enum
import random
from collections.abc import AsyncIterator

from chaos_support.in_thread import PIECE, InThread, either

GENERATES = {"/v1/chat/completions", "/v1/completions", "/completion", "/completions", "/api/chat", "/api/generate"}

_SAID = 3
"""Pieces of a stream that come before it goes wrong."""
_FOR_EVER_S = 3600.0


class Lie(enum.Enum):
    """What the engine does with a generation."""

    NONE = "none"
    ERROR_500 = "500"
    BUSY_429 = "429"
    MALFORMED_JSON = "malformed JSON"
    """Half an object: as the whole body, or in an event."""
    MALFORMED_SSE = "malformed SSE"
    """Bytes that are no event, and then the end."""
    TRUNCATED = "truncated"
    """It ends in the middle, cleanly."""
    CUT = "cut"
    """The connection is reset in the middle."""
    SILENT = "silent"
    """No byte at all."""
    SILENT_LATER = "silent later"
    """No byte after the first few."""
    ONE_A_MINUTE = "one a minute"


class EngineProxy(InThread):
    """In front of the engine on the port `target`."""

    def __init__(self, target: int, *, rng: random.Random) -> None:
        super().__init__()
        self.target = target
        self.lie = Lie.NONE
        self.lies = 0
        """Generations that went wrong."""
        self.share = 1.0
        """Of the generations."""
        self._rng = rng

    def set(self, lie: Lie, *, share: float = 1.0) -> None:
        def changed() -> None:
            self.lie, self.share = lie, share

        self.call(changed)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(int(_header(head, b"content-length") or 0))
        except asyncio.IncompleteReadError:
            return
        lie = self.lie
        path = head.split(b" ", 2)[1].split(b"?")[0].decode()
        if path not in GENERATES or self._rng.random() >= self.share:
            lie = Lie.NONE
        self.lies += lie is not Lie.NONE
        await either(self._answer(lie, head, body, writer), _gone(reader))

    async def _answer(self, lie: Lie, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        if lie is Lie.SILENT:
            await asyncio.sleep(_FOR_EVER_S)
        if lie in {Lie.ERROR_500, Lie.BUSY_429}:
            _refuse(lie, writer)
        else:
            lines = [line for line in head.split(b"\r\n")[:-2] if not line.lower().startswith(b"connection:")]
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target, limit=PIECE)
            try:
                far_writer.write(b"\r\n".join([*lines, b"connection: close", b"", b""]) + body)
                if not await self._pass_on(lie, far_reader, writer):
                    return
            finally:
                far_writer.transport.abort()
        await writer.drain()
        writer.close()

    async def _pass_on(self, lie: Lie, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """False when the connection is to be reset."""
        if lie is Lie.NONE:
            while data := await reader.read(PIECE):
                writer.write(data)
                await writer.drain()
            return True
        head = await reader.readuntil(b"\r\n\r\n")
        if _header(head, b"transfer-encoding") != b"chunked":
            return await _spoil_whole(lie, head, reader, writer)
        writer.write(head)
        said = 0
        async for chunk in _chunks(reader):
            if said >= _SAID:
                if lie is not Lie.ONE_A_MINUTE:
                    return await _spoil_stream(lie, chunk, writer)
                await asyncio.sleep(60)
            writer.write(_chunk(chunk))
            await writer.drain()
            said += 1
        writer.write(_chunk(b""))
        return True


def _refuse(lie: Lie, writer: asyncio.StreamWriter) -> None:
    status = b"500 Internal Server Error" if lie is Lie.ERROR_500 else b"429 Too Many Requests\r\nretry-after: 1"
    body = b'{"error":{"code":500,"message":"it broke","type":"server_error"}}'
    writer.write(
        b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
        % (status, len(body), body)
    )


async def _spoil_whole(lie: Lie, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    body = await reader.readexactly(int(_header(head, b"content-length") or 0))
    half = body[: len(body) // 2]
    if lie in {Lie.MALFORMED_JSON, Lie.MALFORMED_SSE}:
        head = head.replace(b"ontent-length: %d" % len(body), b"ontent-length: %d" % len(half))
        head = head.replace(b"ontent-Length: %d" % len(body), b"ontent-Length: %d" % len(half))
    writer.write(head + half)
    await writer.drain()
    if lie in {Lie.SILENT_LATER, Lie.ONE_A_MINUTE}:
        await asyncio.sleep(_FOR_EVER_S)
    return lie is not Lie.CUT


async def _spoil_stream(lie: Lie, chunk: bytes, writer: asyncio.StreamWriter) -> bool:
    if lie is Lie.MALFORMED_JSON:
        writer.write(_chunk(chunk[: len(chunk) // 2].rstrip(b"\n") + b"\n\n"))
    elif lie is Lie.MALFORMED_SSE:
        writer.write(_chunk(b"<html>Bad Gateway</html>\n\n"))
    await writer.drain()
    if lie is Lie.SILENT_LATER:
        await asyncio.sleep(_FOR_EVER_S)
    if lie is not Lie.CUT:
        writer.write(_chunk(b""))
    return lie is not Lie.CUT


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        yield (await reader.readexactly(size + 2))[:-2]


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def _gone(reader: asyncio.StreamReader) -> None:
    """Until the worker leaves."""
    while await reader.read(PIECE):
        pass


def _header(head: bytes, name: bytes) -> bytes:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip()
    return b""

"""Sending bytes to a server and reading what it makes of them, as answers of HTTP/1.1."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress


async def exchange(port: int, sent: bytes, *, eof: bool = False, host: str = "127.0.0.1") -> bytes:
    """Everything the server says until it closes the connection; the client never does."""
    reader, writer = await asyncio.open_connection(host, port)
    received = bytearray()
    try:
        writing = asyncio.ensure_future(_send(writer, sent, eof=eof))
        with suppress(ConnectionError):
            while piece := await reader.read(65536):
                received += piece
        writing.cancel()
        with suppress(asyncio.CancelledError, ConnectionError):
            await writing
    finally:
        writer.transport.abort()
    return bytes(received)


async def _send(writer: asyncio.StreamWriter, data: bytes, *, eof: bool) -> None:
    writer.write(data)
    await writer.drain()
    if eof:
        with suppress(OSError):  # the server may have closed the connection by now
            writer.write_eof()


def statuses(received: bytes) -> list[int]:
    """The status of each whole answer but 100s. Raises ValueError when anything else was said."""
    found: list[int] = []
    rest = received
    while rest:
        head, end, rest = rest.partition(b"\r\n\r\n")
        start = re.match(rb"HTTP/1\.1 (\d\d\d) [ -~]*\r\n", head + b"\r\n")
        if not end or start is None:
            raise ValueError(f"not an answer: {head[:200]!r}")
        status = int(start.group(1))
        if status == 100:
            continue
        found.append(status)
        rest = _behind_body(head.lower(), rest)
    return found


def _behind_body(head: bytes, rest: bytes) -> bytes:
    length = re.search(rb"\r\ncontent-length: (\d+)", head)
    if length is not None:
        size = int(length.group(1))
        if len(rest) < size:
            raise ValueError(f"an answer is cut: {head!r} {rest!r}")
        return rest[size:]
    if b"\r\ntransfer-encoding: chunked" not in head:
        raise ValueError(f"an answer without a length: {head!r}")
    while True:
        size_line, _, rest = rest.partition(b"\r\n")
        size = int(size_line, 16)
        if rest[size : size + 2] != b"\r\n":
            raise ValueError("a chunk is cut")
        rest = rest[size + 2 :]
        if size == 0:
            return rest

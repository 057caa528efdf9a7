"""The head of an answer as bytes: each header's line made once it is known to be one line (RFC 9112, section 5)."""

from __future__ import annotations

import http
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from starlette.types import Message

LINES = "neurogate.lines"
"""A key of `http.response.start`: the head's lines, made already, in place of `headers`. Nobody looks at them again,
and the body's first piece is sent right behind them."""
LENGTH = "neurogate.length"
"""Beside it: the body's length, which the lines tell as well; None where it is not known."""

_BAD_NAME = re.compile(rb'[\x00-\x20\x7f()<>@,;:\[\]={}\\"]')
_CONTROLS = bytes({*range(0x20), 0x7F} - {0x09})
_status_lines = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in http.HTTPStatus
}


def status_line(status: int) -> bytes:
    """The answer's first line."""
    return _status_lines.get(status) or b"HTTP/1.1 %d \r\n" % status


def lines_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A line for each header. Raises RuntimeError for a name or a value that is none."""
    parts: list[bytes] = []
    for name, value in headers:
        parts += (_prefix(name), value, b"\r\n")
    lines = b"".join(parts)
    if len(lines.translate(None, _CONTROLS)) != len(lines) - 2 * len(parts) // 3:
        raise RuntimeError("Invalid HTTP header value.")
    return lines


def encode_headers(headers: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, int | None, bool]:
    """The lines, the length of the body where one is given, and whether the connection is to be closed.

    Raises RuntimeError as `lines_of` does. Transfer-Encoding is the listener's own business, and left out.
    """
    length: int | None = None
    closes = False
    kept: list[tuple[bytes, bytes]] = []
    for header in headers:
        name = header[0].lower()
        if name == b"transfer-encoding":
            continue
        if name == b"content-length":
            length = int(header[1])
        elif name == b"connection":
            closes = closes or b"close" in header[1].lower().replace(b" ", b"").split(b",")
        kept.append(header)
    return lines_of(kept), length, closes


def with_headers(start: Message, more: Sequence[tuple[bytes, bytes]]) -> Message:
    """A `http.response.start` with more headers."""
    if LINES in start:
        return {**start, LINES: start[LINES] + lines_of(more)}
    return {**start, "headers": [*start.get("headers", ()), *more]}


@lru_cache(maxsize=1024)
def _prefix(name: bytes) -> bytes:
    if not name or _BAD_NAME.search(name):
        raise RuntimeError("Invalid HTTP header name.")
    return name.lower() + b": "

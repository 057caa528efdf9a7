"""A request's body that comes in pieces, or not at all: the rare part of `intake`, which has a timer and waits.

It is a module of its own so that the rest can be compiled (ADR 0030).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import Message, Receive

from neurogate.errors import BodyTimeoutError, TooLargeError


class ClientGoneError(Exception):
    """The client left before its request was whole."""


async def arrived(
    arriving: Awaitable[Message], receive: Receive, limit: int, timeout_s: float, take: Callable[[int], None]
) -> bytes:
    """The whole body, of which `arriving` is the next piece. Raises what `intake.read_body` says."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _gather(arriving, receive, limit, take)
    except TimeoutError as error:
        raise BodyTimeoutError(f"the body did not arrive within {timeout_s:g} s") from error


def too_large(limit: int) -> TooLargeError:
    """What a client is told whose body is, or would be, larger than so many bytes."""
    return TooLargeError(f"the body is larger than {limit} bytes; send less, or raise NEUROGATE_MAX_BODY_BYTES")


async def _gather(arriving: Awaitable[Message], receive: Receive, limit: int, take: Callable[[int], None]) -> bytes:
    body = bytearray()
    while True:
        message = await arriving
        if message["type"] != "http.request":
            raise ClientGoneError
        piece = message.get("body", b"")
        take(len(piece))
        body += piece
        if len(body) > limit:
            raise too_large(limit)
        if not message.get("more_body"):
            return bytes(body)
        arriving = receive()

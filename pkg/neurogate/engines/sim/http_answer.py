"""Serves answers over HTTP, and owns each for as long as it is sent.

The one idea: the answer's context is open in the very coroutine that sends its bytes, next to a watcher of the
connection, so a client that goes away frees its slot at once. (Starlette's StreamingResponse leaves a generator's
`finally` to the garbage collector.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Receive, Scope, Send

from neurogate.engines.engine import EngineBrokenError, EngineReply, EngineUnavailableError
from neurogate.engines.sim.core import SimRefusedError
from neurogate.engines.sim.reply import JSON_TYPE

BODY_BYTES_MAX = 64 << 20

Answering = Callable[[bytes], AbstractAsyncContextManager[EngineReply]]
"""From a request's body to its reply."""


class _ClientGoneError(Exception):
    """The client closed the connection."""


class AnswerEndpoint:
    """An ASGI app for one path that gives answers.

    `refusal` writes this API's error body. An answer that breaks off at the transport level closes the connection.
    """

    def __init__(self, answering: Answering, refusal: Callable[[SimRefusedError], bytes]) -> None:
        self._answering = answering
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and stop at once when its client goes."""
        del scope
        try:
            body = await read_body(receive)
        except SimRefusedError as error:
            await _send_whole(send, error.status, self._refusal(error))
            return
        except _ClientGoneError:
            return
        try:
            async with asyncio.TaskGroup() as group:
                watcher = group.create_task(_raise_when_gone(receive))
                await self._answer(body, send)
                watcher.cancel()
        except* _ClientGoneError:
            pass

    async def _answer(self, body: bytes, send: Send) -> None:
        try:
            async with self._answering(body) as reply:
                if reply.content_type == JSON_TYPE:
                    await _send_json(send, reply)
                else:
                    await _send_stream(send, reply)
        except EngineUnavailableError as error:
            refused = SimRefusedError(503, str(error), code="unavailable")
            await _send_whole(send, refused.status, self._refusal(refused))


class JsonEndpoint:
    """An ASGI app for one path that answers at once, from the body and the query, with JSON or a refusal."""

    def __init__(
        self, answer: Callable[[bytes, Mapping[str, str]], object], refusal: Callable[[SimRefusedError], bytes]
    ) -> None:
        self._answer = answer
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        try:
            status, body = 200, msgspec.json.encode(self._answer(await read_body(receive), query))
        except SimRefusedError as error:
            status, body = error.status, self._refusal(error)
        except _ClientGoneError:
            return
        await _send_whole(send, status, body)


async def read_body(receive: Receive) -> bytes:
    """A request's whole body.

    Raises SimRefusedError (413) for one that is too large, and _ClientGoneError.
    """
    parts = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientGoneError
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > BODY_BYTES_MAX:
            raise SimRefusedError(413, f"the body is over {BODY_BYTES_MAX} bytes", code="request_too_large")
        if not message.get("more_body", False):
            return b"".join(parts)


async def _raise_when_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    raise _ClientGoneError


async def _send_json(send: Send, reply: EngineReply) -> None:
    body = b""
    try:
        async for chunk in reply.body:
            body += chunk
    except EngineBrokenError:
        # Returning before the announced length makes the server close the connection, which is what the client of an
        # engine that died sees.
        await _start(send, reply.status, JSON_TYPE, (b"content-length", b"%d" % (len(body) + 1)))
        await send({"type": "http.response.body", "body": body, "more_body": True})
        return
    await _send_whole(send, reply.status, body, reply.retry_after_s)


async def _send_stream(send: Send, reply: EngineReply) -> None:
    await _start(send, reply.status, reply.content_type, (b"cache-control", b"no-cache"))
    with suppress(EngineBrokenError):
        async for chunk in reply.body:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_whole(send: Send, status: int, body: bytes, retry_after_s: float | None = None) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    if retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % round(retry_after_s)))
    await _start(send, status, JSON_TYPE, *headers)
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _start(send: Send, status: int, content_type: str, *headers: tuple[bytes, bytes]) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", content_type.encode()), *headers],
        }
    )

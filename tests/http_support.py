"""A listener with an app that says what it was asked, for tests of the listener."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from neurogate.httpd import HttpLimits, HttpServer


class Listening:
    """A listener under test, and what it did."""

    def __init__(self, app: ASGIApp, limits: dict[str, Any], context: ssl.SSLContext | None) -> None:
        self.refused: list[int] = []
        self.server = HttpServer(
            app,
            name="TEST_PORT",
            host="127.0.0.1",
            port=0,
            limits=HttpLimits(**limits),
            ssl=context,
            on_refused=self.refused.append,
        )
        self.port = 0


@asynccontextmanager
async def listening(app: ASGIApp, *, context: ssl.SSLContext | None = None, **limits: Any) -> AsyncIterator[Listening]:
    """A listener; afterwards it has no connection and no task."""
    made = Listening(app, limits, context)
    async with asyncio.TaskGroup() as tasks:
        made.port = await made.server.start(tasks)
        try:
            yield made
        finally:
            await made.server.stop(1)
    assert made.server.connections == 0


async def read_all(receive: Receive) -> bytes | None:
    """The whole body; None when its client left before it was whole."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message["body"]
        if not message["more_body"]:
            return body


async def answer(send: Send, body: bytes, *, status: int = 200) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Echo:
    """Answers with what it was asked, as JSON; `before` runs between reading and answering."""

    def __init__(self, before: Callable[[Scope], Awaitable[None]] | None = None) -> None:
        self.before = before
        self.left = 0
        """Requests whose client left, or whose body never became whole."""
        self.paths: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.paths.append(scope["path"])
        body = await read_all(receive)
        if body is None:
            self.left += 1
            return
        if self.before is not None:
            await self.before(scope)
        said = {
            "method": scope["method"],
            "path": scope["path"],
            "query": scope["query_string"].decode(),
            "scheme": scope["scheme"],
            "headers": [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]],
            "body": body.decode("latin-1"),
        }
        await answer(send, json.dumps(said).encode())


def bodies_of(received: bytes) -> list[Any]:
    """The JSON bodies of answers with a Content-Length."""
    found = []
    rest = received
    while rest:
        head, _, rest = rest.partition(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 100"):
            continue
        size = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        found.append(json.loads(rest[:size]) if size else None)
        rest = rest[size:]
    return found


def request(target: str = "/", *lines: str, method: str = "GET", body: bytes = b"", version: str = "1.1") -> bytes:
    """A request with a Host, and a Content-Length when it has a body."""
    length = [f"Content-Length: {len(body)}"] if body else []
    head = [f"{method} {target} HTTP/{version}", "Host: x", *lines, *length]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body

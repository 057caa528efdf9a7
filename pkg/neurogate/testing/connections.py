"""A client's side of one HTTP request, without a socket: what an ASGI app receives and where it sends.

The one idea: a client is driven step by step. It sends its body in pieces, stops reading, reads on, or leaves, each
when the test says so, and what the app sent to it is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message, Scope

from neurogate.httpd.answer_head import LINES


class FakeConnection:
    """A `neurogate.httpd.Connection`."""

    def __init__(self) -> None:
        self.aborted = False
        self.lost = False
        self._callback: Callable[[], None] | None = None

    @property
    def watched(self) -> bool:
        """Whether somebody wants to hear when it is lost."""
        return self._callback is not None

    def on_lost(self, callback: Callable[[], None] | None) -> None:
        """Call back when it is lost; at once when it is already."""
        self._callback = callback
        if callback is not None and self.lost:
            callback()

    def abort(self) -> None:
        """Cut it."""
        self.aborted = True
        self.lose()

    def lose(self) -> None:
        """The client goes."""
        self.lost = True
        if self._callback is not None:
            self._callback()


class FakeClient:
    """One request and its client. `scope`, `receive` and `send` are what an app is called with."""

    def __init__(
        self,
        path: str = "/",
        body: bytes | Iterable[bytes] = b"",
        *,
        method: str = "POST",
        headers: Iterable[tuple[str, str]] = (),
        whole: bool = True,
    ) -> None:
        self.connection = FakeConnection()
        self.status = 0
        self.headers: dict[str, str] = {}
        self.chunks: list[bytes] = []
        self.complete = False
        """The app sent its last message."""
        self.receives = 0
        """How often the app asked for more of the request."""
        self.send_error: Exception | None = None
        """What the next `send` raises."""
        self._reading = asyncio.Event()
        self._reading.set()
        self._arrived: asyncio.Queue[Message] = asyncio.Queue()
        pieces = [body] if isinstance(body, bytes) else list(body)
        for piece in pieces[:-1]:
            self.say(piece)
        self.say(pieces[-1] if pieces else b"", more=not whole)
        self.scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 80),
            "extensions": {"neurogate.connection": self.connection},
        }

    @property
    def body(self) -> bytes:
        """What arrived of the answer's body."""
        return b"".join(self.chunks)

    def json(self) -> Any:
        """The answer's body, decoded."""
        return msgspec.json.decode(self.body)

    def say(self, piece: bytes, *, more: bool = True) -> None:
        """Send a piece of the request's body."""
        self._arrived.put_nowait({"type": "http.request", "body": piece, "more_body": more})

    def leave(self) -> None:
        """Close the connection."""
        self._arrived.put_nowait({"type": "http.disconnect"})
        self._reading.set()
        self.connection.lose()

    def stop_reading(self) -> None:
        """From here every `send` waits."""
        self._reading.clear()

    def read_on(self) -> None:
        """Take what waits, and what comes."""
        self._reading.set()

    async def receive(self) -> Message:
        """ASGI's `receive`."""
        self.receives += 1
        return await self._arrived.get()

    async def send(self, message: Message) -> None:
        """ASGI's `send`."""
        if self.send_error is not None:
            raise self.send_error
        if not self._reading.is_set():
            await self._reading.wait()
        if self.connection.lost:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = _headers_of(message)
            return
        if not self.status:
            raise RuntimeError("a body came before its head")
        if self.complete:
            raise RuntimeError("a message came after the last one")
        self.chunks.append(message.get("body", b""))
        self.complete = not message.get("more_body", False)

    async def ask(self, app: ASGIApp) -> FakeClient:
        """Have an app answer, and return itself."""
        await app(self.scope, self.receive, self.send)
        return self

    def __repr__(self) -> str:
        state = "lost" if self.connection.lost else "complete" if self.complete else "open"
        return f"<FakeClient {self.scope['method']} {self.scope['path']} {self.status or '-'} {state}>"


def _headers_of(message: Message) -> dict[str, str]:
    if LINES in message:
        lines = message[LINES].decode("latin-1").split("\r\n")[:-1]
        return {name: value for name, _, value in (line.partition(": ") for line in lines)}
    return {name.decode(): value.decode("latin-1") for name, value in message["headers"]}

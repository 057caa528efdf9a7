"""One request and its answer, between an ASGI app and the bytes of a connection.

`receive` and `send` are functions that give something to await, which is nearly always one of those that are over at
once (`at_once.py`). Whoever finds the cycle of its `send` can say a whole answer, or a piece, without a message for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from starlette.types import ASGIApp, Message, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl

from neurogate.httpd.answer_head import LENGTH, LINES, encode_headers, status_line
from neurogate.httpd.at_once import DONE, Ready
from neurogate.httpd.commons import Commons
from neurogate.httpd.transport import AnswerTransport

_log = structlog.get_logger("neurogate.httpd")

_DISCONNECT = {"type": "http.disconnect"}
_BODILESS = frozenset({204, 304})
_LAST_CHUNK = b"0\r\n\r\n"
_CHUNKS = (b"%b", *(b"%x\r\n%%b\r\n" % size for size in range(1, 1024)))
"""A chunk around a piece of so many bytes: to look it up and fill it in costs two thirds of writing its length."""


def _nobody() -> None:
    """Who hears of the answer of a request that is over."""


class RequestCycle:
    """What the app is called with, and what its connection asks of it."""

    __slots__ = (
        "_closes",
        "_commons",
        "_event",
        "_expects_continue",
        "_flow",
        "_left",
        "_news",
        "_on_answered",
        "_transport",
        "_write_piece",
        "body",
        "chunked",
        "disconnected",
        "keep_alive",
        "more_body",
        "response_complete",
        "response_started",
        "scope",
    )

    def __init__(
        self,
        scope: Scope,
        transport: AnswerTransport,
        flow: FlowControl,
        commons: Commons,
        *,
        keep_alive: bool,
        expects_continue: bool,
        on_answered: Callable[[], None],
    ) -> None:
        """`on_answered` is called when the whole answer is written."""
        self.scope = scope
        self._transport = transport
        self._flow = flow
        self._commons = commons
        self._closes = commons.closes
        """The listener was closing when the request began: later ones say so, and requests behind this are served."""
        self._on_answered = on_answered
        self._expects_continue = expects_continue
        self.keep_alive = keep_alive
        """Another request may follow."""
        self.disconnected = False
        """The client is gone: the app is told, and what it sends is dropped."""
        self.body: bytes | bytearray = b""
        """What came of the request's body and was not received yet."""
        self.more_body = True
        self.response_started = False
        self.response_complete = False
        self.chunked = False
        """The answer's length is not known."""
        self._left = 0
        """Bytes of the answer's body that are still to come, where its length is known."""
        self._write_piece: Callable[[bytes], object] | None = None
        """Takes chunks of the body: between the first piece of an answer whose length is not known and its end."""
        self._news = False
        """Something happened that the app was not told yet."""
        self._event: asyncio.Event | None = None
        """Exists when somebody ever had to wait."""

    async def run(self, app: ASGIApp) -> None:
        """Let the app answer. Raises nothing: the log hears of an app that fails, and its client is not left alone."""
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException:  # noqa: BLE001 - the end of whatever the app did, its cancellation included
            _log.error("Exception in ASGI application", exc_info=True)
            self.failed()
        else:
            self.returned()
        finally:
            self._on_answered = _nobody

    def returned(self) -> None:
        """The app has no more to say."""
        if self.disconnected or self.response_complete:
            return
        _log.error(f"ASGI callable returned without {'completing' if self.response_started else 'starting'} response.")
        self.failed()

    def failed(self) -> None:
        """The app will say no more: 500, or a cut when the answer has begun."""
        if self.response_started:
            self._transport.close()
            return
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"21"),
            (b"connection", b"close"),
        ]
        self._write({"type": "http.response.start", "status": 500, "headers": headers})
        self._write({"type": "http.response.body", "body": b"Internal Server Error"})

    def take(self, piece: bytes) -> None:
        """Keep a piece of the request's body until the app receives it."""
        if not self.body:
            self.body = piece
        else:
            if isinstance(self.body, bytes):  # nearly all bodies are one piece, which is not copied
                self.body = bytearray(self.body)
            self.body += piece
        self.wake()

    def wake(self) -> None:
        """Something came of the request, or its client left, or it has its answer: tell who waits for that."""
        self._news = True
        if self._event is not None:
            self._event.set()

    def receive(self) -> Awaitable[Message]:
        """ASGI's `receive`."""
        if self._expects_continue and not self._transport.is_closing():
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._expects_continue = False
        if self.disconnected or self.response_complete:
            return Ready(_DISCONNECT)
        self._flow.resume_reading()
        if self._news:
            return Ready(self._next_message())
        return self._receive_later()

    def send(self, message: Message) -> Awaitable[None]:
        """ASGI's `send`. Raises RuntimeError for what is no answer."""
        if self._flow.write_paused and not self.disconnected:
            return self._send_later(message)
        self._write(message)
        return DONE

    def answer(self, status: int, lines: bytes, body: bytes) -> bool:
        """Write a whole answer as `send` would: its head's lines, of which nobody looks at any again, and its body.

        False where nothing was done, and `send` must say it: behind a head, to a client that has enough or is gone, and
        to one that asked for the head alone.
        """
        if self.response_started or self.disconnected or self._flow.write_paused or self.scope["method"] == "HEAD":
            return False
        closing = b""
        if self._closes or not self.keep_alive:
            self.keep_alive = False
            closing = b"connection: close\r\n"
        self.response_started = True
        self._expects_continue = False
        self._transport.write(b"%b%b%b%b\r\n%b" % (status_line(status), self._commons.lines, lines, closing, body))
        self._complete()
        return True

    def piece(self, data: bytes) -> int:
        """Write a piece of the body as `send` would, and tell its size; 0 where nothing was done, and `send` must say.

        That is before the first piece and behind the last one, while the client has enough, and when it is gone.
        """
        write = self._write_piece
        if write is None or self.disconnected or self._flow.write_paused:
            return 0
        size = len(data)
        write(_CHUNKS[size] % data if size < 1024 else b"%x\r\n%b\r\n" % (size, data))
        return size

    async def _receive_later(self) -> Message:
        if self._event is None:
            self._event = asyncio.Event()
        await self._event.wait()
        self._event.clear()
        return self._next_message()

    def _next_message(self) -> Message:
        self._news = False
        if self.disconnected or self.response_complete:
            return _DISCONNECT
        body, self.body = self.body, b""
        return {"type": "http.request", "body": bytes(body), "more_body": self.more_body}

    async def _send_later(self, message: Message) -> None:
        await self._flow.drain()
        self._write(message)
        self._transport.flush()  # what follows a head may wait for this

    def _write(self, message: Message) -> None:
        if self.disconnected:
            return
        kind = message["type"]
        if not self.response_started:
            if kind != "http.response.start":
                raise RuntimeError(f"an answer begins with its head, not with {kind!r}")
            self._write_head(message)
        elif self.response_complete:
            raise RuntimeError(f"{kind!r} came after the answer's end")
        elif kind != "http.response.body":
            raise RuntimeError(f"{kind!r} came in place of the answer's body")
        else:
            self._write_body(message.get("body", b""), more=message.get("more_body", False))

    def _write_head(self, message: Message) -> None:
        status = message["status"]
        made = message.get(LINES)
        if made is None:
            lines, length, closes = encode_headers(message.get("headers", ()))
        else:
            lines, length, closes = made, message[LENGTH], False
        self.response_started = True
        self._expects_continue = False
        closing = b""
        if closes or self._closes or not self.keep_alive:
            self.keep_alive = False
            closing = b"" if closes else b"connection: close\r\n"
        framing = b""
        if length is not None:
            self._left = length
        elif self.scope["method"] != "HEAD" and status not in _BODILESS:
            self.chunked = True
            framing = b"transfer-encoding: chunked\r\n"
        head = b"%b%b%b%b%b\r\n" % (status_line(status), self._commons.lines, lines, closing, framing)
        self._transport.hold(head, follows=made is not None)

    def _write_body(self, body: bytes, *, more: bool) -> None:
        if self.chunked:
            if body:
                self._transport.write(b"%x\r\n%b\r\n%b" % (len(body), body, b"" if more else _LAST_CHUNK))
                if more and self._write_piece is None:
                    self._write_piece = self._transport.write_behind
            elif not more:
                self._transport.write(_LAST_CHUNK)
            else:
                self._transport.flush()  # nothing follows the head yet
        elif self.scope["method"] == "HEAD":
            self._left = 0
        else:
            self._left -= len(body)
            if self._left < 0:
                raise RuntimeError("the answer is longer than its Content-Length")
            self._transport.write(body)
        if not more:
            if self._left:
                raise RuntimeError("the answer is shorter than its Content-Length")
            self._complete()

    def _complete(self) -> None:
        self.response_complete = True
        self._write_piece = None
        self.wake()
        if not self.keep_alive:
            self._transport.close()
        self._on_answered()


def cycle_of(send: Send) -> RequestCycle | None:
    """The cycle whose own this `send` is; None of any other, as where somebody stands in between."""
    cycle = getattr(send, "__self__", None)
    return cycle if isinstance(cycle, RequestCycle) else None

"""One answer on its way to one client.

Receives what an exchange has to say and writes it with the server's `send`, at once, in the link's own step. A client
that reads too slowly makes `send` wait: what comes meanwhile is held up to a bound, and past it this one request is
cancelled, so that nobody else's tokens wait. Whatever happens, `run` returns with the exchange finished.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import structlog
from starlette.types import Message, Scope, Send

from neurogate.channel import Call, End
from neurogate.dataplane.dispatch import Dispatcher
from neurogate.dataplane.exchange import Exchange
from neurogate.dataplane.journal import Journal
from neurogate.edge.admission import Ticket
from neurogate.errors import EngineFailedError, GatewayError
from neurogate.gateway.dialects import Dialect
from neurogate.gateway.dialects.dialect import EVENT_STREAM, JSON, refused, told
from neurogate.gateway.explain import Explanation
from neurogate.gateway.metrics import GatewayMetrics
from neurogate.gateway.pending import Pending
from neurogate.gateway.refusal_head import error_headers, retry_after
from neurogate.httpd import Connection
from neurogate.httpd.answer_head import LENGTH, LINES, lines_of
from neurogate.httpd.at_once import DONE
from neurogate.httpd.cycle import cycle_of
from neurogate.inference import Usage
from neurogate.telemetry.concern import about

_log = structlog.get_logger("neurogate.gateway")

CLIENT_GONE = 499
"""Status in metrics of a request whose client left, or was too slow."""

_LAST = {"type": "http.response.body", "body": b"", "more_body": False}
_STREAM_LINES = b"cache-control: no-store\r\nx-accel-buffering: no\r\n"


@dataclass(frozen=True, slots=True)
class ResponseLimits:
    """Bounds of every response."""

    stream_buffer_bytes: int
    """Bytes held for a slow client."""
    flush_timeout_s: float
    """Seconds a client may take to read what is left once its answer has ended."""


class ClientResponse:
    """The receiver of one exchange."""

    __slots__ = (
        "_backlog",
        "_backlog_bytes",
        "_began_at",
        "_blocked",
        "_comment_timer",
        "_connection",
        "_dialect",
        "_done",
        "_exchange",
        "_extra",
        "_flush_timer",
        "_limits",
        "_loop",
        "_metrics",
        "_path",
        "_piece",
        "_request_id",
        "_send",
        "_short",
        "_started",
        "_traceparent",
        "attempts",
        "broken",
        "bytes_sent",
        "chunks",
        "explanation",
        "first_byte_at",
        "problem",
        "status",
        "usage",
        "worker_id",
    )

    def __init__(
        self,
        scope: Scope,
        send: Send,
        *,
        dialect: Dialect,
        request_id: str,
        limits: ResponseLimits,
        metrics: GatewayMetrics,
        loop: asyncio.AbstractEventLoop,
        began_at: float,
        extra: bytes = b"",
        traceparent: str = "",
    ) -> None:
        """`extra` are further lines of its head; `traceparent` is what log lines name its trace by."""
        self._connection: Connection = scope["extensions"]["neurogate.connection"]
        self._send = send
        self._short: Callable[[bytes], int] | None = None
        """Of a stream: the listener's short way for a piece, where there is one."""
        self._piece: Callable[[bytes], int] | None = None
        """The same, while the next piece may take it: nothing waits before it, and the client is there."""
        self._dialect = dialect
        self._request_id = request_id
        self._traceparent = traceparent
        self._path: str = scope["path"]
        self._limits = limits
        self._metrics = metrics
        self._loop = loop
        self._began_at = began_at
        self._done: asyncio.Future[None] = loop.create_future()
        self._exchange: Exchange | None = None
        self._started = False
        self._blocked: Pending | None = None
        self._backlog: list[Message] = []
        self._backlog_bytes = 0
        self._flush_timer: asyncio.TimerHandle | None = None
        self._comment_timer: asyncio.TimerHandle | None = None
        self._extra = extra
        self.status = CLIENT_GONE
        self.chunks = 0
        """Pieces of a streamed answer, about one a token, once `run` has returned."""
        self.bytes_sent = 0
        """Of its body."""
        self.broken = False
        """Its last word was an error, after its first byte."""
        self.first_byte_at: float | None = None
        """Loop time of the first byte of a streamed answer."""
        self.usage: Usage | None = None
        """What the engine counted, once `run` has returned; None when it was not heard of."""
        self.worker_id = ""
        self.attempts = 0
        self.explanation: Explanation | None = None
        """Why it went where it went, for a client that wants to know."""
        self.problem = ""
        """The code of the error that was its last word."""

    @property
    def exchange(self) -> Exchange | None:
        """What it answers, while it goes on."""
        return self._exchange

    async def run(self, dispatcher: Dispatcher, call: Call, journal: Journal | None = None) -> None:
        """Dispatch the call and write its answer; returns when the client has it all, or is gone."""
        self._exchange = exchange = dispatcher.dispatch(call, self, journal)
        try:
            if not self._done.done():
                self._connection.on_lost(self._left)
                await self._done
        finally:
            exchange.cancel()
            self._let_go()
            self.usage, self.worker_id, self.attempts = exchange.usage, exchange.worker_id, exchange.attempts
            self.chunks = exchange.chunks
            # The exchange and the coroutine refer back to this response: without a cycle it is freed here and now.
            self._exchange = None

    async def wait(self, ticket: Ticket, *, comment_every_s: float = 0) -> bool:
        """Wait for the request's turn; False when there is nothing more to do: the client left, or was told why not.

        A streamed answer begins after `comment_every_s` and gets its place in the queue so often; 0 keeps silent.
        """
        come = sent_away = False
        try:
            try:
                come = await self._turn(ticket, comment_every_s)
            except GatewayError as error:
                sent_away = True
                self.on_error(error)
            if sent_away:
                self._connection.on_lost(self._left)
                await self._done
            elif not come:
                self.status = CLIENT_GONE
        finally:
            if not come:
                self._let_go()
        return come

    async def _turn(self, ticket: Ticket, comment_every_s: float) -> bool:
        self._connection.on_lost(ticket.leave)
        if comment_every_s > 0:
            self._comment_later(ticket, comment_every_s)
        try:
            return await ticket.turn()
        finally:
            self._connection.on_lost(None)
            if self._comment_timer is not None:
                self._comment_timer.cancel()

    def on_chunk(self, data: bytes) -> None:
        """Write a piece of a streamed answer."""
        piece = self._piece
        if piece is not None:
            try:
                size = piece(data)
            except Exception as error:  # noqa: BLE001 - as in `_put`
                self._leave(f"sending failed: {error}")
                return
            if size:
                self.bytes_sent += size
                return
        if self.first_byte_at is None:
            self._first_chunk()
        self.bytes_sent += len(data)
        self._put({"type": "http.response.body", "body": data, "more_body": True})
        self._piece = self._short if self._blocked is None and not self._done.done() else None

    def on_resume(self) -> None:
        """Say that another worker continues the stream, where the form of the answer has a place for that."""
        if self._dialect.stream_type == EVENT_STREAM and self._exchange is not None:
            note = b": continued by another worker, attempt %d\n\n" % self._exchange.attempts
            self.bytes_sent += len(note)
            self._put({"type": "http.response.body", "body": note, "more_body": True})

    def on_complete(self) -> None:
        """Write the end of a streamed answer."""
        if self.first_byte_at is None:
            self._first_chunk()
        self._put(_LAST)
        self._ended()

    def on_answer(self, end: End, body: bytes) -> None:
        """Write a whole answer."""
        if self._started:  # with comments, while it waited for its turn
            self.on_error(refused(end, told(end, body)))
            return
        latency_ms = round((self._loop.time() - self._began_at) * 1000)
        exchange = self._exchange
        try:
            answer = self._dialect.answer(
                end, body, worker_id=exchange.worker_id if exchange else "", latency_ms=latency_ms
            )
        except ValueError as error:
            with about(self._request_id, self._traceparent):
                _log.warning("answer not understood", request_id=self._request_id, error=str(error))
            self.on_error(EngineFailedError("the worker's answer was not what this API gives; see the gateway's log"))
            return
        self.bytes_sent = len(answer.body)
        again = b"" if end.retry_after_s is None else lines_of([retry_after(end.retry_after_s)])
        self._say(answer.status, answer.content_type, again, answer.body)
        self._ended()

    def on_error(self, error: GatewayError) -> None:
        """Write an error: as the answer, or, when that has begun, as the event that ends it."""
        self.problem = error.code
        if self._started:
            self.broken = True
            self._metrics.broken_stream()
            event = self._dialect.error_event(error, self._request_id)
            self.bytes_sent += len(event)
            self._put({"type": "http.response.body", "body": event, "more_body": False})
        else:
            body = self._dialect.error(error, self._request_id)
            self.bytes_sent = len(body)
            again = lines_of(error_headers(error))
            self._say(error.status, JSON, again, body)
        self._metrics.turned_away(error)
        level = _log.warning if error.status >= 500 else _log.info
        with about(self._request_id, self._traceparent):
            level(
                "request failed",
                request_id=self._request_id,
                status=error.status,
                code=error.code,
                error=error.message,
                started=self.status == 200,
            )
        self._ended()

    def _first_chunk(self) -> None:
        self.first_byte_at = self._loop.time()
        self._metrics.first_byte(self._path, self.first_byte_at - self._began_at)
        if not self._started:
            self._start_stream()

    def _start_stream(self) -> None:
        cycle = cycle_of(self._send)
        if cycle is not None:
            self._short = cycle.piece
        lines = self._head(200, self._dialect.stream_type, _STREAM_LINES)
        self._put({"type": "http.response.start", "status": 200, LINES: lines, LENGTH: None})

    def _own_lines(self) -> bytes:
        """Which request this answers, who did, and what else there is to know of it."""
        request_id = self._request_id.encode()
        lines = b"x-request-id: %b\r\n%b" % (request_id, self._extra)
        if self._dialect.id_header:
            lines += b"%b: %b\r\n" % (self._dialect.id_header, request_id)
        exchange = self._exchange
        if exchange is not None and exchange.attempts:
            lines += b"%bx-neurogate-attempts: %d\r\n" % (_worker_line(exchange.worker_id), exchange.attempts)
        if self.explanation is not None and (picks := self.explanation.short()):  # none while it waits for its turn
            lines += lines_of([(b"x-neurogate-explain", picks)])
        return lines

    def _head(self, status: int, content_type: bytes, lines: bytes) -> bytes:
        """The head's lines; empty when the client is given up because there can be none."""
        self._started = True
        self.status = status
        try:
            return b"%b%b%b" % (_type_line(content_type), lines, self._own_lines())
        except RuntimeError as error:  # the engine's type, or what a worker is called, is not one line
            self._leave(f"sending failed: {error}")
            return b""

    def _say(self, status: int, content_type: bytes, lines: bytes, body: bytes) -> None:
        """Write a whole answer."""
        lines = b"content-length: %d\r\n%b" % (len(body), self._head(status, content_type, lines))
        cycle = cycle_of(self._send)
        if cycle is not None and not self._done.done():
            try:
                if cycle.answer(status, lines, body):
                    return
            except Exception as error:  # noqa: BLE001 - as in `_put`
                self._leave(f"sending failed: {error}")
                return
        self._put({"type": "http.response.start", "status": status, LINES: lines, LENGTH: len(body)})
        self._put({"type": "http.response.body", "body": body, "more_body": False})

    def _put(self, message: Message) -> None:
        """Send a message now; behind a `send` that waits, hold it."""
        if self._done.done():  # given up; the exchange hears of it when `run` goes on
            return
        if self._blocked is not None:
            self._hold(message)
            return
        try:
            coroutine = self._send(message)
            if coroutine is DONE:
                return
            waits_for = coroutine.send(None)  # type: ignore[attr-defined]
        except StopIteration:
            return
        except Exception as error:  # noqa: BLE001 - a sink must not raise: the link carries others' tokens too
            self._leave(f"sending failed: {error}")
            return
        self._piece = None
        self._blocked = Pending(
            coroutine,  # type: ignore[arg-type]
            waits_for,
            on_result=self._unblocked,
            on_error=lambda error: self._leave(f"sending failed: {error}"),
        )

    def _hold(self, message: Message) -> None:
        self._backlog.append(message)
        self._backlog_bytes += len(message.get("body", b""))
        if self._backlog_bytes > self._limits.stream_buffer_bytes:
            self._metrics.slow_client()
            self._leave("slow_client")

    def _unblocked(self, _: object) -> None:
        self._blocked = None
        backlog, self._backlog, self._backlog_bytes = self._backlog, [], 0
        for message in backlog:
            self._put(message)
        self._settle()

    def _ended(self) -> None:
        """The answer's last message is on its way."""
        if self._blocked is not None:
            self._flush_timer = self._loop.call_later(self._limits.flush_timeout_s, lambda: self._leave("slow_client"))
        self._settle()

    def _comment_later(self, ticket: Ticket, every_s: float) -> None:
        def comment() -> None:
            if not self._started:
                self._start_stream()
            if self._blocked is None:  # a client that does not read gets no more of them
                note = b": waiting for a turn, %d before this one\n\n" % (ticket.position - 1)
                self.bytes_sent += len(note)
                self._put({"type": "http.response.body", "body": note, "more_body": True})
            self._comment_later(ticket, every_s)

        self._comment_timer = self._loop.call_later(every_s, comment)

    def _settle(self) -> None:
        if self._blocked is None and (self._exchange is None or self._exchange.finished) and not self._done.done():
            self._done.set_result(None)

    def _leave(self, reason: str) -> None:
        """Give the client up: stop the engine and cut the connection, for the answer is not whole."""
        if self._done.done():
            return
        self.status = CLIENT_GONE
        self._piece = None
        with about(self._request_id, self._traceparent):
            _log.info("client given up", request_id=self._request_id, reason=reason)
        self._done.set_result(None)
        self._connection.abort()

    def _let_go(self) -> None:
        """Nothing is written any more, also what `send` still waits with."""
        self._connection.on_lost(None)
        self._piece = None
        blocked, self._blocked = self._blocked, None
        if blocked is not None:
            blocked.close()
        if self._flush_timer is not None:
            self._flush_timer.cancel()

    def _left(self) -> None:
        if not self._done.done():
            self.status = CLIENT_GONE
            self._piece = None
            self._done.set_result(None)


@lru_cache(maxsize=64)
def _type_line(content_type: bytes) -> bytes:
    """An engine may say what is no type at all: raises RuntimeError for what is not one line."""
    return lines_of([(b"content-type", content_type)])


@lru_cache(maxsize=1024)
def _worker_line(worker_id: str) -> bytes:
    return lines_of([(b"x-neurogate-worker", worker_id.encode())])

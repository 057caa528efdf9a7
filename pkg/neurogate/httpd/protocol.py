"""One client's connection: bytes in, requests to the app, answers in their order, and everything that can go wrong.

What comes in goes through phases (between requests, in a head, in a body), what goes out is one running request and
those pipelined behind it; the two sides know of each other only where a refusal must wait for its place. The sweep
looks at both.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, Literal, cast
from urllib.parse import unquote

import httptools
import structlog
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.protocols.utils import get_local_addr, get_remote_addr

from neurogate.httpd import head, refusals
from neurogate.httpd.commons import Commons
from neurogate.httpd.departure import PROBE, DepartureWatch
from neurogate.httpd.head import RefusedError
from neurogate.httpd.refusals import Refusal
from neurogate.httpd.transport import AnswerTransport

PIPELINED_MAX = 64
"""Requests that may wait on one connection for the answers before theirs."""

UNREAD_BODY_MAX = 256 * 1024
"""Bytes of a body that are skipped after its answer; past it the connection is closed."""

TURNED_AWAY_MAX = 256
"""Connections past the limit that are told so properly; those past these are told and closed at once."""

_log = structlog.get_logger("neurogate.httpd")


class _Phase(Enum):
    """What comes in."""

    BETWEEN = 0
    """Nothing: the last request is whole."""
    HEAD = 1
    BODY = 2
    AGAIN = 3
    """A head that only tells a new parser where the body ends."""
    LINGER = 4
    """Nothing that matters: the last answer is given."""


_BETWEEN, _HEAD, _BODY, _AGAIN, _LINGER = _Phase


class _Logger:
    """Where uvicorn's cycle tells of bugs in the app."""

    @staticmethod
    def error(message: str, *arguments: object, exc_info: BaseException | None = None) -> None:
        """Log it."""
        _log.error(message.strip() % arguments if arguments else message.strip(), exc_info=exc_info)


class HttpConnection(asyncio.Protocol):
    """A `Connection` to its endpoints, a protocol to its transport."""

    def __init__(self, commons: Commons) -> None:
        self._commons = commons
        self._loop = commons.loop
        self._parser = self._new_parser()
        self._phase = _HEAD
        self._since = commons.now
        """When the phase began, by the sweep's clock."""
        self._head_bytes = 0
        """Of a head on its way, unless it began behind another request; then `_began_behind`."""
        self._began_behind = False
        self._gap_bytes = 0
        """Received since the last piece of the body."""
        self._body_bytes = 0
        self._unread_bytes = 0
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._upgrading = False
        self._latest: RequestResponseCycle | None = None
        """The request whose body is coming in, or came in last."""
        self._running: RequestResponseCycle | None = None
        self._pipeline: deque[RequestResponseCycle] = deque()
        self._refused = False
        """Whatever comes in is ignored."""
        self._refusal: Refusal | None = None
        """Waits for the answers before it."""
        self._eof = False
        self._watch: DepartureWatch | None = None
        self._lost_callback: Callable[[], None] | None = None
        self._transport: AnswerTransport = None  # type: ignore[assignment]
        self._flow: FlowControl = None  # type: ignore[assignment]
        self._peers: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<HttpConnection {self._phase.name} running={self._busy} pipelined={len(self._pipeline)}>"

    # The endpoint's side

    def on_lost(self, callback: Callable[[], None] | None) -> None:
        """Call back when the connection is lost; None takes it back."""
        self._lost_callback = callback
        if callback is not None and self._transport.is_closing():
            callback()

    def abort(self) -> None:
        """Cut the connection now, dropping what is unsent."""
        if self._running is not None:
            self._running.disconnected = True  # or uvicorn would report an application that forgot to answer
        self._transport.abort()

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came; past the limit it is turned away."""
        commons = self._commons
        self._transport = AnswerTransport(
            cast("asyncio.Transport", transport), self._loop, headers=commons.headers, lingers=self._lingers
        )
        self._flow = FlowControl(self._transport)
        scheme: Literal["http", "https"] = "https" if commons.secure else "http"
        peers = get_local_addr(self._transport), get_remote_addr(self._transport)
        self._peers = {"server": peers[0], "client": peers[1], "scheme": scheme}
        excess = len(commons.connections) - commons.limits.connections
        if excess >= 0:
            self._refused = True
            if excess < TURNED_AWAY_MAX:
                commons.connections.add(self)
                self._say(refusals.TOO_MANY_CONNECTIONS)
            else:
                self._transport.write(refusals.TOO_MANY_CONNECTIONS.encode(commons.state.default_headers))
                self._transport.close_now()
                commons.on_refused(refusals.TOO_MANY_CONNECTIONS.status)
            return
        commons.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Parse what came, and refuse what must be refused."""
        if self._refused or self._phase is _LINGER:
            return
        if self._phase is _BETWEEN:
            latest = self._latest
            if latest is not None and not latest.keep_alive:
                return  # its client was told, or said itself, that nothing comes behind it
            self._begin_head(behind=False)
        self._head_bytes += len(data)
        self._gap_bytes += len(data)
        try:
            self._parse(data)
            self._check_unfinished()
        except RefusedError as error:
            self._refuse(error.refusal)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause.refusal if isinstance(cause, RefusedError) else refusals.MALFORMED)

    def eof_received(self) -> bool:
        """Whether to keep the connection for what is still to be written."""
        if self._phase is _LINGER or self._commons.secure:
            return False
        if self._eof:
            return self._busy or self._refusal is not None
        self._eof = True
        if self._phase is _BODY or (self._phase is _HEAD and self._head_bytes and not self._busy):
            self._refuse(refusals.INCOMPLETE)
        if self._busy and self._waits_for_answer():
            self._watch = DepartureWatch(self._transport.get_extra_info("socket"), self._loop, self.abort)
            return True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Everybody who waits for the client hears of it."""
        del exc
        self._commons.connections.discard(self)
        for cycle in (self._running, *self._pipeline):
            if cycle is not None:
                cycle.disconnected = cycle.disconnected or not cycle.response_complete
                cycle.message_event.set()
        self._pipeline.clear()
        self._flow.resume_writing()
        if self._watch is not None:
            self._watch.stop()
        # These refer back to us: without cycles all of it is freed here and now, not by a collector that comes late.
        self._parser = self._latest = self._running = None
        self._transport.forget_owner()
        callback, self._lost_callback = self._lost_callback, None
        if callback is not None:
            callback()

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        self._flow.pause_writing()

    def resume_writing(self) -> None:
        """It caught up."""
        self._flow.resume_writing()

    # The listener's side

    def shutdown(self) -> None:
        """Close when nothing is being answered, else after the answer."""
        if self._busy:
            cast("RequestResponseCycle", self._latest).keep_alive = False
        else:
            self._transport.close_now()

    def sweep(self) -> None:
        """Look whether the client took too long."""
        commons = self._commons
        limits, waited_s = commons.limits, commons.now - self._since
        if self._transport.ending:
            if waited_s > limits.flush_timeout_s:
                self.abort()
        elif self._phase is _LINGER:
            if waited_s > limits.linger_s:
                self._close_idle()
        elif self._phase is _BODY:
            self._sweep_body(waited_s)
        elif self._busy:
            self._since = commons.now
        elif self._phase is _HEAD:
            if waited_s > limits.head_timeout_s:
                if self._head_bytes or self._began_behind:
                    self._refuse(refusals.HEAD_TIMEOUT)
                else:
                    self._close_idle()
        elif waited_s > (limits.flush_timeout_s if self._flow.write_paused else limits.idle_timeout_s):
            self._close_idle()

    def _sweep_body(self, waited_s: float) -> None:
        if self._flow.read_paused:  # the client waits for us
            self._since = self._commons.now
        elif waited_s > self._commons.limits.body_timeout_s:
            self._refuse(refusals.BODY_TIMEOUT)

    def _close_idle(self) -> None:
        """Close a connection that has nothing to say; what its client has not read by now is dropped."""
        if self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            self._transport.close_now()

    # The parser's side

    def on_message_begin(self) -> None:
        """A head begins; maybe in the data that ended another request."""
        if self._phase is _BETWEEN:
            self._begin_head(behind=True)
        if len(self._pipeline) >= PIPELINED_MAX:
            raise RefusedError(refusals.TOO_MANY_PIPELINED)

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        if self._phase is _HEAD:
            self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, which nobody asked for."""
        if self._phase is _HEAD:
            self._headers.append((name.lower(), value.rstrip()))

    def on_headers_complete(self) -> None:
        """The head is whole: refuse it, or hand the request on."""
        if self._phase is _AGAIN:
            self._phase = _BODY
            return
        parser, headers, limits = self._parser, self._headers, self._commons.limits
        if self._began_behind or self._head_bytes > limits.header_bytes or len(headers) > limits.headers:
            head.check_size(self._url, headers, limits)
        method = parser.get_method()
        version = parser.get_http_version()
        head.check(version, headers)
        raw_path, query = head.target_of(method, self._url)
        path = raw_path.decode("ascii")
        keep_alive = parser.should_keep_alive()
        self._upgrading = parser.should_upgrade()
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "method": method.decode("ascii"),
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": headers,
            "extensions": {"neurogate.connection": self},
            **self._peers,
        }
        self._phase = _BODY
        self._since = self._commons.now
        self._gap_bytes = self._body_bytes = self._unread_bytes = 0
        self._latest = cycle = RequestResponseCycle(
            scope=scope,  # type: ignore[arg-type]
            transport=self._transport,
            flow=self._flow,
            logger=_Logger,  # type: ignore[arg-type]
            access_logger=_Logger,  # type: ignore[arg-type]
            access_log=False,
            default_headers=self._commons.state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=head.expects_continue(version, headers),
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )
        if self._busy:
            self._flow.pause_reading()
            self._pipeline.append(cycle)
        else:
            self._start(cycle)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._gap_bytes = 0
        cycle = cast("RequestResponseCycle", self._latest)
        if cycle.response_complete:
            self._unread_bytes += len(body)
            if self._unread_bytes > UNREAD_BODY_MAX:
                raise RefusedError(refusals.BODY_TOO_LARGE)
            return
        self._body_bytes += len(body)
        if 0 < self._commons.limits.body_bytes < self._body_bytes:
            raise RefusedError(refusals.BODY_TOO_LARGE)
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self._flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._upgrading:
            return
        self._phase = _BETWEEN
        self._since = self._commons.now
        cycle = cast("RequestResponseCycle", self._latest)
        cycle.more_body = False
        if not cycle.response_complete:
            cycle.message_event.set()

    # The cycle's side

    def on_response_complete(self) -> None:
        """The answer is written: on to the next, or to what was left to say."""
        self._since = self._commons.now
        if self._transport.is_closing():
            return
        self._flow.resume_reading()
        if self._pipeline:
            self._start(self._pipeline.popleft())
        elif self._refusal is not None:
            self._say(self._refusal)
        elif self._eof:
            self._transport.close()

    # Within

    @property
    def _busy(self) -> bool:
        """Whether a request is being answered."""
        running = self._running
        return running is not None and not running.response_complete

    def _start(self, cycle: RequestResponseCycle) -> None:
        self._running = cycle
        tasks = self._commons.state.tasks
        task = self._loop.create_task(cycle.run_asgi(cast("Any", self._commons.app)))
        task.add_done_callback(tasks.discard)
        tasks.add(task)

    def _begin_head(self, *, behind: bool) -> None:
        self._phase = _HEAD
        self._since = self._commons.now
        self._head_bytes = 0
        self._began_behind = behind
        self._url = b""
        self._headers = []

    def _new_parser(self) -> Any:
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # it is ignored, as RFC 9112 section 9.6 has it
        return parser

    def _parse(self, data: bytes) -> None:
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._ignore_upgrade()
            else:
                return

    def _ignore_upgrade(self) -> None:
        """Go on as if nobody had asked for another protocol (RFC 9110, section 7.8).

        The parser takes all that follows for that protocol; a new one is told what it must know of the request.
        """
        self._upgrading = False
        self._phase = _AGAIN
        self._parser = self._new_parser()
        cycle = cast("RequestResponseCycle", self._latest)
        self._parser.feed_data(head.framing_of(self._headers, keep_alive=cycle.keep_alive))

    def _check_unfinished(self) -> None:
        """Bound what the parser keeps of a head, and what it skips within a body."""
        limits = self._commons.limits
        if self._phase is _HEAD:
            if self._head_bytes > limits.header_bytes or self._began_behind:
                head.check_size(self._url, self._headers, limits)
            if self._head_bytes > limits.head_bytes:
                raise RefusedError(refusals.HEAD_TOO_LARGE)
        elif self._phase is _BODY and self._gap_bytes > limits.head_bytes:
            raise RefusedError(refusals.TOO_MUCH_FRAMING)

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what came in last with a refusal, once what came before it has its answers."""
        if self._refused or self._phase is _LINGER:
            return
        self._refused = True
        cycle = self._latest
        if self._phase is _BODY and cycle is not None:  # the request will never be whole
            if self._pipeline and self._pipeline[-1] is cycle:
                self._pipeline.pop()
            elif cycle.response_complete:
                self._transport.close()
                return
            elif cycle.response_started:
                self.abort()
                return
            else:
                cycle.disconnected = True
                cycle.message_event.set()
                self._running = None
        if self._busy:
            self._refusal = refusal
        else:
            self._say(refusal)

    def _say(self, refusal: Refusal) -> None:
        self._refusal = None
        self._commons.on_refused(refusal.status)
        self._transport.write(refusal.encode(self._commons.state.default_headers))
        self._transport.close()

    def _waits_for_answer(self) -> bool:
        """Whether a client that sends no more may still read; asks it where that can be asked."""
        running = cast("RequestResponseCycle", self._running)
        if running.scope["http_version"] == "1.0":
            return running.scope["method"] in {"GET", "HEAD"}
        if not running.response_started:
            self._transport.write(PROBE)
        return True

    def _lingers(self) -> bool:
        """Whether a connection that is to be closed must be heard for a while, because its client may be sending."""
        latest = self._latest
        sending = self._refused or (latest is not None and latest.response_complete and latest.more_body)
        self._since = self._commons.now
        if not sending or self._eof or self._phase is _LINGER:
            return False
        self._phase = _LINGER
        self._flow.resume_reading()
        return True

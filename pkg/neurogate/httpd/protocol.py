"""One client's connection: what comes in becomes requests to the app, answers go out in their order.

A request runs, others may be pipelined behind it, and the last of them may still be coming in. A refusal is about what
comes in, and must wait for its place among what goes out. The sweep looks at both sides.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.utils import get_local_addr, get_remote_addr

from neurogate.httpd import refusals
from neurogate.httpd.commons import Commons
from neurogate.httpd.cycle import RequestCycle
from neurogate.httpd.departure import PROBE, PROBE_IN_CHUNKS, DepartureWatch
from neurogate.httpd.descriptors import unread
from neurogate.httpd.head import RefusedError
from neurogate.httpd.reader import Phase, RequestReader
from neurogate.httpd.refusals import Refusal
from neurogate.httpd.stepped import Stepped
from neurogate.httpd.transport import AnswerTransport

PIPELINED_MAX = 64
"""Requests that may wait on one connection for the answers before theirs."""

UNREAD_BODY_MAX = 256 * 1024
"""Bytes of a body that are skipped after its answer; past it the connection is closed."""

TURNED_AWAY_MAX = 256
"""Connections past the limit that are told so properly; those past these are told and closed at once."""


class HttpConnection(asyncio.Protocol):
    """A `Connection` to its endpoints, a protocol to its transport, `Requests` to its reader."""

    def __init__(self, commons: Commons) -> None:
        self._commons = commons
        self._loop = commons.loop
        self._reader = RequestReader(self, commons)
        self._latest: RequestCycle | None = None
        """The request whose body is coming in, or came in last."""
        self._running: RequestCycle | None = None
        self._due: RequestCycle | None = None
        """Is to be run when all that came is read."""
        self._pipeline: deque[RequestCycle] = deque()
        self._body_bytes = 0
        self._unread_bytes = 0
        self._refused = False
        """Whatever comes in is ignored."""
        self._refusal: Refusal | None = None
        """Waits for the answers before it."""
        self._closing_since: float | None = None
        """Since when the connection lingers, or ends; whatever comes in is ignored."""
        self._eof = False
        self._watch: DepartureWatch | None = None
        self._lost_callback: Callable[[], None] | None = None
        self._transport: AnswerTransport = None  # type: ignore[assignment]
        self._flow: FlowControl = None  # type: ignore[assignment]
        self._belongings: dict[str, Any] = {}
        """What every request's scope says of the connection."""

    def __repr__(self) -> str:
        return f"<HttpConnection {self._reader.phase.name} busy={self._busy} pipelined={len(self._pipeline)}>"

    # The endpoint's side

    def on_lost(self, callback: Callable[[], None] | None) -> None:
        """Call back when the connection is lost; None takes it back."""
        self._lost_callback = callback
        if callback is not None and self._transport.is_closing():
            callback()

    def abort(self) -> None:
        """Cut the connection now, dropping what is unsent."""
        if self._running is not None:
            self._running.disconnected = True  # or the application would be reported: it forgot to answer
        self._transport.abort()

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came; past the limit it is turned away."""
        commons = self._commons
        self._transport = AnswerTransport(cast("asyncio.Transport", transport), self._loop, lingers=self._lingers)
        self._flow = FlowControl(self._transport)
        self._belongings = {
            "server": get_local_addr(self._transport),
            "client": get_remote_addr(self._transport),
            "scheme": "https" if commons.secure else "http",
            "extensions": {"neurogate.connection": self},
        }
        excess = len(commons.connections) - commons.limits.connections
        if excess < TURNED_AWAY_MAX:
            commons.connections.add(self)
        if excess >= 0:
            self._refused = True
            self._say(refusals.TOO_MANY_CONNECTIONS)
        if excess >= TURNED_AWAY_MAX:
            self._close_now()

    def data_received(self, data: bytes) -> None:
        """Read what came, and refuse what must be refused."""
        if self._refused or self._closing_since is not None:
            return
        latest = self._latest
        if latest is not None and not latest.keep_alive and self._reader.phase is Phase.BETWEEN:
            return  # its client was told, or said itself, that nothing comes behind it
        try:
            self._reader.feed(data)
        except RefusedError as error:
            self._start_due()
            self._refuse(error.refusal)
            return
        due = self._due
        if due is not None and not due.more_body and self._commons.at_once(due.scope):
            self._due = None
            self._step(due)
        else:
            self._start_due()

    def eof_received(self) -> bool:
        """Whether to keep the connection for what is still to be written."""
        if self._closing_since is not None or self._commons.secure:
            return False
        if self._eof:
            return self._busy
        self._eof = True
        phase = self._reader.phase
        if phase is Phase.BODY or (phase is Phase.HEAD and self._reader.begun and not self._busy):
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
                cycle.wake()
        self._pipeline.clear()
        self._flow.resume_writing()
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        # These refer back to us: without cycles all of it is freed here and now, not by a collector that comes late.
        self._latest = self._running = None
        self._belongings = {}
        self._reader.close()
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

    def leave(self, quiet_before: float) -> None:
        """Close when nothing came since `quiet_before`; an answer that has not begun says that it is the last.

        What has come, or lies unread in the socket, is answered: only a request that is still on the wire can be lost.
        """
        latest, reader = self._latest, self._reader
        if self._closing_since is not None:
            return
        if self._busy:
            if latest is not None and not latest.response_started:
                latest.keep_alive = False
        elif reader.phase is Phase.HEAD and reader.begun:
            return  # the sweep bounds it
        elif reader.since <= quiet_before and not unread(self._transport.get_extra_info("socket")):
            self._close_now()

    def sweep(self) -> None:
        """Look whether the client took too long."""
        now, limits, reader = self._commons.now, self._commons.limits, self._reader
        if self._closing_since is not None:
            self._sweep_closing(now - self._closing_since)
        elif reader.phase is Phase.BODY:
            if self._flow.read_paused:  # the client waits for us
                reader.since = now
            elif now - reader.since > limits.body_timeout_s:
                self._refuse(refusals.BODY_TIMEOUT)
        elif self._busy:
            reader.since = now
        elif reader.phase is Phase.HEAD:
            if now - reader.since > limits.head_timeout_s:
                if reader.begun:
                    self._refuse(refusals.HEAD_TIMEOUT)
                else:
                    self._close_now()
        elif now - reader.since > (limits.flush_timeout_s if self._flow.write_paused else limits.idle_timeout_s):
            if self._transport.get_write_buffer_size():  # what the client has not read by now is dropped
                self.abort()
            else:
                self._close_now()

    def _sweep_closing(self, waited_s: float) -> None:
        limits = self._commons.limits
        if waited_s > limits.flush_timeout_s:
            self.abort()
        elif waited_s > limits.linger_s and not self._transport.ending:
            self._transport.close_now()  # what is unsent has its own time

    # The reader's side

    def head_began(self) -> None:
        """There will be a request."""
        if len(self._pipeline) >= PIPELINED_MAX:
            raise RefusedError(refusals.TOO_MANY_PIPELINED)

    def request_began(self, scope: dict[str, Any], *, keep_alive: bool, expects_continue: bool) -> None:
        """Run the request, or queue it behind the one that runs."""
        scope.update(self._belongings)
        self._body_bytes = self._unread_bytes = 0
        self._latest = cycle = RequestCycle(
            scope,
            self._transport,
            self._flow,
            self._commons,
            keep_alive=keep_alive,
            expects_continue=expects_continue,
            on_answered=self._answered,
        )
        if self._busy:
            self._flow.pause_reading()
            self._pipeline.append(cycle)
        else:
            self._running = self._due = cycle

    def body_came(self, body: bytes) -> None:
        """Keep a piece of the body for the app; behind an answer, skip it."""
        cycle = cast("RequestCycle", self._latest)
        if cycle.response_complete:
            self._unread_bytes += len(body)
            if self._unread_bytes > UNREAD_BODY_MAX:
                raise RefusedError(refusals.BODY_TOO_LARGE)
            return
        self._body_bytes += len(body)
        if 0 < self._commons.limits.body_bytes < self._body_bytes:
            raise RefusedError(refusals.BODY_TOO_LARGE)
        cycle.take(body)
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self._flow.pause_reading()

    def request_ended(self) -> None:
        """Tell the app that the body is whole."""
        cycle = cast("RequestCycle", self._latest)
        cycle.more_body = False
        if not cycle.response_complete:
            cycle.wake()

    # Answers

    @property
    def _busy(self) -> bool:
        """Whether a request is being answered."""
        running = self._running
        return running is not None and not running.response_complete

    def _start_due(self) -> None:
        due, self._due = self._due, None
        if due is not None:
            self._start(due)

    def _step(self, cycle: RequestCycle) -> None:
        """Run it without a task."""
        tasks = self._commons.state.tasks
        stepped = Stepped(cycle.run(self._commons.app), tasks.discard, self._loop)
        if not stepped.step():
            tasks.add(stepped)  # type: ignore[arg-type]

    def _start(self, cycle: RequestCycle) -> None:
        self._running = cycle
        tasks = self._commons.state.tasks
        task = self._loop.create_task(cycle.run(self._commons.app))
        task.add_done_callback(tasks.discard)
        tasks.add(task)

    def _answered(self) -> None:
        """An answer is written: on to the next, or to what was left to say."""
        if self._reader.phase is not Phase.BODY:
            self._reader.since = self._commons.now
        if self._transport.is_closing():
            return
        self._flow.resume_reading()
        if self._pipeline:
            self._start(self._pipeline.popleft())
        elif self._refusal is not None:
            self._say(self._refusal)
        elif self._eof:
            self._transport.close()

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what came in last with a refusal, once what came before it has its answers."""
        if self._refused:
            return
        self._refused = True
        cycle = self._latest
        if self._reader.phase is Phase.BODY and cycle is not None:  # the request will never be whole
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
                cycle.wake()
                self._running = None
        if self._busy:
            self._refusal = refusal
        else:
            self._say(refusal)

    def _say(self, refusal: Refusal) -> None:
        self._refusal = None
        self._commons.on_refused(refusal.status)
        self._transport.write(refusal.encode(self._commons.lines))
        self._transport.close()

    # Ends

    def _close_now(self) -> None:
        """Close without hearing what the client still sends."""
        self._closing_since = self._commons.now
        self._transport.close_now()

    def _waits_for_answer(self) -> bool:
        """Whether a client that sends no more may still read; asks it where that can be asked."""
        running = cast("RequestCycle", self._running)
        if running.scope["http_version"] == "1.0":
            return running.scope["method"] in {"GET", "HEAD"}
        if not running.response_started:
            self._transport.write(PROBE)
        elif running.chunked:
            self._transport.write(PROBE_IN_CHUNKS)
        else:
            return self._transport.get_write_buffer_size() > 0  # it is the probe
        return True

    def _lingers(self) -> bool:
        """Whether a connection that is to be closed must be heard for a while, because its client may be sending."""
        latest = self._latest
        sending = self._refused or (latest is not None and latest.response_complete and latest.more_body)
        first = self._closing_since is None
        self._closing_since = self._commons.now
        if not sending or self._eof or not first:
            return False
        self._flow.resume_reading()
        return True

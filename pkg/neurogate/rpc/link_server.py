"""The worker's end of the link: one session per gateway that is connected, whatever carries its frames.

A session owns the calls it carries: when the gateway goes, they are cancelled and the engine's slots are free. What
calls have to say is gathered in an outbox and written in frames: at the end of the loop's turn on an idle link, and a
millisecond after the last frame on a busy one, because the gateway's cost is per frame (measured: 22 tokens a frame
cost it a third more CPU than 47, ADR 0001).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from neurogate.api.v1 import worker_pb2 as pb
from neurogate.channel import End
from neurogate.rpc.backend import IncomingCall, WorkerBackend
from neurogate.rpc.codec import report_to_wire, resume_from_wire
from neurogate.rpc.lingering import Lingering
from neurogate.rpc.outbox import WorkerOutbox


class LinkWire(Protocol):
    """What takes a session's frames to the gateway."""

    @property
    def ready(self) -> bool:
        """Whether it takes a frame now. Once it does again, it calls the session's `resume`, not from within `send`."""
        ...

    def send(self, frame: pb.WorkerFrame) -> None:
        """Take a frame; called only when ready."""
        ...


class _NoWire:
    """Of a session that is over."""

    ready = False

    def send(self, frame: pb.WorkerFrame) -> None: ...


_NO_WIRE = _NoWire()


@dataclass(frozen=True, slots=True)
class LinkServerSettings:
    """Bounds and timing of the sessions of one worker."""

    outbox_bytes: int
    """Bytes queued to one gateway before producers must wait."""
    linger_s: float
    """How long a busy session gathers before it writes; an idle one writes at once."""
    stats_interval_s: float
    max_body_bytes: int


@dataclass(slots=True)
class _Incoming:
    """A submit whose body is still arriving in parts."""

    submit: pb.Submit
    body: bytearray = field(default_factory=bytearray)


class LinkSession:
    """One gateway's link, from its first frame to its end."""

    def __init__(
        self,
        backend: WorkerBackend,
        settings: LinkServerSettings,
        wire: LinkWire,
        *,
        loop: asyncio.AbstractEventLoop,
        on_hello: Callable[[str], None],
    ) -> None:
        """It reports to the gateway at once, and then regularly until it ends."""
        self._backend = backend
        self._settings = settings
        self._outbox_bytes = settings.outbox_bytes
        self._wire = wire
        self._loop = loop
        self._on_hello = on_hello
        self._outbox = WorkerOutbox()
        self._lingering = Lingering(self._write, settings.linger_s, loop=loop)
        self._full = False
        """The same as `_room` says, for whoever asks at every token."""
        self._room = asyncio.Event()
        self._room.set()
        self._flushed = asyncio.Event()
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._incoming: dict[int, _Incoming] = {}
        self._over = False
        self._idle = asyncio.Event()
        """Over, and every call has ended."""
        self._failure: BaseException | None = None
        self._stats: asyncio.Handle = loop.call_soon(self._tick)

    @property
    def active(self) -> int:
        """Calls that have not ended, and submits whose body is not whole."""
        return len(self._calls) + len(self._incoming)

    def refresh(self) -> None:
        """Send a report now: something changed that gateways should know at once."""
        self._outbox.stats(report_to_wire(self._backend.report()))
        self._say()

    async def flushed(self) -> None:
        """Wait until everything said so far is written, or the session is over."""
        await self._flushed.wait()

    def take(self, frame: pb.GatewayFrame) -> None:
        """What the gateway says."""
        if self._over:
            return
        if frame.HasField("hello"):
            self._on_hello(frame.hello.gateway_id)
        for submit in frame.submits:
            if submit.more:
                self._incoming[submit.id] = _Incoming(submit)
            elif len(submit.body) > self._settings.max_body_bytes:
                self._refuse_body(submit.id)
            else:
                self._start(submit, submit.body)
        for part in frame.parts:
            self._take_part(part)
        for ticket in frame.cancels:
            self._incoming.pop(ticket, None)
            task = self._calls.get(ticket)
            if task is not None:
                task.cancel()
        if frame.ping:
            self._outbox.pong(frame.ping)
            self._say()

    def resume(self) -> None:
        """The wire is ready again."""
        if not self._over:
            self._lingering.now()

    def end(self) -> None:
        """The gateway is gone, or is to go: cancel every call and say nothing more. Idempotent."""
        if self._over:
            return
        self._over = True
        self._stats.cancel()
        self._lingering.end()
        self._wire = _NO_WIRE  # which knows its session: so both free themselves, without a collector
        self._flushed.set()  # nothing more will be written: whoever waits for that waits in vain
        self._incoming.clear()
        for task in self._calls.values():
            task.cancel()
        if not self._calls:
            self._idle.set()

    async def ended(self) -> None:
        """Wait until the session is over and its calls have ended. Raises what broke it, a call's error among that."""
        await self._idle.wait()
        if self._failure is not None:
            raise self._failure

    def _take_part(self, part: pb.BodyPart) -> None:
        incoming = self._incoming.get(part.id)
        if incoming is None:  # cancelled or refused
            return
        incoming.body += part.data
        if len(incoming.body) > self._settings.max_body_bytes:
            del self._incoming[part.id]
            self._refuse_body(part.id)
        elif part.last:
            del self._incoming[part.id]
            self._start(incoming.submit, bytes(incoming.body))

    def _refuse_body(self, ticket: int) -> None:
        limit = self._settings.max_body_bytes
        self._finish(
            ticket, End(http_status=413, message=f"larger than the worker's NEUROGATE_MAX_BODY_BYTES, {limit}")
        )

    def _start(self, submit: pb.Submit, body: bytes) -> None:
        call = IncomingCall(
            submit.path,
            body,
            submit.request_id,
            submit.traceparent,
            submit.deadline_ms / 1000 if submit.deadline_ms else None,
            resume_from_wire(submit.resume) if submit.HasField("resume") else None,
            submit.tracestate,
        )
        ticket = submit.id
        self._calls[ticket] = task = self._loop.create_task(self._serve(ticket, call))
        task.add_done_callback(lambda done: self._forget(ticket, done))

    def _forget(self, ticket: int, task: asyncio.Task[None]) -> None:
        self._calls.pop(ticket, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)
        if self._over and not self._calls:
            self._idle.set()

    async def _serve(self, ticket: int, call: IncomingCall) -> None:
        outlet = _SessionOutlet(self, ticket)
        end = await self._backend.answer(call, outlet)
        self._finish(ticket, end, urgent=outlet.chunks <= 1)

    def _finish(self, ticket: int, end: End, *, urgent: bool = True) -> None:
        self._outbox.end(ticket, end)
        self._say(urgent=urgent)

    def _chunk(self, ticket: int, data: bytes, urgent: bool) -> bool:  # noqa: FBT001 - once a token
        outbox = self._outbox
        outbox.chunk(ticket, data)
        if urgent or self._lingering.due is None:  # otherwise it will be written, and its time is fixed
            self._say(urgent=urgent)
        if outbox.size > self._outbox_bytes:
            self._full = True
            self._room.clear()
        return not self._full

    def _say(self, *, urgent: bool = False) -> None:
        if self._over:
            return
        self._flushed.clear()
        if self._wire.ready:
            self._lingering.say(urgent=urgent)

    def _write(self) -> None:
        outbox, wire = self._outbox, self._wire
        try:
            while outbox and wire.ready:
                wire.send(outbox.next_frame())
        except Exception as error:  # noqa: BLE001 - `ended` raises it
            self._fail(error)
            return
        if not outbox:
            self._full = False
            self._room.set()
            if wire.ready:
                self._flushed.set()

    def _tick(self) -> None:
        try:
            self.refresh()
        except Exception as error:  # noqa: BLE001 - `ended` raises it
            self._fail(error)
        else:
            self._stats = self._loop.call_later(self._settings.stats_interval_s, self._tick)

    def _fail(self, error: BaseException) -> None:
        """End with a reason. What a frame lost would be a hole in answers that still end well: they go on elsewhere."""
        if self._failure is None:
            self._failure = error
        self.end()


class _SessionOutlet:
    """One call's way into its session's outbox."""

    __slots__ = ("_session", "_ticket", "chunks")

    def __init__(self, session: LinkSession, ticket: int) -> None:
        self._session = session
        self._ticket = ticket
        self.chunks = 0
        """Said so far. The first, and the end of a whole answer, are what somebody waits for."""

    @property
    def full(self) -> bool:
        return self._session._full  # noqa: SLF001 - the session's own hand

    def chunk(self, data: bytes) -> bool:
        self.chunks += 1
        return self._session._chunk(self._ticket, data, self.chunks == 1)  # noqa: SLF001

    async def room(self) -> None:
        await self._session._room.wait()  # noqa: SLF001

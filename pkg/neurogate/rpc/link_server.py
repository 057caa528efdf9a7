"""The worker's end of the link: one session per gateway that is connected.

A session owns the tasks of the calls it carries: when the gateway goes, they are cancelled and the engine's slots are
free. What calls have to say is gathered in an outbox and written in frames; a busy session lingers for a millisecond,
because the gateway's cost is per frame (measured: 22 tokens a frame cost it a third more CPU than 47, ADR 0001).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
import grpc.aio
import structlog

from neurogate.api.v1 import worker_pb2 as pb
from neurogate.channel import End
from neurogate.rpc.backend import IncomingCall, WorkerBackend
from neurogate.rpc.codec import report_to_wire, resume_from_wire
from neurogate.rpc.outbox import WorkerOutbox

LinkContext = grpc.aio.ServicerContext[pb.GatewayFrame, pb.WorkerFrame]

_log = structlog.get_logger("neurogate.link")


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
        *,
        loop: asyncio.AbstractEventLoop,
        on_hello: Callable[[str], None],
    ) -> None:
        self._backend = backend
        self._settings = settings
        self._loop = loop
        self._on_hello = on_hello
        self._outbox = WorkerOutbox()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._flushed = asyncio.Event()
        self._over = False
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._incoming: dict[int, _Incoming] = {}

    @property
    def active(self) -> int:
        """Calls that have not ended, and submits whose body is not whole."""
        return len(self._calls) + len(self._incoming)

    def refresh(self) -> None:
        """Send a report now: something changed that gateways should know at once."""
        self._outbox.stats(report_to_wire(self._backend.report()))
        self._say()

    async def flushed(self) -> None:
        """Wait until everything said so far is written."""
        await self._flushed.wait()

    async def run(self, context: LinkContext) -> None:
        """Serve until the gateway goes or the task is cancelled; either way every call is cancelled."""
        self.refresh()
        async with asyncio.TaskGroup() as tasks:
            helpers = [
                tasks.create_task(self._write(context), name="link-write"),
                tasks.create_task(self._tick(), name="link-stats"),
            ]
            try:
                while True:
                    frame = await context.read()
                    if not isinstance(frame, pb.GatewayFrame):  # grpc.aio.EOF
                        break
                    self._take(frame, tasks)
            finally:
                for task in (*helpers, *self._calls.values()):
                    task.cancel()
                self._over = True  # nothing more will be written: whoever waits for that waits in vain
                self._flushed.set()

    def _take(self, frame: pb.GatewayFrame, tasks: asyncio.TaskGroup) -> None:
        if frame.HasField("hello"):
            self._on_hello(frame.hello.gateway_id)
        for submit in frame.submits:
            if submit.more:
                self._incoming[submit.id] = _Incoming(submit)
            elif len(submit.body) > self._settings.max_body_bytes:
                self._refuse_body(submit.id)
            else:
                self._start(submit, submit.body, tasks)
        for part in frame.parts:
            self._take_part(part, tasks)
        for ticket in frame.cancels:
            self._incoming.pop(ticket, None)
            task = self._calls.get(ticket)
            if task is not None:
                task.cancel()
        if frame.ping:
            self._outbox.pong(frame.ping)
            self._say()

    def _take_part(self, part: pb.BodyPart, tasks: asyncio.TaskGroup) -> None:
        incoming = self._incoming.get(part.id)
        if incoming is None:  # cancelled or refused
            return
        incoming.body += part.data
        if len(incoming.body) > self._settings.max_body_bytes:
            del self._incoming[part.id]
            self._refuse_body(part.id)
        elif part.last:
            del self._incoming[part.id]
            self._start(incoming.submit, bytes(incoming.body), tasks)

    def _refuse_body(self, ticket: int) -> None:
        limit = self._settings.max_body_bytes
        self._finish(
            ticket, End(http_status=413, message=f"larger than the worker's NEUROGATE_MAX_BODY_BYTES, {limit}")
        )

    def _start(self, submit: pb.Submit, body: bytes, tasks: asyncio.TaskGroup) -> None:
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
        self._calls[ticket] = task = tasks.create_task(self._serve(ticket, call))
        task.add_done_callback(lambda _: self._calls.pop(ticket))

    async def _serve(self, ticket: int, call: IncomingCall) -> None:
        self._finish(ticket, await self._backend.answer(call, _SessionOutlet(self, ticket)))

    def _finish(self, ticket: int, end: End) -> None:
        self._outbox.end(ticket, end)
        self._say()

    def _chunk(self, ticket: int, data: bytes) -> None:
        self._outbox.chunk(ticket, data)
        self._say()
        if self._outbox.size > self._settings.outbox_bytes:
            self._room.clear()

    def _say(self) -> None:
        if not self._over:
            self._flushed.clear()
        self._wake.set()

    async def _write(self, context: LinkContext) -> None:
        outbox, linger_s, now = self._outbox, self._settings.linger_s, self._loop.time
        written_at = now() - linger_s
        while True:
            await self._wake.wait()
            wait_s = written_at + linger_s - now()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            self._wake.clear()
            while outbox:
                await context.write(outbox.next_frame())
            written_at = now()
            self._room.set()
            if not self._wake.is_set():
                self._flushed.set()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._settings.stats_interval_s)
            self.refresh()


class _SessionOutlet:
    """One call's way into its session's outbox."""

    __slots__ = ("_session", "_ticket")

    def __init__(self, session: LinkSession, ticket: int) -> None:
        self._session = session
        self._ticket = ticket

    @property
    def full(self) -> bool:
        return not self._session._room.is_set()  # noqa: SLF001 - the session's own hand

    def chunk(self, data: bytes) -> None:
        self._session._chunk(self._ticket, data)  # noqa: SLF001

    async def room(self) -> None:
        await self._session._room.wait()  # noqa: SLF001

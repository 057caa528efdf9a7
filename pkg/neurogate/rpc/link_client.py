"""The gateway's end of the link: one stream to one worker that carries every request between them.

The worker reports at least once a second, so silence is a failure: a TCP connection to a stopped process stays open
for ever, and only the missing report tells. Every session makes a gRPC channel of its own: reconnecting is ours.
"""

from __future__ import annotations

import asyncio
import random
import traceback
from dataclasses import dataclass

import grpc
import grpc.aio
import structlog

from neurogate.api.v1 import worker_pb2 as pb
from neurogate.api.v1 import worker_pb2_grpc
from neurogate.channel import Call, End, EndCode, LinkObserver, Sink
from neurogate.rpc.call_channel import COMMON_OPTIONS, CallChannel, Dial, dial_plain
from neurogate.rpc.codec import end_from_wire, report_from_wire
from neurogate.rpc.outbox import GatewayOutbox

_CHANNEL_OPTIONS = (
    *COMMON_OPTIONS,
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    # A channel lives until Python frees it, whenever that is, and goes on connecting meanwhile. Without a call it lets
    # go of its connection after this time; a link's call lasts as long as its session.
    ("grpc.client_idle_timeout_ms", 1000),
)

MAX_MESSAGE_BYTES = 26 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """Timing of one gateway's links."""

    silence_s: float = 3.0
    """Seconds without a frame after which a worker counts as hung."""
    linger_s: float = 0.001
    """How long a busy link gathers requests for a frame; an idle one writes at once."""
    backoff_min_s: float = 0.1
    backoff_max_s: float = 2.0


class LinkCounts:
    """What the links of one gateway carried, all of them together."""

    __slots__ = ("frames_received", "frames_sent", "items_received", "items_sent")

    def __init__(self) -> None:
        self.frames_sent = 0
        self.items_sent = 0
        """Requests, cancels and parts of bodies."""
        self.frames_received = 0
        self.items_received = 0
        """Chunks and ends."""


_PAUSE_S = 0.5
"""A timer that is this late means that this process did not run."""

_log = structlog.get_logger("neurogate.link")

_LinkCall = grpc.aio.StreamStreamCall[pb.GatewayFrame, pb.WorkerFrame]


class LinkLostError(Exception):
    """The session is over; the text says why."""


class LinkClient:
    """A `LinkChannel` over gRPC."""

    def __init__(
        self,
        address: str,
        observer: LinkObserver,
        *,
        gateway_id: str,
        version: str,
        settings: LinkSettings,
        loop: asyncio.AbstractEventLoop,
        rng: random.Random,
        dial: Dial = dial_plain,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        counts: LinkCounts | None = None,
    ) -> None:
        """`counts` is where it counts what it carries."""
        self.calls = CallChannel(dial, address, max_message_bytes=max_message_bytes)
        """For proxied calls; they end with the link, for its silence is how a hung worker is noticed."""
        self._dial = dial
        self._address = address
        self._observer = observer
        self._gateway_id = gateway_id
        self._version = version
        self._settings = settings
        self._loop = loop
        self._rng = rng
        self._counts = counts or LinkCounts()
        self._sinks: dict[int, Sink] = {}
        self._tickets = 0
        self._outbox = GatewayOutbox(loop.time)
        self._wake = asyncio.Event()
        self._up = False
        self._draining = False
        self._heard_at = 0.0

    @property
    def in_flight(self) -> int:
        """Calls whose end has not come."""
        return len(self._sinks)

    def submit(self, call: Call, sink: Sink) -> int:
        """Queue a call for the next frame."""
        self._tickets = ticket = self._tickets + 1
        self._sinks[ticket] = sink
        if self._up:
            self._outbox.submit(ticket, call)
            self._wake.set()
        else:
            self._loop.call_soon(self._lose, ticket, "the link is down")
        return ticket

    def cancel(self, ticket: int) -> None:
        """Forget a call and tell the worker."""
        if self._sinks.pop(ticket, None) is not None and self._up:
            self._outbox.cancel(ticket)
            self._wake.set()

    async def run(self) -> None:
        """Keep the link open until cancelled."""
        backoff_s = self._settings.backoff_min_s
        try:
            while True:
                was_up = await self._session()
                _raise_if_cancelled()
                if was_up:
                    backoff_s = self._settings.backoff_min_s
                await asyncio.sleep(backoff_s * self._rng.uniform(0.5, 1.0))
                backoff_s = min(backoff_s * 2, self._settings.backoff_max_s)
        finally:
            self._lose_all("the gateway stops")
            await self.calls.close()

    async def _session(self) -> bool:
        """One connection, to its end; True when it had come up."""
        channel = self._dial(self._address, _CHANNEL_OPTIONS)
        self._outbox = GatewayOutbox(self._loop.time)
        self._outbox.hello(self._gateway_id, self._version)
        self._wake.set()
        reason = ""
        try:
            call: _LinkCall = worker_pb2_grpc.WorkerStub(channel).Link()  # type: ignore[no-untyped-call]
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._write(call), name=f"link-write {self._address}")
                    tasks.create_task(self._watch(), name=f"link-watch {self._address}")
                    await self._read(call)  # here, so that `cancelling` counts right (see _raise_if_cancelled)
            finally:
                call.cancel()
        except* (LinkLostError, grpc.aio.AioRpcError, asyncio.InvalidStateError) as group:
            reason = _reason(group)
            traceback.clear_frames(group.__traceback__)  # one holds the group, and so the call with its connection
        except* Exception as group:  # noqa: BLE001 - a bug on either side costs this link, whose calls move on, not the process
            _log.exception("link failed", address=self._address)
            reason = _reason(group)
            traceback.clear_frames(group.__traceback__)  # one holds the group, and so the call with its connection
        finally:
            was_up, self._up = self._up, False
            await channel.close(None)
        if was_up:
            # First the pool, then the calls: none of them may be sent back here.
            self._observer.link_down(reason, planned=self._draining)
            # A worker that drains hands back what it could not finish: that says nothing bad about it.
            self._lose_all(reason, EndCode.CANCELLED if self._draining else EndCode.LINK_LOST)
            await self.calls.close()
        else:
            self._observer.connect_failed(reason)
        self._draining = False
        return was_up

    async def _write(self, call: _LinkCall) -> None:
        linger_s, now, counts = self._settings.linger_s, self._loop.time, self._counts
        written_at = now() - linger_s
        while True:
            await self._wake.wait()
            wait_s = written_at + linger_s - now()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            self._wake.clear()
            outbox = self._outbox
            while outbox:
                frame = outbox.next_frame()
                counts.frames_sent += 1
                counts.items_sent += len(frame.submits) + len(frame.cancels) + len(frame.parts)
                await call.write(frame)
            written_at = now()

    async def _read(self, call: _LinkCall) -> None:
        self._heard_at = self._loop.time()
        while True:
            frame = await call.read()
            if not isinstance(frame, pb.WorkerFrame):  # grpc.aio.EOF
                await call.code()
                raise LinkLostError("the worker closed the link")
            self._heard_at = self._loop.time()
            self._deliver(frame)

    def _deliver(self, frame: pb.WorkerFrame) -> None:
        self._draining = frame.draining
        sinks, counts = self._sinks, self._counts
        counts.frames_received += 1
        counts.items_received += len(frame.ids) + len(frame.ends)
        if len(frame.ids) != len(frame.chunks):
            raise LinkLostError(f"the worker sent {len(frame.chunks)} chunks for {len(frame.ids)} ids")
        for ticket, data in zip(frame.ids, frame.chunks, strict=True):
            sink = sinks.get(ticket)
            if sink is not None:  # None: cancelled while these bytes were under way
                sink.on_chunk(data)
        for end in frame.ends:
            sink = sinks.pop(end.id, None)
            if sink is not None:
                sink.on_end(end_from_wire(end))
        if frame.HasField("stats"):
            report = report_from_wire(frame.stats)
            if self._up:
                self._observer.link_report(report)
            else:
                self._up = True
                self._observer.link_up(report)

    async def _watch(self) -> None:
        """Raise when nothing was heard for too long."""
        silence_s = self._settings.silence_s
        self._heard_at = self._loop.time()
        while (left_s := self._heard_at + silence_s - self._loop.time()) > 0:
            due = self._loop.time() + left_s
            await asyncio.sleep(left_s)
            if self._loop.time() > due + _PAUSE_S:
                self._heard_at = self._loop.time()  # it was us who slept: what the worker sent waits in the socket
        raise LinkLostError(f"nothing heard for {silence_s:g} s")

    def _lose(self, ticket: int, reason: str, code: EndCode = EndCode.LINK_LOST) -> None:
        sink = self._sinks.pop(ticket, None)
        if sink is not None:
            sink.on_end(End(code, message=reason))

    def _lose_all(self, reason: str, code: EndCode = EndCode.LINK_LOST) -> None:
        for ticket in tuple(self._sinks):
            self._lose(ticket, reason, code)

    def __repr__(self) -> str:
        return f"<LinkClient {self._address} {'up' if self._up else 'down'} in_flight={len(self._sinks)}>"


def _raise_if_cancelled() -> None:
    """Raise a cancellation that came while a TaskGroup was aborting for another error: before Python 3.13 it loses it.

    What it leaves is the task's count of cancellations, which is right when the group was left by its body and not by
    waiting for its tasks.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _reason(group: BaseExceptionGroup[BaseException]) -> str:
    error = group.exceptions[0]
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name.lower()}: {error.details()}"
    return str(error)

"""The gateway's end of the link: one stream to one worker that carries every request between them.

The worker reports at least once a second, so silence is a failure: a TCP connection to a stopped process stays open
for ever, and only the missing report tells. Every session makes a connection of its own: reconnecting is ours.

What comes is delivered in the callback that brought it, and what is to be said is written by a callback (ADR 0029).
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

import grpc
import structlog

from neurogate.api.v1 import worker_pb2 as pb
from neurogate.channel import Call, End, EndCode, LinkObserver, Sink
from neurogate.rpc.afterwards import afterwards
from neurogate.rpc.call_channel import CallChannel, Dial, dial_plain
from neurogate.rpc.codec import end_from_wire, report_from_wire
from neurogate.rpc.http2.call import GrpcCall
from neurogate.rpc.http2.connection import CallEnd
from neurogate.rpc.http2.dialing import Dialer, DialError, LinkDialer
from neurogate.rpc.lingering import Lingering
from neurogate.rpc.outbox import GatewayOutbox
from neurogate.rpc.silence import Silence

_FRAME_BYTES_MAX = 4 * 1024 * 1024
"""The largest frame that is taken from a worker."""

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


_frame = pb.WorkerFrame.FromString  # to look it up costs a fifth of what it does
_log = structlog.get_logger("neurogate.link")


class LinkLostError(Exception):
    """The session is over; the text says why."""


class LinkClient:
    """A `LinkChannel` over gRPC, and the owner of its session's call."""

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
        dialer: Dialer | None = None,
        dial: Dial = dial_plain,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        counts: LinkCounts | None = None,
    ) -> None:
        """`dialer` is for the link, `dial` for the calls beside it; `counts` is where it counts what it carries."""
        self.calls = CallChannel(dial, address, max_message_bytes=max_message_bytes)
        """For proxied calls; they end with the link, for its silence is how a hung worker is noticed."""
        self._dialer = dialer or LinkDialer()
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
        self._lingering = Lingering(self._write, settings.linger_s, loop=loop)
        self._call: GrpcCall | None = None
        self._over: asyncio.Future[str] = loop.create_future()
        """Of the session: why it is over."""
        self._silence: Silence | None = None
        self._up = False
        self._draining = False

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
            self._lingering.say(urgent=True)
        else:
            self._loop.call_soon(self._lose, ticket, "the link is down")
        return ticket

    def cancel(self, ticket: int) -> None:
        """Forget a call and tell the worker."""
        if self._sinks.pop(ticket, None) is not None and self._up:
            self._outbox.cancel(ticket)
            self._lingering.say()

    async def run(self) -> None:
        """Keep the link open until cancelled."""
        await afterwards(self._keep_open(), self._stop)

    async def _keep_open(self) -> None:
        backoff_s = self._settings.backoff_min_s
        while True:
            was_up = await self._session()
            if was_up:
                backoff_s = self._settings.backoff_min_s
            await asyncio.sleep(backoff_s * self._rng.uniform(0.5, 1.0))
            backoff_s = min(backoff_s * 2, self._settings.backoff_max_s)

    async def _stop(self) -> None:
        self._lose_all("the gateway stops")
        await self.calls.close()

    async def _session(self) -> bool:
        """One connection, to its end; True when it had come up."""
        try:
            reason = await self._linked()
        finally:
            was_up, self._up = self._up, False
            draining, self._draining = self._draining, False
        if was_up:
            # First the pool, then the calls: none of them may be sent back here.
            self._observer.link_down(reason, planned=draining)
            # A worker that drains hands back what it could not finish: that says nothing bad about it.
            self._lose_all(reason, EndCode.CANCELLED if draining else EndCode.LINK_LOST)
            await self.calls.close()
        else:
            self._observer.connect_failed(reason)
        return was_up

    async def _linked(self) -> str:
        """One connection, to its end; why it ended. Nothing of it is left."""
        silence_s = self._settings.silence_s
        self._outbox = GatewayOutbox(self._loop.time)
        self._outbox.hello(self._gateway_id, self._version)
        over: asyncio.Future[str] = self._loop.create_future()
        self._over = over
        try:
            self._call = await self._dialer(
                self._address, self, timeout_s=silence_s, max_message_bytes=_FRAME_BYTES_MAX
            )
        except DialError as refused:
            return f"unavailable: {refused}"
        except Exception as error:  # noqa: BLE001 - a bug costs this link, not the process
            _log.exception("link failed", address=self._address)
            return str(error)
        self._silence = Silence(silence_s, self._on_silence, loop=self._loop)
        self._lingering.now()
        return await afterwards(over, self._let_go)

    async def _let_go(self) -> None:
        """Of the session's connection."""
        call, self._call = self._call, None
        if self._silence is not None:
            self._silence.stop()
        self._lingering.stop()
        if call is not None:
            call.abort()
            await call.closed()

    def on_message(self, message: bytes) -> None:
        """A frame has come."""
        if self._over.done():
            return
        if self._silence is not None:
            self._silence.heard_at = self._loop.time()
        try:
            self._deliver(_frame(message))
        except LinkLostError as lost:
            self._leave(str(lost))
        except Exception as error:  # noqa: BLE001 - a bug on either side costs this link, whose calls move on, not the process
            self._failed(error)

    def on_sendable(self) -> None:
        """The call takes frames again."""
        if self._outbox:
            self._lingering.now()

    def on_end(self, end: CallEnd) -> None:
        """The worker ended the call, or the connection is lost."""
        if end.code is grpc.StatusCode.OK:
            self._leave("the worker closed the link")
        else:
            self._leave(f"{end.code.name.lower()}: {end.message}")

    def _write(self) -> None:
        call, counts, outbox = self._call, self._counts, self._outbox
        if call is None:
            return
        try:
            while outbox and call.sendable:
                frame = outbox.next_frame()
                counts.frames_sent += 1
                counts.items_sent += len(frame.submits) + len(frame.cancels) + len(frame.parts)
                call.send(frame.SerializeToString())
        except Exception as error:  # noqa: BLE001 - as for what comes
            self._failed(error)

    def _deliver(self, frame: pb.WorkerFrame) -> None:
        self._draining = frame.draining
        sinks, counts = self._sinks, self._counts
        ids, chunks, ends = frame.ids, frame.chunks, frame.ends  # each look at a field costs
        said, ended = len(ids), len(ends)
        counts.frames_received += 1
        counts.items_received += said + ended
        if said != len(chunks):
            raise LinkLostError(f"the worker sent {len(chunks)} chunks for {said} ids")
        if said:
            for ticket, data in zip(ids[:], chunks[:], strict=True):  # as lists, which are cheaper to go over
                try:
                    sink = sinks[ticket]
                except KeyError:  # cancelled while these bytes were under way
                    continue
                sink.on_chunk(data)
        if ended:
            for end in ends:
                ended_sink = sinks.pop(end.id, None)
                if ended_sink is not None:
                    ended_sink.on_end(end_from_wire(end))
        if frame.HasField("stats"):
            report = report_from_wire(frame.stats)
            if self._up:
                self._observer.link_report(report)
            else:
                self._up = True
                self._observer.link_up(report)

    def _on_silence(self) -> None:
        self._leave(f"nothing heard for {self._settings.silence_s:g} s")

    def _failed(self, error: Exception) -> None:
        _log.exception("link failed", address=self._address)
        self._leave(str(error))

    def _leave(self, reason: str) -> None:
        """End the session; nothing more of it is delivered."""
        if not self._over.done():
            self._over.set_result(reason)
        if self._call is not None:
            self._call.abort()

    def _lose(self, ticket: int, reason: str, code: EndCode = EndCode.LINK_LOST) -> None:
        sink = self._sinks.pop(ticket, None)
        if sink is not None:
            sink.on_end(End(code, message=reason))

    def _lose_all(self, reason: str, code: EndCode = EndCode.LINK_LOST) -> None:
        for ticket in tuple(self._sinks):
            self._lose(ticket, reason, code)

    def __repr__(self) -> str:
        return f"<LinkClient {self._address} {'up' if self._up else 'down'} in_flight={len(self._sinks)}>"

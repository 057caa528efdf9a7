"""What waits to be written to a link, and how it is cut into frames. Pure: no I/O, no tasks.

Everything queued when a writer runs goes into one frame, so the cost of gRPC, protobuf and the event loop is shared by
all requests that had something to say. A frame carries at most FRAME_BYTES, and a large body goes in parts, one part a
frame, so that it never holds up anybody else's tokens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from neurogate.api.v1 import worker_pb2 as pb
from neurogate.channel import Call, End
from neurogate.rpc.codec import end_to_wire, resume_to_wire

FRAME_BYTES = 256 * 1024
PART_BYTES = 128 * 1024
_ENVELOPE_BYTES = 64
"""Generous cost of an item's tags, lengths and ids."""
_UINT32_MAX = 0xFFFFFFFF


class GatewayOutbox:
    """Frames from a gateway to a worker."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._submits: deque[tuple[int, Call]] = deque()
        self._parts: deque[tuple[int, memoryview]] = deque()
        self._cancels: list[int] = []
        self._gone: set[int] = set()
        """Cancelled while unsent requests were queued: those among them are skipped when their turn comes."""
        self._hello: pb.Hello | None = None

    def __bool__(self) -> bool:
        return bool(self._submits or self._parts or self._cancels or self._hello)

    def hello(self, gateway_id: str, version: str) -> None:
        """Introduce the gateway in the first frame."""
        self._hello = pb.Hello(gateway_id=gateway_id, version=version)

    def submit(self, ticket: int, call: Call) -> None:
        """Queue a request."""
        self._submits.append((ticket, call))

    def cancel(self, ticket: int) -> None:
        """Queue a cancellation, and drop what of the request is still unsent."""
        self._cancels.append(ticket)
        if self._submits:
            self._gone.add(ticket)
        if self._parts:
            self._parts = deque(part for part in self._parts if part[0] != ticket)

    def next_frame(self) -> pb.GatewayFrame:
        """The next frame: everything queued, up to the limit. Call again while the outbox is true."""
        frame = pb.GatewayFrame(cancels=self._cancels)
        if self._hello is not None:
            frame.hello.CopyFrom(self._hello)
            self._hello = None
        room = FRAME_BYTES - len(self._cancels) * 10
        self._cancels = []
        if self._parts:
            ticket, rest = self._parts.popleft()
            frame.parts.add(id=ticket, data=bytes(rest[:PART_BYTES]), last=len(rest) <= PART_BYTES)
            room -= PART_BYTES
            if len(rest) > PART_BYTES:
                self._parts.append((ticket, rest[PART_BYTES:]))
        while self._submits:
            ticket, call = self._submits[0]
            body = call.body
            head_cost = _ENVELOPE_BYTES + len(call.path) + len(call.request_id)
            head_cost += len(call.traceparent) + len(call.tracestate)
            cost = head_cost + (len(body) if len(body) <= PART_BYTES else 0)
            if call.resume is not None:
                cost += len(call.resume.text.encode("utf-8", "replace"))
            if cost > room and room < FRAME_BYTES:
                break
            self._submits.popleft()
            if ticket in self._gone:
                continue
            room -= cost
            self._add(frame, ticket, call)
        if not self._submits:
            self._gone.clear()
        return frame

    def _add(self, frame: pb.GatewayFrame, ticket: int, call: Call) -> None:
        body = call.body
        more = len(body) > PART_BYTES
        frame.submits.add(
            id=ticket,
            deadline_ms=int(min(max(1, (call.deadline - self._now()) * 1000), _UINT32_MAX)),
            traceparent=call.traceparent,
            path=call.path,
            body=b"" if more else body,
            more=more,
            request_id=call.request_id,
            resume=resume_to_wire(call.resume) if call.resume is not None else None,
            tracestate=call.tracestate,
        )
        if more:
            self._parts.append((ticket, memoryview(body)))


class WorkerOutbox:
    """Frames from a worker to a gateway. `size` is what producers look at to stop in time.

    What is said goes into the frame it leaves in: a token costs two appends. What a large answer has to say waits in a
    queue of its own and goes a part at a time, when nothing small waits.
    """

    def __init__(self) -> None:
        self._filled: deque[tuple[list[int], list[bytes], list[tuple[int, End]], int]] = deque()
        """Frames that took no more, with the room left in each."""
        self._ids: list[int] = []
        self._chunks: list[bytes] = []
        self._ends: list[tuple[int, End]] = []
        self._room = FRAME_BYTES
        """Of the frame that these three fill."""
        self._large: dict[int, deque[bytes | End]] = {}
        self._stats: pb.WorkerStatus | None = None
        self._pong = 0
        self._draining = False
        self.size = 0
        """Bytes queued."""

    def __bool__(self) -> bool:
        return bool(self._ids or self._ends or self._filled or self._large or self._stats or self._pong)

    def chunk(self, ticket: int, data: bytes) -> None:
        """Queue bytes of an answer."""
        size = len(data)
        self.size += size
        if size > PART_BYTES or (self._large and ticket in self._large):
            self._queue_large(ticket, data)
            return
        cost = size + _ENVELOPE_BYTES
        if cost > self._room:
            self._fill()
        self._room -= cost
        self._ids.append(ticket)
        self._chunks.append(data)

    def end(self, ticket: int, end: End) -> None:
        """Queue the end of an answer, after its chunks."""
        self.size += len(end.body)
        if self._large and ticket in self._large:
            self._large[ticket].append(end)
            return
        cost = _cost(end)
        if cost > self._room:
            self._fill()
        self._room -= cost
        self._ends.append((ticket, end))

    def stats(self, status: pb.WorkerStatus) -> None:
        """Queue a report; a newer one replaces an unsent one."""
        self._stats = status
        self._draining = status.draining

    def pong(self, ping: int) -> None:
        """Queue the answer to a ping."""
        self._pong = ping

    def next_frame(self) -> pb.WorkerFrame:
        """The next frame: everything queued, in order, up to the limit. Call again while the outbox is true."""
        if not self._filled:
            self._fill()
        ids, chunks, ends, room = self._filled.popleft() if self._filled else ([], [], [], FRAME_BYTES)
        if self._large and room > PART_BYTES + _ENVELOPE_BYTES and not (self._filled or self._ids or self._ends):
            self._put_part(ids, chunks, ends)
        self.size -= sum(map(len, chunks))
        frame = pb.WorkerFrame(ids=ids, chunks=chunks, stats=self._stats, pong=self._pong, draining=self._draining)
        for ticket, end in ends:
            self.size -= len(end.body)
            frame.ends.append(end_to_wire(ticket, end))
        self._stats = None
        self._pong = 0
        return frame

    def _fill(self) -> None:
        """What comes next goes into another frame, if there is anything in this one; it may be larger than a frame."""
        if self._ids or self._ends:
            self._filled.append((self._ids, self._chunks, self._ends, self._room))
            self._ids, self._chunks, self._ends = [], [], []
            self._room = FRAME_BYTES

    def _queue_large(self, ticket: int, data: bytes) -> None:
        rest = memoryview(data)
        parts = (bytes(rest[start : start + PART_BYTES]) for start in range(0, len(rest), PART_BYTES))
        self._large.setdefault(ticket, deque()).extend(parts)

    def _put_part(self, ids: list[int], chunks: list[bytes], ends: list[tuple[int, End]]) -> None:
        ticket = next(iter(self._large))
        queue = self._large.pop(ticket)
        part = queue.popleft()
        if isinstance(part, bytes):
            ids.append(ticket)
            chunks.append(part)
        else:
            ends.append((ticket, part))
        if queue:
            self._large[ticket] = queue  # behind the other large ones


def _cost(end: End) -> int:
    return _ENVELOPE_BYTES + len(end.body) + len(end.message)

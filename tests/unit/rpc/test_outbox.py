"""What waits to be written to a link: whatever is queued in whatever order, the frames stay small and lose nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurogate.api.v1 import worker_pb2 as pb
from neurogate.channel import Call, End, EndCode
from neurogate.endpoint import WorkerReport
from neurogate.rpc.codec import report_to_wire
from neurogate.rpc.outbox import FRAME_BYTES, PART_BYTES, GatewayOutbox, WorkerOutbox

MIB = 1 << 20
SLACK_BYTES = 1024
"""Tags and lengths of a frame that holds nothing but its limit."""

SIZES = st.one_of(
    st.integers(0, 300),
    st.integers(0, 2 * MIB),
    st.sampled_from([PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, FRAME_BYTES, 2 * MIB]),
)
PICK = st.integers(0, 1 << 30)
PATTERN = random.Random(1).randbytes(3 * MIB)


def content(ticket: int, size: int) -> bytes:
    """Bytes that are told apart from those of other tickets and other offsets."""
    return PATTERN[ticket % 9973 : ticket % 9973 + size]


def call(body: bytes, *, deadline: float = 60.0, request_id: str = "r") -> Call:
    return Call("/v1/chat/completions", body, False, deadline, request_id, "00-" + "a" * 32 + "-" + "b" * 16 + "-01")


def gateway_outbox(now: float = 0.0) -> GatewayOutbox:
    return GatewayOutbox(lambda: now)


def frames(outbox: GatewayOutbox) -> list[pb.GatewayFrame]:
    """Everything queued, as frames."""
    taken = []
    while outbox:
        taken.append(outbox.next_frame())
    return taken


@dataclass
class Receiver:
    """A worker's view of the frames: bodies put together again, as the protocol says."""

    opened: dict[int, bytearray] = field(default_factory=dict)
    whole: dict[int, bytes] = field(default_factory=dict)
    cancelled: list[int] = field(default_factory=list)

    def take(self, frame: pb.GatewayFrame) -> None:
        assert frame.ByteSize() <= FRAME_BYTES + SLACK_BYTES
        for submit in frame.submits:
            assert submit.id not in self.opened
            assert submit.id not in self.whole
            assert submit.id not in self.cancelled
            if submit.more:
                self.opened[submit.id] = bytearray(submit.body)
            else:
                self.whole[submit.id] = submit.body
        for part in frame.parts:
            assert len(part.data) <= PART_BYTES
            self.opened[part.id] += part.data
            if part.last:
                self.whole[part.id] = bytes(self.opened.pop(part.id))
        for ticket in frame.cancels:
            self.cancelled.append(ticket)
            self.opened.pop(ticket, None)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), SIZES),
        st.tuples(st.just("cancel"), PICK),
        st.tuples(st.just("frame"), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(OPERATIONS)
def test_whatever_a_gateway_queues_arrives_whole_in_small_frames(operations: list[tuple[str, int]]) -> None:
    """Bodies of any size, cancelled or not, cut into frames at any moment."""
    outbox = gateway_outbox()
    receiver = Receiver()
    sizes: dict[int, int] = {}
    cancelled: set[int] = set()
    unseen: set[int] = set()
    for kind, number in operations:
        if kind == "submit":
            ticket = len(sizes) + 1
            sizes[ticket] = number
            outbox.submit(ticket, call(content(ticket, number)))
        elif kind == "cancel" and sizes:
            ticket = 1 + number % len(sizes)
            if ticket not in cancelled:
                cancelled.add(ticket)
                if ticket not in receiver.whole and ticket not in receiver.opened:
                    unseen.add(ticket)
                outbox.cancel(ticket)
        elif outbox:
            receiver.take(outbox.next_frame())
    for frame in frames(outbox):
        receiver.take(frame)
    assert not outbox
    assert not receiver.opened
    assert not unseen & receiver.whole.keys()
    assert receiver.whole.keys() >= sizes.keys() - cancelled
    for ticket, body in receiver.whole.items():
        assert body == content(ticket, sizes[ticket])


def test_a_request_cancelled_before_it_was_sent_is_never_sent() -> None:
    """Not even when it would have gone in a later frame than its cancellation."""
    outbox = gateway_outbox()
    for ticket in range(1, 6):
        outbox.submit(ticket, call(content(ticket, 100_000)))
    outbox.cancel(5)
    sent = [submit.id for frame in frames(outbox) for submit in frame.submits]
    assert sent == [1, 2, 3, 4]


def test_a_new_request_is_sent_after_an_older_one_was_cancelled() -> None:
    outbox = gateway_outbox()
    outbox.submit(1, call(b"old"))
    outbox.cancel(1)
    outbox.submit(2, call(b"new"))
    assert [submit.id for submit in outbox.next_frame().submits] == [2]


def test_a_request_cancelled_while_its_parts_are_under_way_sends_no_more_of_them() -> None:
    outbox = gateway_outbox()
    outbox.submit(1, call(content(1, MIB)))
    outbox.next_frame()
    assert [part.id for part in outbox.next_frame().parts] == [1]
    outbox.cancel(1)
    [last] = frames(outbox)
    assert list(last.cancels) == [1]
    assert not last.parts


def test_a_large_body_does_not_hold_up_small_ones() -> None:
    """A small request goes in the very next frame, however much of large bodies waits."""
    outbox = gateway_outbox()
    for ticket in range(1, 4):
        outbox.submit(ticket, call(content(ticket, 2 * MIB)))
    outbox.submit(4, call(b"small"))
    assert 4 in [submit.id for submit in outbox.next_frame().submits]
    for ticket in range(5, 40):
        outbox.submit(ticket, call(b"small"))
        assert [submit.id for submit in outbox.next_frame().submits] == [ticket]


def test_large_bodies_share_the_link() -> None:
    """Their parts take turns, so the second is not sent after all of the first."""
    outbox = gateway_outbox()
    outbox.submit(1, call(content(1, MIB)))
    outbox.submit(2, call(content(2, MIB)))
    order = [part.id for frame in frames(outbox) for part in frame.parts]
    assert order == [1, 2] * 8


def test_everything_queued_goes_into_one_frame() -> None:
    outbox = gateway_outbox()
    for ticket in range(1, 101):
        outbox.submit(ticket, call(b"{}"))
    outbox.cancel(1000)
    [frame] = frames(outbox)
    assert len(frame.submits) == 100
    assert list(frame.cancels) == [1000]


def test_the_first_frame_introduces_the_gateway() -> None:
    outbox = gateway_outbox()
    outbox.hello("gateway-1", "1.2.3")
    outbox.submit(1, call(b"{}"))
    [frame] = frames(outbox)
    assert (frame.hello.gateway_id, frame.hello.version) == ("gateway-1", "1.2.3")
    outbox.submit(2, call(b"{}"))
    assert not outbox.next_frame().HasField("hello")


def test_a_submit_carries_what_the_worker_must_know() -> None:
    outbox = gateway_outbox(now=10.0)
    outbox.submit(7, call(b"{}", deadline=12.5, request_id="req-7"))
    [submit] = outbox.next_frame().submits
    assert (submit.id, submit.path, submit.body, submit.more) == (7, "/v1/chat/completions", b"{}", False)
    assert (submit.request_id, submit.deadline_ms) == ("req-7", 2500)
    assert submit.traceparent.startswith("00-")


@pytest.mark.parametrize(("deadline", "sent_ms"), [(9.0, 1), (10.0, 1), (1e12, 0xFFFFFFFF), (float("inf"), 0xFFFFFFFF)])
def test_any_deadline_fits_the_wire(deadline: float, sent_ms: int) -> None:
    """One that has passed leaves the least time there is; one beyond the wire's range the most."""
    outbox = gateway_outbox(now=10.0)
    outbox.submit(1, call(b"{}", deadline=deadline))
    assert outbox.next_frame().submits[0].deadline_ms == sent_ms


@dataclass
class Answers:
    """A gateway's view of the frames."""

    chunks: dict[int, bytearray] = field(default_factory=dict)
    ends: dict[int, pb.End] = field(default_factory=dict)

    def take(self, frame: pb.WorkerFrame) -> None:
        assert frame.ByteSize() <= FRAME_BYTES + SLACK_BYTES
        for ticket, data in zip(frame.ids, frame.chunks, strict=True):
            assert ticket not in self.ends
            self.chunks.setdefault(ticket, bytearray()).extend(data)
        for end in frame.ends:
            assert end.id not in self.ends
            self.ends[end.id] = end


ANSWER_OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("chunk"), st.integers(1, 6), SIZES),
        st.tuples(st.just("end"), st.integers(1, 6), st.integers(0, 65536)),
        st.tuples(st.just("stats"), st.just(0), PICK),
        st.tuples(st.just("frame"), st.just(0), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(ANSWER_OPERATIONS)
def test_whatever_a_worker_queues_arrives_whole_and_ends_last(operations: list[tuple[str, int, int]]) -> None:
    """Chunks in order and before their end; `size` is what is queued, and nothing at the end."""
    outbox = WorkerOutbox()
    answers = Answers()
    said: dict[int, bytes] = {}
    ended: dict[int, int] = {}
    for kind, ticket, size in operations:
        if kind == "chunk" and ticket not in ended:
            offset = len(said.get(ticket, b""))
            said[ticket] = said.get(ticket, b"") + content(ticket + offset, size)
            outbox.chunk(ticket, content(ticket + offset, size))
        elif kind == "end" and ticket not in ended:
            ended[ticket] = size
            outbox.end(ticket, End(http_status=500, body=content(ticket, size)))
        elif kind == "stats":
            outbox.stats(report_to_wire(WorkerReport(seq=size)))
        elif kind == "frame" and outbox:
            answers.take(outbox.next_frame())
        arrived = sum(map(len, answers.chunks.values())) + sum(len(end.body) for end in answers.ends.values())
        assert outbox.size == sum(map(len, said.values())) + sum(ended.values()) - arrived
    while outbox:
        answers.take(outbox.next_frame())
    assert outbox.size == 0
    assert {ticket: bytes(data) for ticket, data in answers.chunks.items()} == said
    assert {ticket: end.body for ticket, end in answers.ends.items()} == {
        ticket: content(ticket, size) for ticket, size in ended.items()
    }


def test_tokens_of_all_requests_share_a_frame() -> None:
    outbox = WorkerOutbox()
    for ticket in range(1, 401):
        outbox.chunk(ticket, b"data: {}\n\n")
    outbox.end(1, End(http_status=200))
    frame = outbox.next_frame()
    assert not outbox
    assert list(frame.ids) == list(range(1, 401))
    assert [end.id for end in frame.ends] == [1]


def test_a_newer_report_replaces_an_unsent_one_and_is_sent_once() -> None:
    outbox = WorkerOutbox()
    outbox.stats(report_to_wire(WorkerReport(seq=1)))
    outbox.stats(report_to_wire(WorkerReport(seq=2)))
    assert outbox.next_frame().stats.seq == 2
    assert not outbox
    outbox.pong(9)
    frame = outbox.next_frame()
    assert frame.pong == 9
    assert not frame.HasField("stats")


def test_every_frame_of_a_draining_worker_says_so() -> None:
    outbox = WorkerOutbox()
    outbox.stats(report_to_wire(WorkerReport(draining=True)))
    outbox.next_frame()
    outbox.chunk(1, b"x")
    assert outbox.next_frame().draining


@pytest.mark.parametrize(
    "queue",
    [
        lambda outbox: outbox.chunk(1, b""),
        lambda outbox: outbox.end(1, End(EndCode.BROKEN)),
        lambda outbox: outbox.pong(1),
    ],
)
def test_anything_queued_makes_a_frame(queue: Callable[[WorkerOutbox], None]) -> None:
    outbox = WorkerOutbox()
    assert not outbox
    queue(outbox)
    assert outbox
    outbox.next_frame()
    assert not outbox


def test_a_large_answer_never_holds_up_other_requests_tokens() -> None:
    outbox = WorkerOutbox()
    large = bytes(range(256)) * 4096
    outbox.chunk(1, large)
    outbox.end(1, End(http_status=200))
    got = bytearray()
    ended = False
    while outbox:
        outbox.chunk(2, b"token")
        frame = outbox.next_frame()
        assert (2, b"token") in list(zip(frame.ids, frame.chunks, strict=True))
        assert not ended
        got += b"".join(data for ticket, data in zip(frame.ids, frame.chunks, strict=True) if ticket == 1)
        ended = any(end.id == 1 for end in frame.ends)
        if ended:
            break

    assert bytes(got) == large
    assert ended
    assert outbox.size == 0

"""A call whose other side is written byte by byte."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import grpc
import pytest
from structlog.testing import capture_logs

from http2_support import HEADERS, SETTINGS, MemoryTransport, RecordingOwner, data, message, trailers
from neurogate.rpc.http2 import call as calls
from neurogate.rpc.http2 import frames
from neurogate.rpc.http2.client import ClientCall
from neurogate.rpc.http2.connection import CallEnd
from neurogate.rpc.http2.frames import frame
from neurogate.rpc.http2.headers import HeaderReader, block
from neurogate.virtual_time import run

Told = tuple[RecordingOwner, ClientCall, MemoryTransport]
CODE = grpc.StatusCode


def opened(owner: RecordingOwner | None = None, *, max_message_bytes: int = 100_000) -> Told:
    owner = owner or RecordingOwner()
    call = ClientCall(
        owner,
        "/neurogate.v1.Worker/Link",
        authority="worker:1",
        secure=False,
        loop=asyncio.get_running_loop(),
        max_message_bytes=max_message_bytes,
    )
    transport = MemoryTransport(call)
    call.connection_made(transport)
    return owner, call, transport


def answered(owner: RecordingOwner | None = None) -> Told:
    """A call that the other side has begun to answer, and nothing else written yet."""
    told = opened(owner)
    told[1].data_received(SETTINGS + HEADERS)
    assert told[2].written
    return told


def on_loop(test: Callable[[], None]) -> None:
    async def main() -> None:
        test()
        await asyncio.sleep(0)

    run(main())


def test_a_call_begins_with_everything_in_one_write() -> None:
    def main() -> None:
        _, call, transport = opened()
        assert len(transport.writes) == 1
        assert transport.writes[0].startswith(frames.PREFACE)
        settings, window, headers = transport.frames()
        assert frames.read_settings(settings[3]) == {
            frames.ENABLE_PUSH: 0,
            frames.INITIAL_WINDOW_SIZE: calls.WINDOW,
            frames.MAX_HEADER_LIST_SIZE: 16384,
        }
        assert (window[0], window[2], int.from_bytes(window[3], "big")) == (8, 0, calls.WINDOW - 65535)
        found = HeaderReader().begin(headers[1], headers[2], headers[3])
        assert found is not None
        assert found[0] == 1
        assert found[1].items() >= {(b":path", b"/neurogate.v1.Worker/Link"), (b":authority", b"worker:1")}
        assert call.sendable

    on_loop(main)


def test_messages_go_both_ways_however_the_bytes_are_cut() -> None:
    def main() -> None:
        sent = [b"", b"a", b"b" * 300, b"c" * 20]
        packed = b"".join(map(message, sent))
        wire = SETTINGS + HEADERS + data(packed[:2]) + data(b"") + data(b"\3" + packed[2:40] + b"\0\0\0", flags=8)
        wire += frame(frames.PRIORITY, 0, 1, bytes(5)) + frame(0xEE, 0, 0, b"?") + data(packed[40:])
        wire += trailers(14, "so long, 100%25 sure")
        for cut in range(len(wire) + 1):
            owner, call, transport = opened()
            call.send(b"hello")
            call.data_received(wire[:cut])
            call.data_received(wire[cut:])
            assert owner.messages == sent
            assert owner.ends == [CallEnd(CODE.UNAVAILABLE, "so long, 100% sure")]
            assert transport.closing
            assert (frames.DATA, 0, 1, message(b"hello")) in transport.frames()
        owner, call, _ = opened()
        for at in range(len(wire)):
            call.data_received(wire[at : at + 1])
        assert (owner.messages, len(owner.ends)) == (sent, 1)

    on_loop(main)


def test_what_one_read_makes_us_say_is_one_write() -> None:
    def main() -> None:
        class Answering(RecordingOwner):
            def on_message(self, message: bytes) -> None:
                call.send(message)

        _, call, transport = opened(Answering())
        transport.writes.clear()
        ping = frame(frames.PING, 0, 0, b"12345678")
        call.data_received(SETTINGS + HEADERS + ping + data(message(b"x") + message(b"y")))
        assert len(transport.writes) == 1
        assert transport.frames() == [
            (frames.SETTINGS, frames.ACK, 0, b""),
            (frames.PING, frames.ACK, 0, b"12345678"),
            (frames.DATA, 0, 1, message(b"x")),
            (frames.DATA, 0, 1, message(b"y")),
        ]
        call.data_received(frame(frames.PING, frames.ACK, 0, b"12345678") + frame(frames.SETTINGS, frames.ACK, 0))
        assert not transport.writes

    on_loop(main)


def test_what_the_windows_do_not_let_through_waits_and_the_owner_hears_when_it_went() -> None:
    def main() -> None:
        owner, call, transport = answered()
        call.data_received(frames.settings({frames.INITIAL_WINDOW_SIZE: 10}))
        transport.written  # noqa: B018
        call.send(b"0123456789")
        assert not call.sendable
        assert [len(payload) for *_, payload in transport.frames()] == [10]
        call.data_received(frames.window_update(1, 3))
        assert (owner.sendable, call.sendable) == (0, False)
        call.data_received(frames.settings({frames.INITIAL_WINDOW_SIZE: 100}))
        assert (owner.sendable, call.sendable) == (1, True)
        sent = [payload for kind, *_, payload in transport.frames() if kind == frames.DATA]
        assert b"".join(sent) == b"56789"
        call.send(b"more")
        assert (len(transport.frames()), owner.sendable) == (1, 1)

    on_loop(main)


def test_a_transport_that_has_enough_holds_the_owner_back() -> None:
    def main() -> None:
        owner, call, transport = answered()
        call.data_received(frames.settings({frames.INITIAL_WINDOW_SIZE: 8}))
        call.send(b"0123456789")
        call.pause_writing()
        transport.written  # noqa: B018
        call.data_received(frames.window_update(1, 100))
        assert not transport.writes
        assert not call.sendable
        call.resume_writing()
        assert transport.frames() == [(frames.DATA, 0, 1, b"3456789")]
        assert (owner.sendable, call.sendable) == (1, True)
        call.pause_writing()
        call.resume_writing()
        assert owner.sendable == 2

    on_loop(main)


@pytest.mark.parametrize(
    "piece",
    [
        data(b"\xff" + message(b"x" * 9000) + bytes(255), flags=frames.PADDED),
        data(message(b"x" * 9000)),
        data(message(b"x" * (frames.FRAME_BYTES - 5))),
    ],
)
def test_received_bytes_are_credited_with_their_padding_by_halves_of_the_window(piece: bytes) -> None:
    def main() -> None:
        owner, call, transport = answered()
        size = len(piece) - 9
        count = 0
        while not transport.writes:
            call.data_received(piece)
            count += 1
        assert calls.WINDOW // 2 <= size * count < calls.WINDOW // 2 + size
        credit = (size * count).to_bytes(4, "big")
        assert transport.frames() == [(frames.WINDOW_UPDATE, 0, 0, credit), (frames.WINDOW_UPDATE, 0, 1, credit)]
        assert len(owner.messages) == count

    on_loop(main)


@pytest.mark.parametrize(
    ("wire", "end"),
    [
        (trailers(0), CallEnd(CODE.OK)),
        (trailers(12, "none here"), CallEnd(CODE.UNIMPLEMENTED, "none here")),
        (HEADERS + trailers(0), CallEnd(CODE.OK)),
        (HEADERS + trailers(77), CallEnd(CODE.UNKNOWN, "the stream ended without a status")),
        (HEADERS + data(b"", flags=1), CallEnd(CODE.INTERNAL, "the stream ended without a status")),
        (
            frame(1, 5, 1, block(((":status", "503"), ("content-type", "text/html")))),
            CallEnd(CODE.UNAVAILABLE, "the worker answered with HTTP status 503"),
        ),
        (
            frame(1, 4, 1, block(((":status", "200"), ("content-type", "text/html")))),
            CallEnd(CODE.UNKNOWN, "the worker's answer is not gRPC"),
        ),
        (frame(1, 4, 1, block(((":status", "103"),))) + HEADERS + trailers(0), CallEnd(CODE.OK)),
        (frames.rst_stream(1, 7), CallEnd(CODE.UNAVAILABLE, "the other side reset the stream with code 7")),
        (HEADERS + frames.rst_stream(1, 8), CallEnd(CODE.CANCELLED, "the other side reset the stream with code 8")),
        (frames.goaway(0, 0), CallEnd(CODE.UNAVAILABLE, "the worker takes no call")),
        (frames.goaway(1, 11, "too_many_pings"), CallEnd(CODE.UNAVAILABLE, "too_many_pings")),
        (HEADERS + frames.goaway(1, 0) + trailers(0), CallEnd(CODE.OK)),
    ],
)
def test_a_call_ends_as_the_other_side_says(wire: bytes, end: CallEnd) -> None:
    def main() -> None:
        owner, call, transport = opened()
        call.data_received(SETTINGS + wire)
        assert owner.ends == [end]
        assert call.over
        assert not call.sendable
        assert transport.closing
        call.send(b"too late")
        call.data_received(SETTINGS + trailers(0))

    on_loop(main)


@pytest.mark.parametrize(
    ("wire", "code", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", frames.FRAME_SIZE_ERROR, "it does not speak HTTP/2"),
        (HEADERS, frames.PROTOCOL_ERROR, "the first frame is not SETTINGS"),
        (data(b""), frames.PROTOCOL_ERROR, "the first frame is not SETTINGS"),
        (SETTINGS + data(b""), frames.STREAM_CLOSED, "data outside of the stream"),
        (SETTINGS + data(b"", stream=3), frames.PROTOCOL_ERROR, "which nobody opened"),
        (SETTINGS + data(b"", stream=0), frames.PROTOCOL_ERROR, "which nobody opened"),
        (SETTINGS + frame(1, 4, 3, b""), frames.PROTOCOL_ERROR, "which nobody opened"),
        (SETTINGS + frames.rst_stream(5, 0), frames.PROTOCOL_ERROR, "which nobody opened"),
        (SETTINGS + frames.window_update(5, 1), frames.PROTOCOL_ERROR, "which nobody opened"),
        (SETTINGS + frames.window_update(1, 0), frames.PROTOCOL_ERROR, "of nothing"),
        (SETTINGS + frame(frames.PING, 0, 1, bytes(8)), frames.PROTOCOL_ERROR, "type 6 for stream 1"),
        (SETTINGS + frame(frames.PING, 0, 0, bytes(7)), frames.FRAME_SIZE_ERROR, "PING"),
        (SETTINGS + frame(frames.SETTINGS, 1, 0, bytes(6)), frames.FRAME_SIZE_ERROR, "acknowledgement"),
        (SETTINGS + frame(frames.GOAWAY, 0, 0, bytes(7)), frames.FRAME_SIZE_ERROR, "GOAWAY"),
        (SETTINGS + frame(frames.RST_STREAM, 0, 1, b""), frames.FRAME_SIZE_ERROR, "another length"),
        (SETTINGS + frame(frames.PUSH_PROMISE, 4, 1, bytes(4)), frames.PROTOCOL_ERROR, "a push"),
        (SETTINGS + frame(1, 0, 1, b"") + SETTINGS, frames.PROTOCOL_ERROR, "CONTINUATION"),
        (SETTINGS + frame(1, 0, 1, b"") + data(b""), frames.PROTOCOL_ERROR, "CONTINUATION"),
        (SETTINGS + frame(9, 4, 1, b""), frames.PROTOCOL_ERROR, "CONTINUATION"),
        (SETTINGS + frame(1, 4, 1, b"\xff"), frames.COMPRESSION_ERROR, "cannot be read"),
        (SETTINGS + frame(1, 0x24, 1, b"1234"), frames.FRAME_SIZE_ERROR, "HEADERS is too short"),
        (SETTINGS + HEADERS + HEADERS, frames.PROTOCOL_ERROR, "in the midst"),
        (SETTINGS + HEADERS + data(b"\0\0") + trailers(0), frames.PROTOCOL_ERROR, "inside a message"),
        (SETTINGS + HEADERS + data(b"\0\0", flags=1), frames.PROTOCOL_ERROR, "inside a message"),
        (SETTINGS + HEADERS + data(b"\1\0\0\0\0"), frames.PROTOCOL_ERROR, "compressed"),
        (SETTINGS + HEADERS + data(b"\0\1\0\0\0"), frames.ENHANCE_YOUR_CALM, "more than 100000"),
        (SETTINGS + HEADERS + data(b"", flags=8), frames.PROTOCOL_ERROR, "padding"),
    ],
)
def test_whoever_breaks_the_protocol_is_told_so_and_the_call_ends_once(wire: bytes, code: int, reason: str) -> None:
    def main() -> None:
        owner, call, transport = opened()
        call.data_received(wire)
        assert [end.code for end in owner.ends] == [CODE.INTERNAL]
        assert reason in owner.ends[0].message
        kind, _, _, payload = transport.frames()[-1]
        assert (kind, frames.read_goaway(payload)[1]) == (frames.GOAWAY, code)
        assert transport.closing

    on_loop(main)


def test_more_data_than_was_allowed_ends_the_call() -> None:
    def main() -> None:
        owner, call, transport = answered()
        call._uncredited = calls.WINDOW
        call.data_received(data(b"\0"))
        assert frames.read_goaway(transport.frames()[-1][3])[1] == frames.FLOW_CONTROL_ERROR
        assert owner.ends

    on_loop(main)


def test_a_side_that_asks_for_ever_and_reads_nothing_is_left() -> None:
    def main() -> None:
        owner, call, transport = answered()
        call.pause_writing()
        ping = frame(frames.PING, 0, 0, bytes(8))
        for _ in range(10_000):
            call.data_received(ping)
        assert [end.code for end in owner.ends] == [CODE.INTERNAL]
        assert len(transport.written) < 70_000

    on_loop(main)


def test_a_lost_connection_says_what_is_known_of_it() -> None:
    def main() -> None:
        for error, farewell, reason in (
            (None, b"", "the connection was closed"),
            (ConnectionResetError(104, "Connection reset by peer"), b"", "connection reset by peer"),
            (None, frames.goaway(1, 0, "going home"), "going home"),
        ):
            owner, call, _ = answered()
            call.data_received(farewell)
            call.connection_lost(error)
            assert owner.ends == [CallEnd(CODE.UNAVAILABLE, reason)]
            call.connection_lost(None)
            assert not call.sendable

    on_loop(main)


def test_an_aborted_call_says_nothing_more() -> None:
    async def main() -> None:
        owner, call, transport = answered()
        call.abort()
        call.data_received(trailers(0))
        await call.closed()
        assert (owner.ends, transport.aborted, transport.writes) == ([], True, [])

    run(main())


def test_a_connection_that_comes_about_too_late_is_dropped() -> None:
    async def main() -> None:
        call = ClientCall(
            RecordingOwner(),
            "/link",
            authority="worker:1",
            secure=False,
            loop=asyncio.get_running_loop(),
            max_message_bytes=10,
        )
        call.abort()
        transport = MemoryTransport(call)
        call.connection_made(transport)
        await call.closed()
        assert (transport.aborted, transport.writes) == (True, [])

    run(main())


def test_last_words_have_a_moment_to_be_sent() -> None:
    async def main() -> None:
        class Stuck(MemoryTransport):
            def close(self) -> None:
                self.closing = True

            def abort(self) -> None:
                self.aborted_at = loop.time()
                loop.call_soon(self._protocol.connection_lost, None)

        loop = asyncio.get_running_loop()
        _, call, _ = opened()
        call._transport = transport = Stuck(call)
        began = loop.time()
        call.data_received(SETTINGS + trailers(0))
        await call.closed()
        assert transport.aborted_at - began == pytest.approx(1)

    run(main())


def test_a_bug_of_the_owner_costs_the_call_and_nothing_else() -> None:
    class Buggy(RecordingOwner):
        def on_message(self, message: bytes) -> None:
            raise ZeroDivisionError

        on_sendable = on_message  # type: ignore[assignment]

        def on_end(self, end: CallEnd) -> None:
            super().on_end(end)
            raise ZeroDivisionError

    def main() -> None:
        for wire in (data(message(b"x") + message(b"y")), data(message(b"x"))):
            owner, call, transport = answered(Buggy())
            call.data_received(wire)
            assert owner.ends == [CallEnd(CODE.INTERNAL, "a bug")]
            assert frames.read_goaway(transport.frames()[-1][3])[1] == frames.INTERNAL_ERROR
            assert transport.closing
        owner, call, transport = answered(Buggy())
        call.pause_writing()
        call.resume_writing()
        assert owner.ends == [CallEnd(CODE.INTERNAL, "a bug")]
        assert transport.closing

    with capture_logs() as logs:
        on_loop(main)
    assert {log["event"] for log in logs} == {"call failed"}


PIECES = [
    SETTINGS,
    HEADERS,
    frame(frames.SETTINGS, frames.ACK, 0),
    frames.settings({frames.INITIAL_WINDOW_SIZE: 5}),
    frames.window_update(0, 1000),
    frames.window_update(1, 1000),
    data(message(b"hello")),
    data(b"\0\0\0\0\7abc"),
    data(b"defg"),
    frame(frames.PING, 0, 0, bytes(8)),
    frame(0x42, 0, 0, b"unknown"),
    frame(frames.HEADERS, 0, 1, b""),
    frame(frames.CONTINUATION, frames.END_HEADERS, 1, b"\x88"),
    frames.goaway(1, 0),
    trailers(0),
    frames.rst_stream(1, 8),
]


@pytest.mark.parametrize("seed", range(8))
def test_whatever_comes_the_call_goes_on_or_ends_once(seed: int) -> None:
    """Random bytes, random frames and frames with broken bytes; nothing is raised, and what waits stays bounded."""

    def main() -> None:
        rng = random.Random(seed)
        for _ in range(400):
            owner, call, transport = opened()
            wire = bytearray(SETTINGS + HEADERS if rng.random() < 0.8 else b"")
            for _ in range(rng.randint(1, 12)):
                if rng.random() < 0.2:
                    wire += frame(
                        rng.randrange(12), rng.randrange(256), rng.randrange(4), rng.randbytes(rng.randrange(40))
                    )
                else:
                    wire += rng.choice(PIECES)
            if rng.random() < 0.4:
                wire[rng.randrange(len(wire))] = rng.randrange(256)
            if rng.random() < 0.1:
                wire = bytearray(rng.randbytes(100))
            at = 0
            while at < len(wire):
                size = rng.choice((1, 5, 30, 200))
                call.data_received(bytes(wire[at : at + size]))
                call.send(b"something to say")
                at += size
            assert bool(owner.ends) == call.over
            assert call.over == transport.closing
            call.connection_lost(None)
            assert len(owner.ends) == 1

    with capture_logs() as logs:
        on_loop(main)
    assert not logs


MORE_PIECES = [
    data(message(b"")),
    data(message(b"x" * 100)),
    data(message(b"x" * 101)),
    data(message(b"x") + message(b"y")),
    data(message(b"x"), stream=3),
    data(message(b"x"), stream=1 << 31 | 1),
    data(message(b"x"), flags=frames.END_STREAM),
    data(b"\2" + message(b"x") + bytes(2), flags=frames.PADDED),
    data(b"\1" + message(b"x")[1:]),
    data(message(b"hello")) + frame(frames.PING, 0, 0, bytes(8)),
]


def test_what_looks_like_a_frame_within_a_message_is_none() -> None:
    inner = data(message(b"x"))
    outer = data(message(inner))

    def main() -> None:
        for begun in (outer[: -len(inner)], data(message(inner)[:5])):  # within a frame, and within a message
            owner, call, _ = answered()
            call.data_received(begun)
            call.data_received(inner if begun in outer else data(inner))
            assert owner.messages == [inner]
            assert not owner.ends

    on_loop(main)


@pytest.mark.parametrize("seed", range(8))
def test_where_a_read_begins_and_ends_says_nothing(seed: int) -> None:
    """A message that comes alone takes a shorter way than others, to the same end."""

    def told(reads: list[bytes]) -> tuple[list[bytes], list[CallEnd], bytes]:
        owner, call, transport = opened(max_message_bytes=100)
        for read in reads:
            call.data_received(read)
        return owner.messages, owner.ends, transport.written

    def main() -> None:
        rng = random.Random(seed)
        for _ in range(200):
            pieces = [SETTINGS, HEADERS][: rng.choice((0, 1, 2, 2, 2, 2))]
            pieces += rng.choices(PIECES[6:9] + MORE_PIECES if rng.random() < 0.5 else PIECES + MORE_PIECES, k=6)
            wire = b"".join(pieces)
            by_piece = told(pieces)
            assert told([wire]) == by_piece
            assert told([wire[at : at + 1] for at in range(len(wire))]) == by_piece

    on_loop(main)

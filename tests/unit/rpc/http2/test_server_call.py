"""The server's end of a call against a connection in memory."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from http2_support import SETTINGS, MemoryTransport, RecordingOwner, data, message
from neurogate.rpc.http2 import frames
from neurogate.rpc.http2.connection import CallEnd
from neurogate.rpc.http2.headers import Fields, HeaderReader, block
from neurogate.rpc.http2.server import ServerCall
from neurogate.virtual_time import run

CALL = frames.frame(frames.HEADERS, frames.END_HEADERS, 1, block(((":method", "POST"), (":path", "/x"))))
PING = (frames.PING, 0, 0, bytes(8))
PONG = frames.frame(frames.PING, frames.ACK, 0, bytes(8))


class Served:
    """A call that has begun, its owner and its transport."""

    def __init__(self, *, begin: bool = True) -> None:
        self.owner = RecordingOwner()
        self.call = ServerCall(self.owner, loop=asyncio.get_running_loop(), max_message_bytes=1 << 20)
        self.transport = MemoryTransport(self.call)
        self.call.connection_made(self.transport)
        self._headers = HeaderReader()
        if begin:
            self.say(frames.PREFACE + SETTINGS + CALL)
            opening = self.transport.frames()
            assert [kind for kind, *_ in opening] == [
                frames.SETTINGS,
                frames.WINDOW_UPDATE,
                frames.SETTINGS,
                frames.HEADERS,
            ]
            assert self.fields(opening[-1][3])[b":status"] == b"200"

    def say(self, sent: bytes) -> None:
        self.call.data_received(sent)

    def fields(self, packed: bytes) -> Fields:
        found = self._headers.begin(frames.END_HEADERS, 1, packed)
        assert found is not None
        return found[1]


def test_messages_go_both_ways_and_the_end_is_told_in_trailers() -> None:
    async def main() -> None:
        served = Served()
        served.say(data(message(b"one") + message(b"two")))
        assert served.owner.messages == [b"one", b"two"]
        served.call.send(b"answer")
        served.call.finish(grpc.StatusCode.UNAVAILABLE, "the worker stops: 100 %")
        served.call.finish(grpc.StatusCode.OK)
        said = served.transport.frames()
        assert [kind for kind, *_ in said] == [frames.DATA, frames.GOAWAY, frames.HEADERS]
        assert said[0][3] == message(b"answer")
        assert frames.read_goaway(said[1][3])[:2] == (1, frames.NO_ERROR)
        assert said[2][1] == frames.END_HEADERS | frames.END_STREAM
        assert served.fields(said[2][3]) == {
            b"grpc-status": b"14",
            b"grpc-message": b"the worker stops: 100 %25",
        }
        await served.call.closed()
        assert not served.transport.aborted
        assert served.owner.ends == []

    run(main())


def test_trailers_wait_for_the_messages_before_them() -> None:
    async def main() -> None:
        served = Served()
        served.call.send(bytes(100_000))
        served.call.finish(grpc.StatusCode.OK)
        assert {kind for kind, *_ in served.transport.frames()} == {frames.DATA}
        served.say(frames.window_update(0, 100_000) + frames.window_update(1, 100_000))
        said = [kind for kind, *_ in served.transport.frames()]
        assert said[-2:] == [frames.GOAWAY, frames.HEADERS]
        await served.call.closed()

    run(main())


def test_a_client_that_has_said_everything_still_hears_the_end() -> None:
    async def main() -> None:
        served = Served()
        served.say(data(message(b"last"), flags=frames.END_STREAM))
        assert served.owner.messages == [b"last"]
        assert [end.code for end in served.owner.ends] == [grpc.StatusCode.OK]
        served.call.send(b"answer")
        served.call.finish(grpc.StatusCode.OK)
        assert [kind for kind, *_ in served.transport.frames()] == [frames.DATA, frames.GOAWAY, frames.HEADERS]
        await served.call.closed()

    run(main())


def test_other_streams_are_refused_and_the_call_goes_on() -> None:
    async def main() -> None:
        served = Served()
        served.say(frames.frame(frames.HEADERS, frames.END_HEADERS, 3, block(((":path", "/y"),))))
        served.say(data(message(b"lost"), stream=3) + frames.rst_stream(3, frames.CANCEL))
        assert served.transport.frames() == [
            (frames.RST_STREAM, 0, 3, frames.REFUSED_STREAM.to_bytes(4, "big")),
        ]
        served.say(data(message(b"kept")))
        assert served.owner.messages == [b"kept"]
        served.call.abort()

    run(main())


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (CALL, grpc.StatusCode.INTERNAL),
        (frames.rst_stream(1, frames.CANCEL), grpc.StatusCode.CANCELLED),
        (frames.goaway(0, frames.PROTOCOL_ERROR, "bad"), grpc.StatusCode.UNAVAILABLE),
        (data(message(b"x"), flags=frames.END_STREAM) + data(message(b"y")), grpc.StatusCode.OK),
        (data(bytes(3), flags=frames.END_STREAM), grpc.StatusCode.INTERNAL),
    ],
    ids=["headers twice", "reset", "goaway", "data behind the end", "half a message"],
)
def test_what_ends_a_call(sent: bytes, code: grpc.StatusCode) -> None:
    async def main() -> None:
        served = Served()
        served.say(sent)
        assert [end.code for end in served.owner.ends] == [code]
        await served.call.closed()

    run(main())


def test_a_message_behind_the_end_is_nobodys() -> None:
    async def main() -> None:
        served = Served()
        served.say(data(message(b"x"), flags=frames.END_STREAM))
        served.say(data(message(b"y")))
        assert served.owner.messages == [b"x"]
        kind, _, _, payload = served.transport.frames()[-1]
        assert (kind, frames.read_goaway(payload)[1]) == (frames.GOAWAY, frames.STREAM_CLOSED)
        await served.call.closed()

    run(main())


def test_a_client_that_leaves_as_planned_finishes_its_call() -> None:
    async def main() -> None:
        served = Served()
        served.say(frames.goaway(0, frames.NO_ERROR) + data(message(b"kept")))
        assert (served.owner.messages, served.owner.ends) == ([b"kept"], [])
        served.call.abort()

    run(main())


def test_a_connection_that_is_no_link_ends_without_an_answer() -> None:
    async def main() -> None:
        served = Served(begin=False)
        served.say(b"GET / HTTP/1.1\r\n\r\n" + bytes(100))
        assert [end.code for end in served.owner.ends] == [grpc.StatusCode.INTERNAL]
        served.call.finish(grpc.StatusCode.OK)
        await served.call.closed()

    run(main())


def test_a_client_that_answers_no_ping_is_given_up() -> None:
    async def main() -> None:
        served = Served()
        for _ in range(3):
            await asyncio.sleep(30.5)
            assert served.transport.frames() == [PING]
            served.say(PONG)
        assert served.owner.ends == []
        await asyncio.sleep(40)
        assert served.owner.ends == [CallEnd(grpc.StatusCode.UNAVAILABLE, "the client does not answer")]
        assert served.transport.aborted

    run(main())


@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_end_it_once_or_not_at_all(sent: bytes, step: int) -> None:
    async def main() -> None:
        served = Served()
        for at in range(0, len(sent), step):
            served.say(sent[at : at + step])
        served.call.finish(grpc.StatusCode.OK)
        served.call.abort()
        await served.call.closed()
        assert len(served.owner.ends) <= 1

    run(main())

"""Answers over the gateway's own listener, whose ways for a token and for a whole answer are short ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send
from uvicorn.server import ServerState

from dataplane_support import turns
from gateway_support import CHAT, Edge, edge
from http2_support import MemoryTransport
from neurogate.channel import End, EndCode
from neurogate.dataplane.exchange import Exchange
from neurogate.httpd.commons import Commons
from neurogate.httpd.cycle import RequestCycle, cycle_of
from neurogate.httpd.limits import HttpLimits
from neurogate.httpd.protocol import HttpConnection
from neurogate.testing.workers import FakeCall
from neurogate.virtual_time import run


def request(path: str, body: bytes, lines: bytes = b"") -> bytes:
    return b"POST %b HTTP/1.1\r\nhost: a\r\n%bcontent-length: %d\r\n\r\n%b" % (path.encode(), lines, len(body), body)


REQUEST = request(CHAT, b'{"messages":[{"role":"user","content":"Why?"}],"stream":true}')
WHOLE = b'{"messages":[{"role":"user","content":"Why?"}]}'
GOOD = End(http_status=200)


NOTE = b": continued by another worker, attempt 1\n\n"


def resumed(held: FakeCall) -> None:
    """What an exchange tells when another worker goes on with its stream."""
    exchange = held._sink
    assert isinstance(exchange, Exchange)
    exchange._receiver.on_resume()


class Client:
    """A client of the listener, without a socket: when it reads, the listener is told."""

    def __init__(self, made: Edge, *, behind: bool = False, closes: bool = False) -> None:
        """`behind` somebody who passes on what is sent, so that no short way is found; `closes` as a listener does."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async def passing(message: Message) -> None:
                await send(message)

            self.sends.append(send)
            await made.endpoints[scope["path"]](scope, receive, passing if behind else send)

        self.sends: list[Send] = []
        self.made = made
        loop = asyncio.get_running_loop()
        self.state = ServerState()
        commons = Commons(
            app,
            self.state,
            limits=HttpLimits(),
            security=b"",
            secure=False,
            on_refused=lambda _: None,
            loop=loop,
        )
        commons.closes = closes
        self.connection = HttpConnection(commons)
        self.transport = MemoryTransport(self.connection)
        self.connection.connection_made(self.transport)

    async def ask(self, request: bytes = REQUEST) -> FakeCall:
        """Send a request, and give what the worker got of it."""
        self.connection.data_received(request)
        await turns()
        return self.made.data_plane.worker().calls[-1]

    @property
    def cycle(self) -> RequestCycle:
        """The answer that was asked for last."""
        return self.sends[-1].__self__  # type: ignore[attr-defined, no-any-return]

    def answer(self) -> tuple[bytes, bool]:
        """What a client reads of the body, and whether it is whole. Anything that is no HTTP raises."""
        reader = h11.Connection(h11.CLIENT)
        reader.send(h11.Request(method="POST", target="/", headers=[("host", "a"), ("content-length", "0")]))
        reader.send(h11.EndOfMessage())
        reader.receive_data(b"".join(self.transport.writes))
        body = b""
        while True:
            event: Any = reader.next_event()
            if isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return body, True
            elif event is h11.NEED_DATA:
                return body, False


@asynccontextmanager
async def listening(*, behind: bool = False, closes: bool = False, **settings: Any) -> AsyncIterator[Client]:
    """A client of the hot endpoints; afterwards its connection is over."""
    async with edge(**settings) as made:
        client = Client(made, behind=behind, closes=closes)
        yield client
        await turns()
        client.transport.abort()
        await turns()
        assert not client.state.tasks


def test_pieces_come_out_in_order_one_write_each() -> None:
    async def main() -> None:
        async with listening() as client:
            held = await client.ask()
            pieces = [b"x" * size for size in (1, 15, 16, 170, 1022, 1023, 1024, 1025, 100_000)]
            for piece in pieces:
                held.chunk(piece)
            assert len(client.transport.writes) == len(pieces)
            assert client.answer() == (b"".join(pieces), False)
            held.end(GOOD)
            assert client.answer() == (b"".join(pieces), True)

    run(main())


def test_only_what_is_behind_the_first_piece_and_before_the_last_word_takes_the_short_way() -> None:
    async def main() -> None:
        async with listening() as client:
            held = await client.ask()
            assert client.cycle.piece(b"x") == 0
            held.chunk(b"first")
            assert client.cycle.piece(b"second") == 6
            client.connection.pause_writing()
            assert client.cycle.piece(b"x") == 0
            client.connection.resume_writing()
            assert client.cycle.piece(b"") == 0
            held.end(GOOD)
            assert client.cycle.piece(b"x") == 0
            assert client.answer() == (b"firstsecond", True)

    run(main())


def test_a_piece_of_nothing_does_not_end_the_answer() -> None:
    async def main() -> None:
        async with listening() as client:
            held = await client.ask()
            for piece in (b"", b"a", b"", b"b"):
                held.chunk(piece)
            assert client.answer() == (b"ab", False)
            held.end(GOOD)
            assert client.answer() == (b"ab", True)

    run(main())


def test_what_comes_when_a_client_reads_again_does_not_overtake_what_waits() -> None:
    async def main() -> None:
        async with listening() as client:
            held = await client.ask()
            held.chunk(b"1")
            client.connection.pause_writing()
            held.chunk(b"2")
            held.chunk(b"3")
            client.connection.resume_writing()
            held.chunk(b"4")  # in the same turn: nothing that waited was written yet
            await turns()
            held.chunk(b"5")
            held.chunk(b"6")
            held.end(GOOD)
            assert client.answer() == (b"123456", True)

    run(main())


def test_a_note_that_waits_is_not_overtaken_either() -> None:
    async def main() -> None:
        async with listening() as client:
            held = await client.ask()
            held.chunk(b"1")
            client.connection.pause_writing()
            resumed(held)
            client.connection.resume_writing()
            held.chunk(b"2")
            await turns()
            held.end(GOOD)
            assert client.answer() == (b"1" + NOTE + b"2", True)

    run(main())


def test_a_client_that_does_not_read_is_cut_off_and_gets_nothing_more() -> None:
    async def main() -> None:
        async with listening(stream_buffer_bytes=1000) as client:
            held = await client.ask()
            held.chunk(b"1")
            client.connection.pause_writing()
            for _ in range(20):
                held.chunk(b"x" * 100)
            assert client.transport.aborted
            client.connection.resume_writing()
            await turns()
            assert held.cancelled
            assert client.answer() == (b"1", False)

    run(main())


def test_nothing_is_written_for_a_client_that_is_gone() -> None:
    async def main() -> None:
        async with listening() as client:
            held = await client.ask()
            held.chunk(b"1")
            held.chunk(b"2")
            client.transport.abort()
            held.chunk(b"3")
            await turns()
            assert held.cancelled
            assert client.cycle.piece(b"x") == 0

    run(main())


def test_a_write_that_fails_gives_the_client_up() -> None:
    async def main() -> None:
        async with listening() as client:
            held = await client.ask()
            held.chunk(b"1")
            client.transport.closing = True  # and so the next write raises
            held.chunk(b"2")
            held.chunk(b"3")
            await turns()
            assert held.cancelled
            assert client.answer() == (b"1", False)
            client.transport.closing = False

    run(main())


def test_an_answer_behind_another_one_begins_with_its_head() -> None:
    async def main() -> None:
        async with listening() as client:
            for body in (b"ab", b"cd"):
                client.transport.writes.clear()
                held = await client.ask()
                held.chunk(body[:1])
                held.chunk(body[1:])
                held.end(GOOD)
                await turns()
                assert client.answer() == (body, True)

    run(main())


@pytest.mark.parametrize("own", [True, False])
def test_the_short_way_is_for_a_cycles_own_send(own: bool) -> None:
    async def main() -> None:
        async with listening() as client:
            held = await client.ask()
            send = client.sends[-1]

            async def wrapped(message: Message) -> None:
                await send(message)

            assert (cycle_of(send if own else wrapped) is not None) is own
            held.end(GOOD)

    run(main())


@given(st.lists(st.one_of(st.binary(max_size=30), st.sampled_from(["pause", "resume", "turn", "note"])), max_size=40))
def test_however_the_client_reads_it_reads_what_was_said(steps: list[bytes | str]) -> None:
    async def main() -> None:
        async with listening() as client:
            held = await client.ask()
            held.chunk(b"0")
            said, paused = b"0", False
            for step in steps:
                match step:
                    case bytes():
                        held.chunk(step)
                        said += step
                    case "pause" if not paused:
                        paused = True
                        client.connection.pause_writing()
                    case "resume" if paused:
                        paused = False
                        client.connection.resume_writing()
                    case "note":
                        resumed(held)
                        said += NOTE
                    case _:
                        await turns(1)
                read, whole = client.answer() if client.transport.writes else (b"", False)
                assert said.startswith(read)
                assert not whole
            if paused:
                client.connection.resume_writing()
            held.end(GOOD)
            await turns()
            assert client.answer() == (said, True)

    run(main())


@pytest.mark.parametrize(
    ("asked", "chunks", "end"),
    [
        (request(CHAT, WHOLE), [b'{"choices":', b"[]}"], GOOD),
        (request(CHAT, WHOLE), [b"x" * 300_000], End(http_status=200, content_type="application/x")),
        (request(CHAT, WHOLE), [], End(http_status=200)),
        (request(CHAT, WHOLE), [], End(http_status=204)),
        (request(CHAT, WHOLE), [], End(http_status=404, body=b"{}")),
        (request(CHAT, WHOLE), [], End(http_status=400)),
        (request(CHAT, WHOLE), [], End(EndCode.BUSY, retry_after_s=2.0)),
        (request(CHAT, WHOLE), [], End(EndCode.INTERNAL, message="a bug")),
        (request(CHAT, WHOLE), [b"{}"], End(http_status=200, content_type="no\r\nline")),
        (request(CHAT, WHOLE, b"connection: close\r\n"), [b"{}"], GOOD),
        (request(CHAT, WHOLE, b"expect: 100-continue\r\n"), [b"{}"], GOOD),
        (request("/prompt", b'{"query":"Why?"}'), [b"nonsense"], GOOD),
        (request("/prompt", b'{"query":"Why?"}', b"x-request-id: r-1\r\n"), [], End(http_status=429)),
        (REQUEST, [b"x", b"y" * 2000, b"", b"z"], GOOD),
        (REQUEST, [], GOOD),
        (REQUEST, [b"x"], End(EndCode.BROKEN)),
        (REQUEST, [], End(http_status=422, body=b'{"error":{}}')),
    ],
)
@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize("paused", [False, True])
def test_the_short_ways_write_what_the_long_ones_write(
    asked: bytes, chunks: list[bytes], end: End, closes: bool, paused: bool
) -> None:
    async def written(*, behind: bool) -> tuple[bytes, bool, float]:
        async with listening(behind=behind, closes=closes) as client:
            held = await client.ask(asked)
            if paused:
                client.connection.pause_writing()
            for chunk in chunks:
                held.chunk(chunk)
            held.end(end)
            if paused:
                assert not [each for each in client.transport.writes if not each.startswith(b"HTTP/1.1 100")]
                client.connection.resume_writing()
            await turns()
            statuses = (200, 204, 400, 404, 422, 429, 499, 500, 502, 503)
            counted = sum(client.made.count(status, path) for status in statuses for path in (CHAT, "/prompt"))
            return b"".join(client.transport.writes), client.transport.closing, counted

    async def main() -> None:
        short = await written(behind=False)
        assert short == await written(behind=True)
        assert short[2] == 1

    run(main())


def test_a_whole_answer_is_one_write() -> None:
    async def main() -> None:
        async with listening() as client:
            for _ in range(2):
                client.transport.writes.clear()
                held = await client.ask(request(CHAT, WHOLE))
                held.chunk(b"{}")
                held.end(GOOD)
                assert len(client.transport.writes) == 1
                assert client.answer() == (b"{}", True)
                assert not client.cycle.answer(200, b"", b"again")
                await turns()

    run(main())

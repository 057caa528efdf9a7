"""A connection to an engine: answers in every form of HTTP/1.1, cut anywhere, and what becomes of the connection."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import weakref
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from neurogate.engines.connection import HEAD_BYTES_MAX, Connection
from neurogate.engines.lost import ConnectionLostError
from neurogate.virtual_time import run

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\nX-Trailer: 1\r\n\r\n"
)
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello, world"
ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhello, world"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"


class FakeTransport(asyncio.Transport):
    """Keeps what is written, and whether more may come."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.unsent = 0
        self.reading = True
        self.aborted = False

    def write(self, data: object) -> None:
        self.written.append(data)  # type: ignore[arg-type]

    def writelines(self, list_of_data: object) -> None:
        self.written += list_of_data  # type: ignore[arg-type]

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Wire:
    """A connection and the other end of it."""

    def __init__(self) -> None:
        self.transport = FakeTransport()
        self.lost: list[Connection] = []
        self.connection = Connection(asyncio.get_running_loop(), self.lost.append)
        self.connection.connection_made(self.transport)

    async def asked(self) -> asyncio.Task[None]:
        """A request that has been sent."""
        asking = asyncio.create_task(self.connection.ask(b"POST", b"{}"))
        await asyncio.sleep(0)
        return asking

    async def answered(self, data: bytes = SIZED) -> Connection:
        """A request whose answer has begun with these bytes."""
        asking = await self.asked()
        self.say(data)
        await asking
        return self.connection

    def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.connection.data_received(piece)

    def leave(self, error: Exception | None = None) -> None:
        self.connection.connection_lost(error)


def on_a_wire(test: Callable[[Wire], Awaitable[None]]) -> None:
    async def main() -> None:
        await test(Wire())

    run(main())


async def whole(connection: Connection) -> bytes:
    body = b""
    while piece := await connection.read():
        body += piece
    return body


@pytest.mark.parametrize("answer", [CHUNKED, SIZED, ENDLESS])
@pytest.mark.parametrize("pushed", [False, True])
def test_an_answer_is_the_same_however_it_is_cut(answer: bytes, *, pushed: bool) -> None:
    async def at(cut: int, wire: Wire) -> bytes:
        asking = await wire.asked()
        wire.say(answer[:cut])
        wire.say(answer[cut:])
        await asking
        if answer is ENDLESS:
            wire.leave()
        if not pushed:
            return await whole(wire.connection)
        taken: list[bytes] = []
        assert not await wire.connection.pump(lambda piece: taken.append(piece) is None)
        return b"".join(taken)

    async def main() -> None:
        for cut in range(1, len(answer)):
            assert await at(cut, Wire()) == b"hello, world"

    run(main())


def test_it_sends_what_it_is_given_and_tells_the_head() -> None:
    async def test(wire: Wire) -> None:
        connection = await wire.answered(
            b"HTTP/1.1 429 Slow\r\nRetry-After: 3\r\nRETRY-after: 4\r\nContent-Length: 0\r\n\r\n"
        )
        assert wire.transport.written == [b"POST{}"]
        assert connection.status == 429
        assert connection.headers[b"retry-after"] == b"3"
        assert await connection.read() == b""

    on_a_wire(test)


def test_a_large_body_is_not_copied() -> None:
    async def test(wire: Wire) -> None:
        body = b"x" * 100_000
        asking = asyncio.create_task(wire.connection.ask(b"POST", body))
        await asyncio.sleep(0)
        wire.say(SIZED)
        await asking
        head, sent = wire.transport.written
        assert head == b"POST"
        assert sent is body

    on_a_wire(test)


def test_an_answer_that_announces_another_is_none() -> None:
    async def test(wire: Wire) -> None:
        asking = await wire.asked()
        wire.say(b"HTTP/1.1 100 Continue\r\nX-Early: 1\r\n\r\n")
        assert not asking.done()
        wire.say(b"HTTP/1.1 103 Early Hints\r\n\r\n" + SIZED)
        await asking
        assert wire.connection.status == 200
        assert b"x-early" not in wire.connection.headers
        assert await whole(wire.connection) == b"hello, world"
        assert wire.connection.reusable

    on_a_wire(test)


def test_trailers_are_no_headers() -> None:
    async def test(wire: Wire) -> None:
        connection = await wire.answered(CHUNKED)
        assert await whole(connection) == b"hello, world"
        assert b"x-trailer" not in connection.headers
        assert connection.reusable

    on_a_wire(test)


def test_a_second_request_goes_over_the_same_connection() -> None:
    async def test(wire: Wire) -> None:
        for answer in (SIZED, CHUNKED, SIZED):
            connection = await wire.answered(answer)
            assert await whole(connection) == b"hello, world"
            assert connection.reusable

    on_a_wire(test)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        HEAD + b"{}",
    ],
)
def test_it_is_not_used_again_when_the_engine_does_not_keep_it_or_has_more_to_say(answer: bytes) -> None:
    async def test(wire: Wire) -> None:
        connection = await wire.answered(answer)
        assert await connection.read() == b"{}"
        assert not connection.reusable

    on_a_wire(test)


def test_it_is_not_used_again_before_the_request_is_sent() -> None:
    async def test(wire: Wire) -> None:
        connection = await wire.answered()
        assert connection.reusable
        wire.transport.unsent = 1
        assert not connection.reusable

    on_a_wire(test)


def test_who_speaks_without_being_asked_is_cut_off() -> None:
    async def test(wire: Wire) -> None:
        assert await whole(await wire.answered()) == b"hello, world"
        wire.say(SIZED)
        assert wire.transport.aborted
        assert not wire.connection.reusable
        with pytest.raises(ConnectionLostError, match="without being asked"):
            await wire.connection.ask(b"POST", b"")

    on_a_wire(test)


@pytest.mark.parametrize("answer", [CHUNKED, SIZED])
def test_an_answer_that_is_cut_is_told_after_what_came(answer: bytes) -> None:
    async def test(wire: Wire) -> None:
        connection = await wire.answered(answer[: answer.index(b"hello") + 5])
        wire.leave()
        assert await connection.read() == b"hello"
        with pytest.raises(ConnectionLostError):
            await connection.read()
        assert wire.lost == [connection]

    on_a_wire(test)


def test_an_answer_without_a_length_is_whole_only_when_the_connection_is_closed_properly() -> None:
    async def test(wire: Wire) -> None:
        connection = await wire.answered(ENDLESS)
        wire.leave(ConnectionResetError("reset"))
        assert await connection.read() == b"hello, world"
        with pytest.raises(ConnectionResetError):
            await connection.read()

    on_a_wire(test)


@pytest.mark.parametrize(
    "told",
    [
        b"Transfer-Encoding: chunked ",
        b"Transfer-Encoding: Chunked\t",
        b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: chunked;q=1",
    ],
)
def test_where_chunks_might_be_the_end_of_the_connection_is_no_end(told: bytes) -> None:
    async def test(wire: Wire) -> None:
        connection = await wire.answered(b"HTTP/1.1 200 OK\r\n" + told + b"\r\n\r\n5\r\nhello\r\n")
        wire.leave()
        with pytest.raises(ConnectionLostError):
            await whole(connection)

    on_a_wire(test)


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 2", HEAD[:-2]])
def test_no_head_is_an_error(data: bytes) -> None:
    async def test(wire: Wire) -> None:
        asking = await wire.asked()
        if data:
            wire.say(data)
        wire.leave()
        with pytest.raises(ConnectionLostError):
            await asking

    on_a_wire(test)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "no HTTP"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * HEAD_BYTES_MAX, "bytes"),
    ],
)
def test_what_is_no_answer_is_an_error_and_cuts_the_connection(data: bytes, told: str) -> None:
    async def test(wire: Wire) -> None:
        asking = await wire.asked()
        wire.say(data)
        with pytest.raises(ConnectionLostError, match=told):
            await asking
        assert wire.transport.aborted

    on_a_wire(test)


def test_nonsense_in_the_middle_is_told_after_what_came() -> None:
    async def test(wire: Wire) -> None:
        connection = await wire.answered(CHUNKED[: CHUNKED.index(b"7;x")] + b"nonsense\r\n")
        assert await connection.read() == b"hello"
        with pytest.raises(ConnectionLostError, match="no HTTP"):
            await connection.read()

    on_a_wire(test)


def test_an_answer_that_is_compressed_all_the_same_is_inflated() -> None:
    async def test(wire: Wire) -> None:
        packed = gzip.compress(b"hello, world")
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
        connection = await wire.answered(head + packed[:10])
        wire.say(packed[10:])
        assert await whole(connection) == b"hello, world"

    on_a_wire(test)


@pytest.mark.parametrize("length", [True, False])
def test_a_compressed_answer_without_its_end_is_cut(*, length: bool) -> None:
    async def test(wire: Wire) -> None:
        packed = gzip.compress(b"hello, world" * 1000)[:-9]
        told = b"Content-Length: %d\r\n" % len(packed) if length else b""
        connection = await wire.answered(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n" + told + b"\r\n" + packed)
        wire.leave()
        with pytest.raises(ConnectionLostError):
            await whole(connection)

    on_a_wire(test)


def test_a_compressed_answer_without_a_body_is_whole() -> None:
    async def test(wire: Wire) -> None:
        connection = await wire.answered(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n")
        assert await whole(connection) == b""
        assert connection.reusable

    on_a_wire(test)


def test_a_small_piece_that_becomes_too_large_is_an_error() -> None:
    async def test(wire: Wire) -> None:
        packed = gzip.compress(bytes(40 << 20))
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
        connection = await wire.answered(head + packed)
        with pytest.raises(ConnectionLostError):
            await connection.read()

    on_a_wire(test)


@pytest.mark.parametrize("answer", [b"", HEAD])
@pytest.mark.parametrize("before", [False, True])
def test_a_failure_keeps_nothing_of_who_asked(answer: bytes, *, before: bool) -> None:
    class Request:
        pass

    async def failing(wire: Wire) -> weakref.ref[Request]:
        request = Request()
        with contextlib.suppress(ConnectionLostError):
            await wire.connection.ask(b"POST", b"")
            await wire.connection.read()
        return weakref.ref(request)

    async def test(wire: Wire) -> None:
        if before:
            wire.connection.close()
        asking = asyncio.create_task(failing(wire))
        await asyncio.sleep(0)
        if not before:
            if answer:
                wire.say(answer)
            wire.leave()
        gc.disable()
        try:
            assert (await asking)() is None
        finally:
            gc.enable()

    on_a_wire(test)


# Pushing


CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


framed = pytest.mark.parametrize(
    ("head", "piece"), [(HEAD, lambda data: data), (CHUNKS + chunk(b"_"), chunk)], ids=["sized", "chunked"]
)
Framing = Callable[[bytes], bytes]

READS = [
    chunk(b"data: a\n\n"),
    chunk(b"x"),
    chunk(b"\r\n"),
    chunk(chunk(b"a chunk within a chunk")),
    chunk(bytes(2 * 1024)),
    chunk(b"a") + chunk(b"b"),
    chunk(b"ends in the head of the next\r\n") + b"8\r\n",
    b"B;x=y\r\nhello world\r\n",
    b"0000B\r\nhello world\r\n",
    b"b\r\nhello ",
    b"3\r\nnot",
    b"world",
    b"\r\n",
    b"5",
    b"1\r\n5\r\n5\r\n",
    b"8\r\nwrong length\r\n",
    b"9\r\nwrong end!!",
    b"-\r\n",
    b"-1\r\n",
    b"-" + bytes(18) + b"\r\n",
    b"-" + bytes(259) + b"\r\n",
    b"0\r\n",
    b"0\r\n\r\n",
    b"",
]


async def begun(wire: Wire, head: bytes) -> Connection:
    """An answer of which nothing is left to take; chunks are expected once there was one."""
    connection = await wire.answered(head)
    if head is not HEAD:
        assert await connection.read() == b"_"
    return connection


async def pushed(wire: Wire, *reads: bytes) -> tuple[bytes, bool, str]:
    """What a taker got of an answer in chunks, whether it was whole, and what was wrong with it."""
    connection = await wire.answered(CHUNKS)
    taken = bytearray()
    pumping = asyncio.create_task(connection.pump(lambda piece: taken.extend(piece) is None))
    await asyncio.sleep(0)
    for read in reads:
        wire.say(read)
    wire.leave()
    try:
        more = await pumping
    except ConnectionLostError as error:
        return bytes(taken), False, str(error)
    return bytes(taken), not more, ""


@example([chunk(b"x"), b"9\r\nwrong end!!"])
@given(st.lists(st.sampled_from(READS), max_size=6))
def test_a_read_that_is_one_chunk_is_what_it_is_in_pieces(reads: list[bytes]) -> None:
    """It takes a shorter way than through the parser, which is to be none the wiser."""

    async def main() -> None:
        bytewise = [bytes([byte]) for byte in b"".join(reads)]
        taken, whole, error = await pushed(Wire(), *reads)
        known, is_whole, problem = await pushed(Wire(), *bytewise)
        assert (whole, error) == (is_whole, problem)
        assert taken == known or known.startswith(taken)  # of a read with nonsense in it nothing is taken
        assert taken == known or error

    run(main())


@pytest.mark.parametrize("length", range(3, 300))
@pytest.mark.parametrize("begin", [b"-", b"x", b"\0"])
def test_what_begins_as_no_chunk_does_is_never_taken_for_one(length: int, begin: bytes) -> None:
    """Of some lengths there is no chunk at all."""

    async def test(wire: Wire) -> None:
        nonsense = begin + bytes(length - 3) + b"\r\n"
        taken, whole, error = await pushed(wire, chunk(b"first"), nonsense, chunk(b"more"), b"0\r\n\r\n")
        assert (taken, whole) == (b"first", False)
        assert error

    on_a_wire(test)


@pytest.mark.parametrize("size", [1, 9, 10, 15, 16, 17, 255, 256, 257, 2000, 2041, 2042, 2048, 4095, 4096, 70_000])
def test_a_chunk_of_any_size_arrives(size: int) -> None:
    async def test(wire: Wire) -> None:
        data = bytes(number % 251 for number in range(size))
        got = await pushed(wire, chunk(b"first"), chunk(data), chunk(data).replace(b"\r\n", b" \r\n", 1), b"0\r\n\r\n")
        assert got == (b"first" + data + data, True, "")

    on_a_wire(test)


def test_chunks_of_a_compressed_answer_are_inflated_one_by_one() -> None:
    async def test(wire: Wire) -> None:
        connection = await wire.answered(CHUNKS[:-2] + b"Content-Encoding: gzip\r\n\r\n")
        taken: list[bytes] = []
        pumping = asyncio.create_task(connection.pump(lambda piece: taken.append(piece) is None))
        await asyncio.sleep(0)
        packed = gzip.compress(b"hello, world")
        wire.say(*(chunk(packed[at : at + 5]) for at in range(0, len(packed), 5)), b"0\r\n\r\n")
        assert await pumping is False
        assert b"".join(taken) == b"hello, world"

    on_a_wire(test)


def test_what_comes_together_is_pushed_together_and_where_it_arrives() -> None:
    async def test(wire: Wire) -> None:
        connection = await wire.answered(CHUNKED[: CHUNKED.index(b"5\r\n")])
        taken: list[bytes] = []
        pumping = asyncio.create_task(connection.pump(lambda piece: taken.append(piece) is None))
        await asyncio.sleep(0)
        wire.say(b"1\r\na\r\n1\r\nb\r\n")
        wire.say(b"1\r\nc\r\n")
        assert taken == [b"ab", b"c"]
        assert not pumping.done()
        wire.say(b"0\r\n\r\n")
        assert await pumping is False

    on_a_wire(test)


@framed
def test_who_wants_no_more_gets_no_more_until_it_asks_again(head: bytes, piece: Framing) -> None:
    async def test(wire: Wire) -> None:
        connection = await begun(wire, head)
        taken: list[bytes] = []
        pumping = asyncio.create_task(connection.pump(lambda piece: taken.append(piece) or len(taken) != 1))
        await asyncio.sleep(0)
        wire.say(piece(b"a"), piece(b"b"), piece(b"c"))
        assert await pumping is True
        assert taken == [b"a"]
        wire.say(piece(b"d"))
        wire.leave()
        with pytest.raises(ConnectionLostError):
            await connection.pump(lambda piece: taken.append(piece) is None)
        assert taken == [b"a", b"bcd"]

    on_a_wire(test)


@framed
def test_what_the_taker_raises_is_raised_where_the_body_is_read(head: bytes, piece: Framing) -> None:
    async def test(wire: Wire) -> None:
        connection = await begun(wire, head)

        def take(_: bytes) -> bool:
            raise ZeroDivisionError

        pumping = asyncio.create_task(connection.pump(take))
        await asyncio.sleep(0)
        wire.say(piece(b"a"))
        with pytest.raises(ZeroDivisionError):
            await pumping
        wire.say(piece(b"b"))
        assert await connection.read() == b"b"

    on_a_wire(test)


@framed
def test_nothing_is_pushed_once_the_reader_is_cancelled(head: bytes, piece: Framing) -> None:
    async def test(wire: Wire) -> None:
        connection = await begun(wire, head)
        taken: list[bytes] = []
        pumping = asyncio.create_task(connection.pump(lambda piece: taken.append(piece) is None))
        await asyncio.sleep(0)
        wire.say(piece(b"a"))
        pumping.cancel()
        wire.say(piece(b"b"))
        with pytest.raises(asyncio.CancelledError):
            await pumping
        wire.say(piece(b"c"))
        assert taken == [b"a"]

    on_a_wire(test)


def test_closing_it_wakes_the_reader() -> None:
    async def test(wire: Wire) -> None:
        connection = await wire.answered(HEAD)
        pumping = asyncio.create_task(connection.pump(lambda _: True))
        await asyncio.sleep(0)
        connection.close()
        with pytest.raises(ConnectionLostError, match="was closed"):
            await pumping
        assert wire.transport.aborted

    on_a_wire(test)


def test_an_answer_that_nobody_takes_stays_in_the_socket() -> None:
    async def test(wire: Wire) -> None:
        connection = await wire.answered(HEAD)
        wire.say(b"x" * 100_000)
        assert wire.transport.reading
        wire.say(b"x" * 100_000)
        assert not wire.transport.reading
        assert len(await connection.read()) == 200_000
        assert wire.transport.reading

    on_a_wire(test)

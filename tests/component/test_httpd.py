"""The HTTP listener over real sockets: start, stop, one write for head and body, and a handle on the connection."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from neurogate.httpd import Connection, HttpLimits, HttpServer
from real_loop import run_real

Handler = Callable[[Connection, Send], Awaitable[None]]


async def say(send: Send, body: bytes, *, status: int = 200, more: bool = False) -> None:
    """A whole answer, or the beginning of one."""
    length = [] if more else [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": length})
    await send({"type": "http.response.body", "body": body, "more_body": more})


def app_of(handler: Handler) -> ASGIApp:
    async def app(scope: Scope, _: Receive, send: Send) -> None:
        await handler(scope["extensions"]["neurogate.connection"], send)

    return app


async def hello(_: Connection, send: Send) -> None:
    await say(send, b"hello")


@asynccontextmanager
async def serving(handler: Handler = hello, **limits: Any) -> AsyncIterator[tuple[HttpServer, int]]:
    """A server and its port."""
    server = HttpServer(app_of(handler), name="TEST_PORT", host="127.0.0.1", port=0, limits=HttpLimits(**limits))
    async with asyncio.TaskGroup() as tasks:
        port = await server.start(tasks)
        try:
            yield server, port
        finally:
            await server.stop(1)


class Client:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def get(self, path: str = "/") -> None:
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await self.writer.drain()

    async def answer(self) -> tuple[bytes, bytes]:
        """Status line, and the body by its length."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.startswith(b"content-length")
        )
        return head.partition(b"\r\n")[0], await self.reader.readexactly(length)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


def test_requests_are_answered_on_one_connection_after_the_other_and_on_the_same() -> None:
    async def main() -> None:
        async with serving() as (_, port):
            for _ in range(2):
                async with connected(port) as client:
                    for _ in range(3):
                        await client.get()
                        assert await client.answer() == (b"HTTP/1.1 200 OK", b"hello")

    run_real(main())


def test_a_stopped_server_takes_no_connection() -> None:
    async def main() -> None:
        async with serving() as (server, port):
            await server.stop(1)
            await server.stop(1)
            with pytest.raises(ConnectionRefusedError):
                async with connected(port):
                    pass

    run_real(main())


def test_a_server_that_never_started_can_be_stopped() -> None:
    async def main() -> None:
        await HttpServer(app_of(hello), name="TEST_PORT", host="127.0.0.1", port=0).stop(1)

    run_real(main())


def test_a_port_that_is_taken_is_named() -> None:
    async def main() -> None:
        async with serving() as (_, port), asyncio.TaskGroup() as tasks:
            second = HttpServer(app_of(hello), name="METRICS_PORT", host="127.0.0.1", port=port)
            with pytest.raises(OSError, match=rf"cannot listen on 127.0.0.1:{port} \(METRICS_PORT\): Address already"):
                await second.start(tasks)

    run_real(main())


def test_an_address_of_another_machine_is_named() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            server = HttpServer(app_of(hello), name="HTTP_PORT", host="203.0.113.1", port=0)
            with pytest.raises(OSError, match=r"cannot listen on 203.0.113.1:0 \(HTTP_PORT\)"):
                await server.start(tasks)

    run_real(main())


def test_a_stop_lets_an_open_request_finish() -> None:
    async def main() -> None:
        begun, gate = asyncio.Event(), asyncio.Event()

        async def slow(_: Connection, send: Send) -> None:
            begun.set()
            await gate.wait()
            await say(send, b"finished")

        async with serving(slow) as (server, port), connected(port) as client, asyncio.TaskGroup() as tasks:
            await client.get()
            await begun.wait()
            stopping = tasks.create_task(server.stop(20))
            refused = False
            while not refused:
                try:
                    async with connected(port):
                        await asyncio.sleep(0)
                except ConnectionError:
                    refused = True
            assert not stopping.done()
            gate.set()
            assert await client.answer() == (b"HTTP/1.1 200 OK", b"finished")

    run_real(main())


def test_a_stop_cuts_what_does_not_finish_in_time(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        ended = asyncio.Event()
        begun = asyncio.Event()

        async def endless(_: Connection, send: Send) -> None:
            await say(send, b"x", more=True)
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with serving(endless) as (server, port), connected(port) as client:
            await client.get()
            await begun.wait()
            await server.stop(1)
            await ended.wait()
            assert not (await client.reader.read()).endswith(b"0\r\n\r\n")

    with caplog.at_level(logging.CRITICAL, "uvicorn.error"):
        run_real(main())


# Writes


def sends_of(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What is written to sockets from here on, one entry a system call. Needs asyncio's own loop."""
    sent: list[bytes] = []
    send = socket.socket.send

    def recording(self: socket.socket, data: bytes, *flags: int) -> int:
        sent.append(bytes(data))
        return send(self, data, *flags)

    monkeypatch.setattr(socket.socket, "send", recording)
    return sent


def test_head_and_body_of_a_whole_answer_are_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with serving() as (_, port), connected(port) as client:
            sent = sends_of(monkeypatch)
            await client.get()
            await client.answer()
            [answer] = [data for data in sent if data.startswith(b"HTTP/1.1 ")]
            assert answer.endswith(b"\r\n\r\nhello")
            assert len(sent) == 2

    asyncio.run(main())


def test_a_head_does_not_wait_for_a_body_that_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def late(_: Connection, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
            await gate.wait()
            await send({"type": "http.response.body", "body": b"late"})

        async with serving(late) as (_, port), connected(port) as client:
            await client.get()
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK")
            gate.set()
            assert await client.reader.readexactly(4) == b"late"

    asyncio.run(main())
    run_real(main())


def test_the_last_words_of_a_connection_that_closes_are_written() -> None:
    """HTTP/1.0: the connection is closed in the turn of the loop in which the answer is written."""

    async def main() -> None:
        async with serving() as (_, port), connected(port) as client:
            client.writer.write(b"GET / HTTP/1.0\r\n\r\n")
            assert (await client.reader.read()).endswith(b"\r\n\r\nhello")

    run_real(main())


def test_a_client_that_waits_for_leave_to_send_its_body_gets_it() -> None:
    async def main() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            body = b""
            more = True
            while more:
                message = await receive()
                body += message["body"]
                more = message["more_body"]
            await say(send, body)

        server = HttpServer(app, name="TEST_PORT", host="127.0.0.1", port=0)
        async with asyncio.TaskGroup() as tasks:
            port = await server.start(tasks)
            async with connected(port) as client:
                client.writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
                assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
                client.writer.write(b"body")
                assert await client.answer() == (b"HTTP/1.1 200 OK", b"body")
            await server.stop(1)

    run_real(main())


def test_a_body_waits_in_the_socket_until_somebody_reads_it() -> None:
    """Its client is slowed down instead of the server's memory filled."""

    async def main() -> None:
        gate = asyncio.Event()
        size = 64 << 20
        pieces: list[int] = []

        async def app(_: Scope, receive: Receive, send: Send) -> None:
            await gate.wait()
            more = True
            while more:
                message = await receive()
                pieces.append(len(message["body"]))
                more = message["more_body"]
            await say(send, b"read")

        server = HttpServer(app, name="TEST_PORT", host="127.0.0.1", port=0)
        async with asyncio.TaskGroup() as tasks:
            port = await server.start(tasks)
            async with connected(port) as client:
                client.writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
                client.writer.write(bytes(size))
                for _ in range(20):
                    async with connected(port):
                        await asyncio.sleep(0)
                gate.set()
                assert (await client.answer())[1] == b"read"
            await server.stop(1)
        assert sum(pieces) == size
        assert pieces[0] < 4 << 20

    run_real(main())


# Heads that are none


@pytest.mark.parametrize("sent", [b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"])
def test_what_is_not_http_is_refused(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving() as (_, port), connected(port) as client:
            client.writer.write(sent)
            assert (await client.reader.read()).startswith(b"HTTP/1.1 400 ")

    with caplog.at_level(logging.CRITICAL, "uvicorn.error"):
        run_real(main())


def test_a_head_without_end_is_refused() -> None:
    """Memory for headers is bounded, in however many pieces they come."""

    async def main() -> None:
        async with serving() as (_, port), connected(port) as client, connected(port) as other:
            client.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
            await other.get()
            await other.answer()  # by now the beginning was read
            client.writer.write(b"X-Filler: " + b"a" * HttpLimits().head_bytes)
            assert (await client.answer())[0].startswith(b"HTTP/1.1 431 ")
            assert await client.reader.read() == b""

    run_real(main())


def test_headers_of_one_request_after_the_other_do_not_add_up() -> None:
    async def main() -> None:
        async with serving() as (_, port), connected(port) as client:
            filler = b"X-Filler: " + b"a" * 7000 + b"\r\n"
            for _ in range(20):
                for piece in (b"GET / HTTP/1.1\r\nHost: x\r\n", filler, b"\r\n"):
                    client.writer.write(piece)
                    await client.writer.drain()
                    await asyncio.sleep(0)
                assert (await client.answer())[1] == b"hello"
            assert 20 * len(filler) > HttpLimits().head_bytes

    run_real(main())


def test_a_head_behind_a_large_body_is_not_taken_for_a_large_head() -> None:
    """As a client sends it that does not wait for one answer before it asks again."""

    async def main() -> None:
        async def app(_: Scope, receive: Receive, send: Send) -> None:
            while (await receive())["more_body"]:
                pass
            await say(send, b"read")

        server = HttpServer(app, name="TEST_PORT", host="127.0.0.1", port=0)
        async with asyncio.TaskGroup() as tasks:
            port = await server.start(tasks)
            async with connected(port) as client:
                size = HttpLimits().head_bytes + 10_000
                client.writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
                client.writer.write(bytes(size) + b"GET / HTTP/1.1\r\nHo")
                assert await client.answer() == (b"HTTP/1.1 200 OK", b"read")
                client.writer.write(b"st: x\r\n\r\n")
                assert await client.answer() == (b"HTTP/1.1 200 OK", b"read")
            await server.stop(1)

    run_real(main())


# The connection


def test_an_endpoint_hears_that_its_client_is_gone() -> None:
    async def main() -> None:
        begun, lost = asyncio.Event(), asyncio.Event()

        async def waiting(connection: Connection, _: Send) -> None:
            connection.on_lost(lost.set)
            begun.set()
            await lost.wait()

        async with serving(waiting) as (_, port):
            async with connected(port) as client:
                await client.get()
                await begun.wait()
                assert not lost.is_set()
            await lost.wait()

    run_real(main())


def test_an_endpoint_that_takes_it_back_hears_nothing() -> None:
    async def main() -> None:
        heard: list[str] = []

        async def answering(connection: Connection, send: Send) -> None:
            connection.on_lost(lambda: heard.append("lost"))
            await say(send, b"hello")
            connection.on_lost(None)

        async with serving(answering) as (_, port):
            for _ in range(2):
                async with connected(port) as client:
                    await client.get()
                    await client.answer()
        assert heard == []

    run_real(main())


def test_an_endpoint_that_asks_too_late_hears_at_once() -> None:
    async def main() -> None:
        begun, lost, heard = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def late(connection: Connection, _: Send) -> None:
            connection.on_lost(lost.set)
            begun.set()
            await lost.wait()
            connection.on_lost(heard.set)
            assert heard.is_set()

        async with serving(late) as (_, port):
            async with connected(port) as client:
                await client.get()
                await begun.wait()
            await heard.wait()

    run_real(main())


def test_an_aborted_connection_is_cut_and_nobody_complains(caplog: pytest.LogCaptureFixture) -> None:
    """The client sees that its answer is not whole; the log has no word of an application that forgot to answer."""

    async def main() -> None:
        lost = asyncio.Event()

        async def aborting(connection: Connection, send: Send) -> None:
            connection.on_lost(lost.set)
            await say(send, b"first", more=True)
            await asyncio.sleep(0)
            connection.abort()
            await lost.wait()

        async with serving(aborting) as (_, port), connected(port) as client:
            await client.get()
            try:
                received = await client.reader.read()
            except ConnectionResetError:
                received = b""
            assert not received.endswith(b"0\r\n\r\n")
            await lost.wait()

    run_real(main())
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_an_abort_drops_a_head_that_is_still_held() -> None:
    async def main() -> None:
        async def aborting(connection: Connection, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            connection.abort()

        async with serving(aborting) as (_, port), connected(port) as client:
            await client.get()
            with suppress(ConnectionResetError):
                assert await client.reader.read() == b""

    run_real(main())


def test_a_client_that_never_reads_the_end_of_its_answer_is_cut_off() -> None:
    """Nobody waits for it any more, so only a timer can."""

    async def main() -> None:
        lost = asyncio.Event()

        async def large(connection: Connection, send: Send) -> None:
            connection.on_lost(lost.set)
            await say(send, bytes(32 << 20))

        async with serving(large, flush_timeout_s=0.05) as (_, port):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.setblocking(False)
                await asyncio.get_running_loop().sock_sendall(client, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                await lost.wait()

    run_real(main())


def test_a_client_that_reads_the_end_slowly_gets_it() -> None:
    async def main() -> None:
        answered = asyncio.Event()

        async def large(_: Connection, send: Send) -> None:
            await say(send, bytes(32 << 20))
            answered.set()

        async with serving(large) as (_, port), connected(port) as client:
            await client.get()
            await answered.wait()
            assert (await client.answer())[1] == bytes(32 << 20)
            await client.get()
            assert (await client.answer())[0] == b"HTTP/1.1 200 OK"

    run_real(main())


# Bodies nobody reads


async def refusing(_: Connection, send: Send) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": 413,
            "headers": [(b"content-length", b"5"), (b"connection", b"close")],
        }
    )
    await send({"type": "http.response.body", "body": b"large"})


def test_a_client_that_is_refused_gets_its_answer_while_it_is_still_sending() -> None:
    """Closing at once would reset the connection, and the reset may overtake the answer."""

    async def main() -> None:
        async with serving(refusing) as (_, port), connected(port) as client:
            client.writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20971520\r\n\r\n" + bytes(1 << 20))
            assert await client.answer() == (b"HTTP/1.1 413 Request Entity Too Large", b"large")
            for _ in range(19):
                client.writer.write(bytes(1 << 20))
                await client.writer.drain()
            assert await client.reader.read() == b""

    run_real(main())


def test_a_request_behind_a_body_nobody_read_is_not_served() -> None:
    """Its client was told that the connection closes."""

    async def main() -> None:
        async with serving(refusing) as (_, port), connected(port) as client:
            client.writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
            await client.answer()
            client.writer.write(b"12345GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await client.reader.read() == b""

    run_real(main())


def test_a_client_that_sends_for_ever_is_cut_off() -> None:
    async def main() -> None:
        lost = asyncio.Event()

        async def watching(connection: Connection, send: Send) -> None:
            connection.on_lost(lost.set)
            await refusing(connection, send)

        async with serving(watching, linger_s=0.05) as (_, port), connected(port) as client:
            client.writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            await client.answer()
            await lost.wait()

    run_real(main())


def test_a_stop_does_not_wait_for_a_client_that_is_still_sending() -> None:
    async def main() -> None:
        async with serving(refusing) as (server, port), connected(port) as client:
            client.writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
            await client.answer()
            await server.stop(20)

    run_real(main())

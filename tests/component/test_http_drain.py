"""A listener that stops: what it says, what it still answers, and when it closes which connection."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from typing import Any

import pytest

from http_support import Echo, Listening, listening, request
from neurogate.httpd import HttpServer
from neurogate.httpd.transport import AnswerTransport
from real_loop import eventually, run_real


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


async def read_answer(reader: asyncio.StreamReader) -> bytes:
    """The head of one answer; its body is read, too."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(length)
    return head


def the_connection(made: Listening) -> Any:
    [connection] = made.server._server.server_state.connections
    return connection


class Gate:
    """Holds requests for /held until it is opened."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.begun = asyncio.Event()

    async def __call__(self, scope: Any) -> None:
        if scope["path"] == "/held":
            self.begun.set()
            await self.opened.wait()


def test_answers_say_close_while_the_listener_says_so() -> None:
    async def main() -> None:
        async with listening(Echo()) as made:
            made.server.say_close(close=True)
            reader, writer = await connect(made.port)
            writer.write(request())
            assert b"\r\nconnection: close\r\n" in await read_answer(reader)
            assert await reader.read() == b"", "and it is closed"
            writer.close()
            made.server.say_close(close=False)
            reader, writer = await connect(made.port)
            for _ in range(2):
                writer.write(request())
                assert b"connection:" not in await read_answer(reader)
            writer.close()

    run_real(main())


def test_a_request_on_a_quiet_connection_is_answered_by_a_listener_that_stops() -> None:
    """It says close, so that the client sends nothing more there."""

    async def main() -> None:
        async with listening(Echo()) as made, asyncio.TaskGroup() as tasks:
            reader, writer = await connect(made.port)
            writer.write(request("/first"))
            assert b"connection: close" not in await read_answer(reader)
            stopping = tasks.create_task(made.server.stop(20, quiet_s=20))
            await eventually(lambda: made.server.listener is None)
            writer.write(request("/second"))
            assert b"connection: close" in await read_answer(reader)
            assert await reader.read() == b""
            writer.close()
            await stopping

    run_real(main())


def test_a_connection_that_is_quiet_for_long_enough_is_closed() -> None:
    async def main() -> None:
        async with listening(Echo()) as made:
            reader, writer = await connect(made.port)
            writer.write(request())
            await read_answer(reader)
            await made.server.stop(20, quiet_s=0.2)
            assert await reader.read() == b""
            writer.close()

    run_real(main())


def test_a_head_that_has_begun_is_waited_for() -> None:
    async def main() -> None:
        async with listening(Echo()) as made, asyncio.TaskGroup() as tasks:
            reader, writer = await connect(made.port)
            whole = request("/slow")
            writer.write(whole[:10])
            await eventually(lambda: bool(made.server.connections) and the_connection(made)._reader.begun)
            the_connection(made).leave(quiet_before=math.inf)
            stopping = tasks.create_task(made.server.stop(20))
            await eventually(lambda: made.server.listener is None)
            writer.write(whole[10:])
            assert b"connection: close" in await read_answer(reader)
            writer.close()
            await stopping

    run_real(main())


def test_an_answer_that_has_not_begun_says_close_when_it_does() -> None:
    async def main() -> None:
        gate = Gate()
        async with listening(Echo(gate)) as made, asyncio.TaskGroup() as tasks:
            reader, writer = await connect(made.port)
            writer.write(request("/held"))
            await gate.begun.wait()
            stopping = tasks.create_task(made.server.stop(20))
            await eventually(lambda: made.server.listener is None)
            await eventually(lambda: not the_connection(made)._latest.keep_alive)
            gate.opened.set()
            assert b"connection: close" in await read_answer(reader)
            writer.close()
            await stopping

    run_real(main())


def test_a_listener_serves_on_a_socket_that_was_opened_elsewhere() -> None:
    """Two listeners of one socket share its queue: when one stops, the other has every connection."""

    async def main() -> None:
        async with listening(Echo()) as made, asyncio.TaskGroup() as tasks:
            assert made.server.listener is not None
            copy = socket.socket(fileno=socket.dup(made.server.listener.fileno()))
            second = HttpServer(Echo(), name="SECOND", host="127.0.0.1", port=0)
            assert await second.start(tasks, copy) == made.port
            await made.server.stop(5)
            for _ in range(20):
                reader, writer = await connect(made.port)
                writer.write(request())
                assert (await read_answer(reader)).startswith(b"HTTP/1.1 200")
                writer.close()
            await second.stop(5)

    run_real(main())


class AtOnce:
    """Answers on the spot, and then says nothing more for ever."""

    def __init__(self) -> None:
        self.ended = 0

    def at_once(self, _scope: Any) -> bool:
        return True

    async def __call__(self, _scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.ended += 1


def test_requests_without_tasks_that_outlive_the_grace_are_ended_all_of_them(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        app = AtOnce()
        server = HttpServer(app, name="TEST_PORT", host="127.0.0.1", port=0)
        async with asyncio.TaskGroup() as tasks:
            port = await server.start(tasks)
            clients = [await connect(port) for _ in range(5)]
            for reader, writer in clients:
                writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\na")
                await reader.readuntil(b"x\r\n")
            await server.stop(0.1)
            assert app.ended == 5
            for reader, writer in clients:
                assert not (await reader.read()).endswith(b"0\r\n\r\n")
                writer.close()

    with caplog.at_level(logging.CRITICAL):
        run_real(main())


def test_heads_that_wait_keep_their_order() -> None:
    async def main() -> None:
        made = AnswerTransport(written := Written(), asyncio.get_running_loop(), lingers=lambda: False)
        made.hold(b"of a HEAD;", follows=False)
        made.hold(b"of a POST;", follows=True)
        made.write(b"its body")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert written.data == b"of a HEAD;of a POST;its body"

    run_real(main())


class Written(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.data += data

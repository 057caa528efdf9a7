"""What the HTTP listener makes of clients: slow ones, idle ones, too many, half-closed ones, and those that left."""

from __future__ import annotations

import asyncio
import resource
import socket
from contextlib import suppress

import pytest
from starlette.types import Receive, Scope, Send

from http_support import Echo, answer, listening, read_all, request
from neurogate.httpd import Connection, HttpLimits
from neurogate.httpd.descriptors import RESERVED, connections_within, raise_limit
from neurogate.httpd.protocol import TURNED_AWAY_MAX
from raw_client import exchange, statuses
from real_loop import eventually, run_real

CLOSE = "Connection: close"


# Time


def test_a_head_that_does_not_arrive_in_time_is_answered_408() -> None:
    async def main() -> None:
        async with listening(Echo(), head_timeout_s=0.05) as made:
            assert statuses(await exchange(made.port, b"GET / HTTP/1.1\r\nHost: x\r\n")) == [408]
            assert made.refused == [408]

    run_real(main())


def test_a_byte_now_and_then_does_not_lengthen_the_time_of_a_head() -> None:
    async def main() -> None:
        async with listening(Echo(), head_timeout_s=0.2) as made:
            reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
            writer.write(b"GET / HTTP/1.1\r\nX-A: ")

            async def drip() -> None:
                with suppress(ConnectionError, RuntimeError):
                    while True:
                        writer.write(b"b")
                        await asyncio.sleep(0.01)

            dripping = asyncio.ensure_future(drip())
            assert statuses(await reader.read()) == [408]
            dripping.cancel()
            writer.close()

    run_real(main())


def test_a_later_head_has_its_own_time() -> None:
    async def main() -> None:
        async with listening(Echo(), head_timeout_s=0.05) as made:
            assert statuses(await exchange(made.port, request() + b"GET / HT")) == [200, 408]

    run_real(main())


def test_a_connection_that_sends_nothing_is_closed_without_a_word() -> None:
    """A browser's spare connection, or a port scan: a 408 could be taken for the answer to the next request."""

    async def main() -> None:
        async with listening(Echo(), head_timeout_s=0.05, idle_timeout_s=0.05) as made:
            assert await exchange(made.port, b"") == b""
            assert statuses(await exchange(made.port, request())) == [200]
            assert made.refused == []

    run_real(main())


def test_a_body_that_does_not_arrive_in_time_is_answered_408() -> None:
    async def main() -> None:
        echo = Echo()
        async with listening(echo, body_timeout_s=0.05) as made:
            assert statuses(await exchange(made.port, request("/", "Content-Length: 5", method="POST") + b"ab")) == [
                408
            ]
        assert echo.left == 1

    run_real(main())


def test_a_body_that_nobody_reads_has_no_time_limit() -> None:
    """The client waits for us."""

    async def main() -> None:
        read = asyncio.Event()

        async def late(_: Scope, receive: Receive, send: Send) -> None:
            await read.wait()
            body = await read_all(receive)
            await answer(send, b"%d" % len(body or b""))

        async with listening(late, body_timeout_s=0.05) as made:
            size = 4 << 20
            sent = request("/", CLOSE, method="POST", body=bytes(size))
            receiving = asyncio.ensure_future(exchange(made.port, sent))
            await exchange(made.port, b"\x00")
            await asyncio.sleep(0.2)  # several times the limit: nothing happens, so there is no event
            read.set()
            assert (await receiving).endswith(b"\r\n\r\n%d" % size)

    run_real(main())


def test_an_answer_may_take_its_time_and_so_may_what_is_pipelined_behind_it() -> None:
    async def main() -> None:
        async def slow(_: Scope) -> None:
            await asyncio.sleep(0.3)  # six times every limit

        limits = {"head_timeout_s": 0.05, "body_timeout_s": 0.05, "idle_timeout_s": 0.05}
        async with listening(Echo(slow), **limits) as made:
            assert statuses(await exchange(made.port, request() + request() + b"GET ")) == [200, 200, 408]

    run_real(main())


def test_a_client_that_never_reads_a_small_answer_is_cut_in_the_end() -> None:
    """What it has not read is in our buffer, below what would make a writer wait."""

    async def main() -> None:
        lost = asyncio.Event()

        async def app(scope: Scope, _: Receive, send: Send) -> None:
            connection: Connection = scope["extensions"]["neurogate.connection"]
            connection.on_lost(lost.set)
            await answer(send, bytes(8 << 20))

        async with listening(app, flush_timeout_s=0.05, idle_timeout_s=0.05) as made:
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(client, ("127.0.0.1", made.port))
                await loop.sock_sendall(client, request("/", CLOSE))
                await lost.wait()

    run_real(main())


def test_limits_can_change_while_connections_are_open() -> None:
    async def main() -> None:
        async with listening(Echo()) as made:
            receiving = asyncio.ensure_future(exchange(made.port, b"GET / HT"))
            await exchange(made.port, request("/", CLOSE))
            made.server.set_limits(HttpLimits(head_timeout_s=0.01, url_bytes=3))
            assert statuses(await exchange(made.port, request("/abcdefgh" * 1000))) == [414]
            assert statuses(await receiving) == [408]

    run_real(main())


# Number


def test_connections_past_the_limit_are_told_to_come_back() -> None:
    async def main() -> None:
        async with listening(Echo(), connections=2, linger_s=0.05) as made:
            held = [await asyncio.open_connection("127.0.0.1", made.port) for _ in range(2)]
            await eventually(lambda: made.server.connections == 2)
            for _ in range(3):
                received = await exchange(made.port, request())
                assert statuses(received) == [503]
                assert b"\r\nretry-after: 1\r\n" in received
            held[0][1].close()
            await eventually(lambda: made.server.connections < 2)
            assert statuses(await exchange(made.port, request("/", CLOSE))) == [200]
            held[1][1].close()

    run_real(main())


def test_a_flood_past_the_limit_holds_a_bounded_number_of_connections() -> None:
    async def main() -> None:
        async with listening(Echo(), connections=1) as made:
            count = TURNED_AWAY_MAX + 50
            clients = [await asyncio.open_connection("127.0.0.1", made.port) for _ in range(count)]
            await eventually(lambda: len(made.refused) == count - 1)
            assert made.server.connections == 1 + TURNED_AWAY_MAX
            assert statuses(await clients[-1][0].read()) == [503]
            for _, writer in clients:
                writer.close()
            await eventually(lambda: made.server.connections == 0)

    run_real(main())


def test_a_process_may_have_all_the_descriptors_that_it_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: given.append(limits))
    assert raise_limit() == 4096
    assert given == [(4096, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (4096, 4096))
    assert raise_limit() == 4096
    assert len(given) == 1


def test_connections_stay_below_the_descriptors() -> None:
    assert connections_within(10_000, 20_000) == 10_000
    assert connections_within(10_000, 1024) == 1024 - RESERVED
    assert connections_within(10_000, 10) == 1
    assert connections_within(10_000, resource.RLIM_INFINITY) == 10_000


# Clients that send no more


async def half_closed(port: int, sent: bytes) -> bytes:
    return await exchange(port, sent, eof=True)


def test_a_client_that_sends_no_more_gets_its_answers() -> None:
    """As curl, netcat and others do; what is not asked of us is only said where HTTP lets a client skip it."""

    async def main() -> None:
        async def slow(_: Scope) -> None:
            await asyncio.sleep(0.1)  # several looks at the socket

        async with listening(Echo(slow)) as made:
            whole = request("/", method="POST", body=b"body")
            received = await half_closed(made.port, whole * 2)
            assert statuses(received) == [200, 200]
            assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")
            assert statuses(await half_closed(made.port, request() + b"GET /")) == [200]
            old = await half_closed(made.port, b"GET / HTTP/1.0\r\n\r\n")
            assert old.startswith(b"HTTP/1.1 200 ")

    run_real(main())


def test_a_client_that_sends_no_more_gets_the_rest_of_its_stream() -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def stream(_: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
            await gate.wait()
            await send({"type": "http.response.body", "body": b"last"})

        async with listening(stream) as made:
            reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
            writer.write(request())
            received = await reader.readuntil(b"first\r\n")
            writer.write_eof()
            await exchange(made.port, b"\x00")
            gate.set()
            received += await reader.read()
            assert statuses(received) == [200]
            assert received.endswith(b"\r\n04\r\nlast\r\n0\r\n\r\n")
            writer.close()

    run_real(main())


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_endpoint_hears_soon_that_its_client_left(version: str) -> None:
    """Its generation must stop, and its FIN looks like that of a client that waits."""

    async def main() -> None:
        lost = asyncio.Event()
        begun = asyncio.Event()

        async def app(scope: Scope, receive: Receive, _: Send) -> None:
            connection: Connection = scope["extensions"]["neurogate.connection"]
            await read_all(receive)
            connection.on_lost(lost.set)
            begun.set()
            await lost.wait()

        async with listening(app) as made:
            _, writer = await asyncio.open_connection("127.0.0.1", made.port)
            writer.write(request("/", method="POST", body=b"body", version=version))
            await begun.wait()
            began = asyncio.get_running_loop().time()
            writer.close()
            await lost.wait()
            assert asyncio.get_running_loop().time() - began < 1

    run_real(main())


@pytest.mark.parametrize("length", [[], [(b"content-length", b"100")]])
def test_a_client_that_leaves_a_stream_that_has_fallen_silent_is_noticed(length: list[tuple[bytes, bytes]]) -> None:
    """Nothing that is written tells: the engine behind it may hang."""

    async def main() -> None:
        lost = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            connection: Connection = scope["extensions"]["neurogate.connection"]
            connection.on_lost(lost.set)
            await send({"type": "http.response.start", "status": 200, "headers": length})
            await send({"type": "http.response.body", "body": b"token", "more_body": True})
            await lost.wait()

        async with listening(app) as made:
            reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
            writer.write(request())
            await reader.readuntil(b"token" if length else b"token\r\n")
            writer.close()
            await lost.wait()

    run_real(main())


def test_a_client_that_leaves_in_the_middle_of_its_stream_is_noticed() -> None:
    async def main() -> None:
        lost = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            connection: Connection = scope["extensions"]["neurogate.connection"]
            connection.on_lost(lost.set)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while not lost.is_set():
                await send({"type": "http.response.body", "body": b"token", "more_body": True})
                await asyncio.sleep(0.001)

        async with listening(app) as made:
            reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
            writer.write(request())
            await reader.readuntil(b"token")
            writer.close()
            await lost.wait()

    run_real(main())


def test_a_stop_cuts_clients_that_neither_send_nor_leave() -> None:
    async def main() -> None:
        async with listening(Echo()) as made:
            writers = [(await asyncio.open_connection("127.0.0.1", made.port))[1] for _ in range(3)]
            writers[0].write(b"GET / HT")
            writers[1].write(b"\x00")
            await eventually(lambda: made.server.connections == 3)
        for writer in writers:
            writer.close()

    run_real(main())


def test_a_stop_closes_a_connection_after_the_answers_to_what_it_sent() -> None:
    async def main() -> None:
        begun, gate = asyncio.Event(), asyncio.Event()

        async def wait(_: Scope) -> None:
            begun.set()
            await gate.wait()

        async with listening(Echo(wait)) as made:
            reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
            writer.write(request() * 2)
            await begun.wait()
            stopping = asyncio.ensure_future(made.server.stop(20))
            refused = False
            while not refused:
                with suppress(ConnectionError):
                    (await asyncio.open_connection("127.0.0.1", made.port))[1].close()
                    await asyncio.sleep(0)
                    continue
                refused = True
            gate.set()
            assert statuses(await reader.read()) == [200, 200]
            await stopping
            writer.close()

    run_real(main())

"""The network of the fault suite does what each of its faults is called."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Thread

import pytest

from chaos_support.fault_proxy import FaultProxy, Mode, Weather, fault_proxy


@contextmanager
def echo() -> Iterator[int]:
    """A server that gives back what it gets, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                Thread(target=answer, args=(connection,)).start()

        thread = Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def answer(connection: socket.socket) -> None:
    with connection:
        try:
            while data := connection.recv(65536):
                connection.sendall(data)
        except OSError:
            return


@contextmanager
def proxied() -> Iterator[tuple[FaultProxy, socket.socket]]:
    with echo() as port, fault_proxy(port) as proxy:
        with closing(socket.create_connection(("127.0.0.1", proxy.port), timeout=5)) as client:
            assert said(client, b"hello") == b"hello"
            yield proxy, client
        with closing(socket.create_connection(("127.0.0.1", proxy.port), timeout=5)) as client:
            if proxy.mode is Mode.PASS:
                assert said(client, b"again") == b"again"


def is_refused(port: int) -> bool:
    """Whether a new connection is reset or closed, which may come before connect() returns."""
    try:
        with closing(socket.create_connection(("127.0.0.1", port), timeout=5)) as client:
            return client.recv(1) == b""
    except ConnectionResetError:
        return True


def said(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    got = b""
    while len(got) < len(data):
        piece = client.recv(65536)
        if not piece:
            break
        got += piece
    return got


def test_it_passes_everything_and_the_end() -> None:
    with proxied() as (_, client):
        assert said(client, b"x" * 300_000) == b"x" * 300_000
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""


def test_a_reset_is_a_reset_and_the_next_connection_is_welcome() -> None:
    with proxied() as (proxy, client):
        assert proxy.reset() == 1
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_who_refuses_resets_all() -> None:
    with proxied() as (proxy, client):
        proxy.set(Mode.REFUSE)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert is_refused(proxy.port)
        proxy.set(Mode.PASS)


@pytest.mark.parametrize("mode", [Mode.BLACK_HOLE, Mode.DEAF])
def test_what_was_dropped_arrives_when_it_heals(mode: Mode) -> None:
    with proxied() as (proxy, client):
        proxy.set(mode)
        client.sendall(b"lost")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(5)
        proxy.set(Mode.PASS)
        assert client.recv(4) == b"lost"


def test_a_half_open_connection_is_silent_and_reset_when_it_heals() -> None:
    with proxied() as (proxy, client):
        proxy.set(Mode.HALF_OPEN)
        client.sendall(b"anyone?")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(5)
        proxy.set(Mode.PASS)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_latency_delays_and_does_not_throttle() -> None:
    async def main(port: int) -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        for _ in range(20):
            writer.write(b"x" * 1000)
            await asyncio.sleep(0)
        await reader.readexactly(20_000)
        writer.close()
        return loop.time() - began_at

    with echo() as port, fault_proxy(port) as proxy:
        proxy.set_weather(Weather(latency_s=0.1))
        assert 0.2 <= asyncio.run(main(proxy.port)) < 2


def test_loss_stalls_what_is_lost() -> None:
    with echo() as port, fault_proxy(port, seed=3) as proxy:
        proxy.set_weather(Weather(loss=1.0, retransmit_s=0.1))
        with closing(socket.create_connection(("127.0.0.1", proxy.port), timeout=5)) as client:
            client.settimeout(0.15)
            with pytest.raises(TimeoutError):
                said(client, b"x")
            client.settimeout(5)
            assert client.recv(1) == b"x"

"""The connections to one engine: which are kept, which are cut, and which address they go to. On virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from neurogate.engines.connection import Connection
from neurogate.engines.connections import KEEPALIVE_S, Connections, Origin
from neurogate.race import STAGGER_S
from neurogate.virtual_time import VirtualTimeLoop

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class _Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: object) -> None:
        del data

    def writelines(self, list_of_data: object) -> None:
        del list_of_data

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True


class Network(VirtualTimeLoop):
    """A loop whose connections are made up; some addresses refuse, some never answer."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[str, list[str]] = {}
        self.refusing: set[str] = set()
        self.silent: set[str] = set()
        self.slow: dict[str, float] = {}
        self.asking_takes_s = 0.0
        self.given_up: list[str] = []
        self.made: list[tuple[str, _Transport]] = []
        self.tried: list[str] = []
        self.asked: list[str] = []

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
        self.asked.append(host)
        try:
            await asyncio.sleep(self.asking_takes_s)
        except asyncio.CancelledError:
            self.given_up.append(host)
            raise
        if host not in self.names:
            raise OSError("no such name")
        return [(0, 0, 0, "", (address, port)) for address in self.names[host]]

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        assert port == 8080
        self.tried.append(host)
        if host in self.silent:
            try:
                await asyncio.Event().wait()
            finally:
                self.given_up.append(host)
        if host in self.slow:
            await asyncio.sleep(self.slow[host])
        if host in self.refusing:
            raise ConnectionRefusedError(host)
        transport, protocol = _Transport(), protocol_factory()
        protocol.connection_made(transport)
        self.made.append((host, transport))
        return transport, protocol

    @property
    def hosts(self) -> list[str]:
        return [host for host, _ in self.made]


def on_a_network(test: Callable[[Network], Any]) -> None:
    with asyncio.Runner(loop_factory=Network) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, Network)
        runner.run(test(loop))


def pool(host: str = "127.0.0.1", *, reuses: bool = True) -> Connections:
    return Connections(Origin.of(f"http://{host}:8080"), connect_timeout_s=4, reuses=reuses)


async def answered(connections: Connections) -> Connection:
    """A connection whose answer is whole."""
    connection = await connections.take()
    asking = asyncio.create_task(connection.ask(b"POST", b""))
    await asyncio.sleep(0)
    connection.data_received(OK)
    await asking
    return connection


def test_the_next_request_takes_the_connection_that_was_used_last() -> None:
    async def test(loop: Network) -> None:
        connections = pool()
        first, second = await answered(connections), await answered(connections)
        connections.give_back(first)
        connections.give_back(second)
        assert await answered(connections) is second
        assert await answered(connections) is first
        assert len(loop.made) == 2

    on_a_network(test)


def test_one_that_was_idle_for_too_long_is_cut() -> None:
    async def test(loop: Network) -> None:
        connections = pool()
        connections.give_back(await answered(connections))
        await asyncio.sleep(KEEPALIVE_S * 1.5)
        assert loop.made[0][1].closed
        await answered(connections)
        assert len(loop.made) == 2

    on_a_network(test)


def test_of_the_idle_ones_only_those_in_use_are_kept() -> None:
    async def test(loop: Network) -> None:
        connections = pool()
        first, second = await answered(connections), await answered(connections)
        connections.give_back(first)
        connections.give_back(second)
        for _ in range(10):
            await asyncio.sleep(1)
            connections.give_back(await answered(connections))
        assert [transport.closed for _, transport in loop.made] == [True, False]

    on_a_network(test)


@pytest.mark.parametrize("reuses", [True, False])
def test_what_is_not_whole_or_must_not_be_used_again_is_cut(*, reuses: bool) -> None:
    async def test(loop: Network) -> None:
        connections = pool(reuses=reuses)
        connections.give_back(await answered(connections))
        assert loop.made[0][1].closed is not reuses
        busy = await connections.take()
        asking = asyncio.create_task(busy.ask(b"POST", b""))
        await asyncio.sleep(0)
        connections.give_back(busy)
        assert loop.made[-1][1].closed
        with pytest.raises(OSError, match="closed"):
            await asking

    on_a_network(test)


def test_one_that_the_engine_closed_meanwhile_is_not_used() -> None:
    async def test(loop: Network) -> None:
        connections = pool()
        first = await answered(connections)
        connections.give_back(first)
        first.connection_lost(None)
        assert await answered(connections) is not first
        assert len(loop.made) == 2

    on_a_network(test)


def test_closing_cuts_all_of_them() -> None:
    async def test(loop: Network) -> None:
        connections = pool()
        idle, busy = await answered(connections), await connections.take()
        connections.give_back(idle)
        asking = asyncio.create_task(busy.ask(b"POST", b""))
        await asyncio.sleep(0)
        connections.close()
        assert all(transport.closed for _, transport in loop.made)
        with pytest.raises(OSError, match="closed"):
            await asking
        with pytest.raises(OSError, match="stopped"):
            await connections.take()
        assert all(transport.closed for _, transport in loop.made)

    on_a_network(test)


def test_an_address_that_refuses_is_left_out_for_a_while() -> None:
    async def test(loop: Network) -> None:
        loop.names["engine"] = ["::1", "10.0.0.1"]
        loop.refusing.add("::1")
        connections = pool("engine")
        await connections.take()
        await connections.take()
        assert loop.tried == ["::1", "10.0.0.1", "10.0.0.1"]
        assert loop.asked == ["engine"]
        loop.refusing.clear()
        await asyncio.sleep(11)
        await connections.take()
        assert loop.hosts[-1] == "10.0.0.1"
        await asyncio.sleep(0.1)
        assert loop.asked == ["engine", "engine"]
        await connections.take()
        assert loop.hosts[-1] == "::1"

    on_a_network(test)


def test_a_silent_address_costs_a_moment_and_once() -> None:
    async def test(loop: Network) -> None:
        loop.names["engine"] = ["::1", "::2", "10.0.0.1"]
        loop.silent |= {"::1", "::2"}
        connections = pool("engine")
        await connections.take()
        assert loop.time() == 2 * STAGGER_S
        assert loop.hosts == ["10.0.0.1"]
        await connections.take()
        assert loop.time() == 2 * STAGGER_S
        await asyncio.sleep(0.1)
        assert sorted(loop.given_up) == ["::1", "::2"]

    on_a_network(test)


def test_a_slow_address_still_wins_and_what_comes_too_late_is_cut() -> None:
    async def test(loop: Network) -> None:
        loop.names["engine"] = ["10.0.0.1", "10.0.0.2"]
        loop.slow = {"10.0.0.1": 0.5, "10.0.0.2": 0.25}
        connections = pool("engine")
        taken = await connections.take()
        assert taken.reusable
        await asyncio.sleep(1)
        assert [transport.closed for _, transport in loop.made].count(False) == 1

    on_a_network(test)


def test_one_that_fails_starts_the_next_at_once() -> None:
    async def test(loop: Network) -> None:
        loop.names["engine"] = ["10.0.0.1", "10.0.0.2"]
        loop.slow["10.0.0.1"] = 0.125
        loop.refusing.add("10.0.0.1")
        await pool("engine").take()
        assert loop.time() == 0.125

    on_a_network(test)


def test_a_failure_does_not_harm_those_who_connect_beside_it() -> None:
    async def test(loop: Network) -> None:
        loop.names["engine"] = ["10.0.0.1"]
        loop.slow["10.0.0.1"] = 1.0
        loop.refusing.add("10.0.0.1")
        connections = pool("engine")
        first = asyncio.create_task(connections.take())
        await asyncio.sleep(0.5)
        second = asyncio.create_task(connections.take())
        with pytest.raises(ConnectionRefusedError):
            await first
        loop.refusing.clear()
        assert (await second).turn == 0
        assert "open=1" in repr(connections)

    on_a_network(test)


def test_a_burst_asks_for_the_name_once_and_one_that_leaves_takes_nobody_along() -> None:
    async def test(loop: Network) -> None:
        loop.names["engine"] = ["10.0.0.1"]
        loop.asking_takes_s = 3.0
        connections = pool("engine")
        taking = [asyncio.create_task(connections.take()) for _ in range(50)]
        await asyncio.sleep(1)
        taking[0].cancel()
        await asyncio.wait(taking)
        assert loop.asked == ["engine"]
        assert len(loop.made) == 49

    on_a_network(test)


def test_a_name_that_is_not_found_is_an_error_of_each_who_waits() -> None:
    async def test(loop: Network) -> None:
        loop.asking_takes_s = 1.0
        connections = pool("nobody")
        told = await asyncio.gather(*[connections.take() for _ in range(3)], return_exceptions=True)
        assert [str(error) for error in told] == ["no such name"] * 3
        assert len({id(error) for error in told}) == 3
        assert loop.asked == ["nobody"]

    on_a_network(test)


@pytest.mark.parametrize("addresses", [["10.0.0.1"], ["10.0.0.1", "10.0.0.2"], []])
def test_a_failure_to_connect_keeps_nothing_of_who_asked(addresses: list[str]) -> None:
    class Request:
        pass

    async def failing(connections: Connections) -> weakref.ref[Request]:
        request = Request()
        with contextlib.suppress(OSError):
            await connections.take()
        return weakref.ref(request)

    async def test(loop: Network) -> None:
        if addresses:
            loop.names["engine"] = addresses
            loop.refusing |= set(addresses)
        connections = pool("engine")
        gc.disable()
        try:
            asked = [asyncio.create_task(failing(connections)) for _ in range(2)]
            assert [(await asking)() for asking in asked] == [None, None]
        finally:
            gc.enable()

    on_a_network(test)


def test_old_addresses_serve_while_the_name_is_asked_again_and_very_old_ones_do_not() -> None:
    async def test(loop: Network) -> None:
        loop.names["engine"] = ["10.0.0.1"]
        connections = pool("engine")
        await connections.take()
        loop.names["engine"] = ["10.0.0.2"]
        loop.asking_takes_s = 1.0
        await asyncio.sleep(11)
        before = loop.time()
        await connections.take()
        assert loop.time() == before
        await asyncio.sleep(2)
        await connections.take()
        assert loop.hosts == ["10.0.0.1", "10.0.0.1", "10.0.0.2"]
        loop.names["engine"] = ["10.0.0.3"]
        await asyncio.sleep(61)
        await connections.take()
        assert loop.hosts[-1] == "10.0.0.3"

    on_a_network(test)


@pytest.mark.parametrize("asking_takes_s", [0.0, 1.0])
def test_an_engine_that_moved_is_found_by_the_request_that_misses_it(asking_takes_s: float) -> None:
    async def test(loop: Network) -> None:
        loop.names["engine"] = ["10.0.0.1"]
        connections = pool("engine")
        await connections.take()
        loop.names["engine"] = ["10.0.0.2"]
        loop.refusing.add("10.0.0.1")
        loop.slow["10.0.0.1"] = 0.5
        loop.asking_takes_s = asking_takes_s
        await asyncio.sleep(11)
        await connections.take()
        assert loop.hosts == ["10.0.0.1", "10.0.0.2"]

    on_a_network(test)


def test_closing_gives_up_the_look_up() -> None:
    async def test(loop: Network) -> None:
        loop.asking_takes_s = 100.0
        connections = pool("engine")
        taking = asyncio.create_task(connections.take())
        await asyncio.sleep(1)
        connections.close()
        with pytest.raises(OSError, match="stopped"):
            await taking
        with pytest.raises(OSError, match="stopped"):
            await connections.take()
        assert loop.given_up == ["engine"]

    on_a_network(test)


def test_connections_are_spread_over_the_addresses() -> None:
    async def test(loop: Network) -> None:
        loop.names["engine"] = ["10.0.0.1", "10.0.0.2", "10.0.0.1"]
        connections = pool("engine")
        for _ in range(4):
            await connections.take()
        assert loop.hosts == ["10.0.0.1", "10.0.0.2"] * 2

    on_a_network(test)


def test_nobody_there_is_an_error_and_asked_again_next_time() -> None:
    async def test(loop: Network) -> None:
        loop.names["engine"] = ["10.0.0.1", "10.0.0.2"]
        loop.refusing |= {"10.0.0.1", "10.0.0.2"}
        connections = pool("engine")
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError):
                await connections.take()
        assert loop.asked == ["engine", "engine"]
        with pytest.raises(OSError, match="no such name"):
            await pool("nobody").take()

    on_a_network(test)


def test_one_silent_address_has_all_of_the_time() -> None:
    async def test(loop: Network) -> None:
        loop.silent.add("127.0.0.1")
        with pytest.raises(TimeoutError):
            await pool().take()
        assert loop.time() == 4.0

    on_a_network(test)


def origin(host: str, port: int = 80, *, authority: str = "", **fields: Any) -> Origin:
    told: dict[str, Any] = {"tls": False, "prefix": "", "authorization": "", **fields}
    return Origin(host, port, authority=authority or host, **told)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://host", origin("host")),
        ("http://Host:80/a b", origin("host", prefix="/a%20b")),
        ("https://host:80", origin("host", tls=True, authority="host:80")),
        ("https://[::1]/x", origin("::1", 443, tls=True, authority="[::1]", prefix="/x")),
        ("http://bücher.de", origin("xn--bcher-kva.de")),
        ("http://u%40x:p%3A@h", origin("h", authorization="Basic dUB4OnA6")),
        ("http://u@h:1", origin("h", 1, authority="h:1", authorization="Basic dTo=")),
    ],
)
def test_where_a_url_points(url: str, expected: Origin) -> None:
    assert Origin.of(url) == expected

"""The fake client behaves as a server with a client behind it does, and refuses what a server would refuse."""

from __future__ import annotations

import asyncio

import pytest

from neurogate.httpd import Connection
from neurogate.testing.connections import FakeClient, FakeConnection
from neurogate.virtual_time import run

HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}
LAST = {"type": "http.response.body", "body": b"x"}


def test_an_answer_is_kept() -> None:
    async def main() -> None:
        client = FakeClient("/x", [b"one", b"two"], headers=[("A", "b")])
        assert await client.receive() == {"type": "http.request", "body": b"one", "more_body": True}
        assert await client.receive() == {"type": "http.request", "body": b"two", "more_body": False}
        assert client.scope["headers"] == [(b"a", b"b")]
        await client.send(HEAD)
        assert repr(client) == "<FakeClient POST /x 200 open>"
        await client.send(LAST)
        assert (client.status, client.headers, client.body, client.complete) == (200, {"a": "b"}, b"x", True)
        assert repr(client) == "<FakeClient POST /x 200 complete>"

    run(main())


def test_an_answer_out_of_order_is_an_error() -> None:
    async def main() -> None:
        client = FakeClient()
        with pytest.raises(RuntimeError, match="before its head"):
            await client.send(LAST)
        await client.send(HEAD)
        await client.send(LAST)
        with pytest.raises(RuntimeError, match="after the last one"):
            await client.send(LAST)

    run(main())


def test_a_client_that_left_takes_nothing_and_says_so() -> None:
    async def main() -> None:
        client = FakeClient(body=[], whole=False)
        await client.receive()
        client.leave()
        assert await client.receive() == {"type": "http.disconnect"}
        await client.send(HEAD)
        assert client.status == 0
        assert repr(client) == "<FakeClient POST / - lost>"

    run(main())


def test_a_client_that_does_not_read_makes_send_wait() -> None:
    async def main() -> None:
        client = FakeClient()
        client.stop_reading()
        asyncio.get_running_loop().call_later(4, client.read_on)
        await client.send(HEAD)
        assert asyncio.get_running_loop().time() == 4

    run(main())


def test_a_lost_connection_is_heard_of_once_it_is_asked_about() -> None:
    heard: list[str] = []
    connection = FakeConnection()
    asked: Connection = connection
    asked.on_lost(lambda: heard.append("first"))
    asked.on_lost(None)
    connection.lose()
    assert heard == []
    asked.on_lost(lambda: heard.append("late"))
    assert heard == ["late"]
    assert not connection.aborted
    asked.abort()
    assert (connection.aborted, heard) == (True, ["late", "late"])

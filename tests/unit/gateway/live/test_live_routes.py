"""The live page's routes: what they answer, to whom, and how a viewer comes and goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
from starlette.applications import Starlette

from dataplane_support import turns
from gateway_support import Edge, chat, edge
from neurogate import virtual_time
from neurogate.channel import End
from neurogate.edge.admin_keys import AdminKeys
from neurogate.gateway.lifecycle import Lifecycle
from neurogate.gateway.live.hub import Hub
from neurogate.gateway.live.recent import Recent
from neurogate.gateway.live.routes import STALLED_S
from neurogate.gateway.live.show import show
from neurogate.testing.connections import FakeClient
from neurogate.testing.workers import answers

KEY = "a-secret-admin-key"
FILES = ("/dashboard", "/dashboard/live.css", "/dashboard/live.js", "/dashboard/icon.svg")
ASKS = ("x-neurogate-explain", "1")


@dataclass
class Ops:
    edge: Edge
    app: Starlette
    hub: Hub

    def look(self, *headers: tuple[str, str]) -> FakeClient:
        return FakeClient("/dashboard/events", method="GET", headers=headers)

    async def get(self, path: str, *headers: tuple[str, str]) -> FakeClient:
        path, _, query = path.partition("?")
        client = FakeClient(path, method="GET", headers=headers)
        client.scope["query_string"] = query.encode()
        return await client.ask(self.app)


@asynccontextmanager
async def ops(keys: Sequence[str] = (), *, viewers_max: int = 2) -> AsyncIterator[Ops]:
    async with edge() as made:
        hub, routes = show(
            made.data_plane.pool,
            made.in_flight,
            made.explainer,
            AdminKeys(keys),
            waiting=lambda: 0,
            recent=Recent(wall=lambda: 1e9),
            registry=made.metrics.registry,
            lifecycle=Lifecycle(),
            viewers_max=viewers_max,
            loop=asyncio.get_running_loop(),
            wall=lambda: 1e9,
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(hub.run())
            yield Ops(made, Starlette(routes=routes), hub)
            hub.stop()
        assert hub.viewers == 0


@pytest.mark.parametrize("path", FILES)
def test_the_page_is_there_without_a_key_and_loads_nothing_from_elsewhere(path: str) -> None:
    async def main() -> None:
        async with ops([KEY]) as made:
            client = await made.get(path)

            assert client.status == 200
            assert client.headers["content-security-policy"].startswith("default-src 'self';")
            assert b"//cdn" not in client.body
            assert b"http" not in client.body.replace(b"http://www.w3.org/2000/svg", b"")

    virtual_time.run(main())


def test_events_are_pictures_until_the_client_leaves() -> None:
    async def main() -> None:
        async with ops() as made:
            client = made.look()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(client.ask(made.app))
                await asyncio.sleep(2.5)
                assert made.hub.viewers == 1
                client.leave()

            assert (client.status, client.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
            assert len(client.chunks) == 3
            name, data, *rest = client.chunks[-1].decode().split("\n")
            assert (name, rest) == ("event: picture", ["", ""])
            assert len(json.loads(data.removeprefix("data: "))["workers"][0]["history"]) == 3
            assert not client.connection.aborted

    virtual_time.run(main())


@pytest.mark.parametrize("viewers_max", [0, 2])
def test_head_of_the_events_is_the_head_alone_and_takes_nobodys_place(viewers_max: int) -> None:
    async def main() -> None:
        async with ops(viewers_max=viewers_max) as made:
            client = FakeClient("/dashboard/events", method="HEAD")
            await client.ask(made.app)

            assert (client.status, client.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
            assert "content-length" not in client.headers
            assert (client.complete, client.body, made.hub.viewers) == (True, b"", 0)

    virtual_time.run(main())


def test_a_viewer_that_reads_nothing_is_cut_off() -> None:
    async def main() -> None:
        async with ops() as made:
            client = made.look()
            async with asyncio.TaskGroup() as tasks:
                asked = tasks.create_task(client.ask(made.app))
                await turns()
                client.stop_reading()
                await asyncio.sleep(1 + STALLED_S + 0.5)
                assert asked.done()
            assert client.connection.aborted

    virtual_time.run(main())


def test_a_viewer_too_many_is_told_which_setting_bounds_them() -> None:
    async def main() -> None:
        async with ops(viewers_max=0) as made:
            client = await made.get("/dashboard/events")

            assert (client.status, client.json()["code"]) == (503, "too_many_viewers")
            assert "NEUROGATE_LIVE_VIEWERS_MAX" in client.json()["message"]
            assert client.headers["retry-after"] == "5"

    virtual_time.run(main())


def test_streams_end_properly_when_the_gateway_stops() -> None:
    async def main() -> None:
        async with ops() as made:
            client = made.look()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(client.ask(made.app))
                await turns()
                made.hub.stop()
            assert client.complete

    virtual_time.run(main())


@pytest.mark.parametrize("path", ["/dashboard/events", "/dashboard/picture", "/debug/requests", "/debug/requests/x"])
def test_what_shows_something_asks_for_the_admin_key_where_there_is_one(path: str) -> None:
    async def main() -> None:
        async with ops([KEY]) as made:
            for headers in ([], [("authorization", "Bearer another-admin-key")]):
                client = await made.get(path, *headers)
                assert (client.status, client.json()["code"]) == (401, "invalid_api_key")
            client = FakeClient(path, method="GET", headers=[("authorization", f"Bearer {KEY}")])
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(client.ask(made.app))
                await turns(10)
                client.leave()
            assert client.status in {200, 404}

    virtual_time.run(main())


def test_one_picture_is_json() -> None:
    async def main() -> None:
        async with ops() as made:
            client = await made.get("/dashboard/picture")
            assert client.json()["workers"][0]["id"] == "worker-0"
            assert (client.json()["ready"], client.json()["draining"]) == (False, False)
            assert client.headers["cache-control"] == "no-store"

    virtual_time.run(main())


def test_requests_in_flight_are_listed_within_a_limit() -> None:
    async def main() -> None:
        async with ops() as made:
            for number in range(3):
                made.edge.ask(chat(headers=[("x-request-id", f"r{number}")]))
            await turns()

            told = (await made.get("/debug/requests?limit=2")).json()
            assert (told["count"], [row["id"] for row in told["requests"]]) == (3, ["r0", "r1"])
            assert len((await made.get("/debug/requests")).json()["requests"]) == 3
            for wrong in ("", "-1", "many", "9999999"):
                assert (await made.get(f"/debug/requests?limit={wrong}")).status == 400
            for call in list(made.edge.data_plane.worker().calls):
                call.end(End(http_status=200))

    virtual_time.run(main())


def test_one_request_is_told_with_its_explanation_also_afterwards() -> None:
    async def main() -> None:
        async with ops() as made:
            worker = made.edge.data_plane.worker()
            asked = made.edge.ask(chat(headers=[ASKS, ("x-request-id", "mine")]))
            await turns()
            told = (await made.get("/debug/requests/mine")).json()
            assert [row["phase"] for row in told["requests"]] == ["prefill"]
            assert [record["attempts"][0]["worker"] for record in told["explained"]] == ["worker-0"]
            worker.calls[0].end(End(http_status=200))
            await asked

            told = (await made.get("/debug/requests/mine")).json()
            assert told["requests"] == []
            assert [record["attempts"][0]["ended"] for record in told["explained"]] == ["200"]
            assert (await made.get("/debug/requests")).json()["explained"] == ["mine"]
            worker.script = answers(b"x")
            await made.edge.ask(chat(headers=[("x-request-id", "silent")]))
            client = await made.get("/debug/requests/silent")
            assert (client.status, client.json()["code"]) == (404, "request_not_found")
            assert "NEUROGATE_EXPLAIN" in client.json()["message"]

    virtual_time.run(main())


def test_the_page_answers_over_http_as_well() -> None:
    async def main() -> None:
        async with ops() as made:
            transport = httpx.ASGITransport(made.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://ops") as client:
                assert "<h1>NeuroGate</h1>" in (await client.get("/dashboard")).text

    virtual_time.run(main())

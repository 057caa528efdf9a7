"""The hot endpoints: who is let in, what is refused before anybody is asked, and what a worker gets to see."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from dataplane_support import turns
from gateway_support import CHAT, DIALECTS, MESSAGES, chat, edge, prompt
from neurogate.channel import End
from neurogate.testing.connections import FakeClient
from neurogate.virtual_time import run

GOOD = End(http_status=200)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
KEY = "a-secret-key"

BODIES: dict[str, dict[str, Any]] = {
    "/prompt": {"query": "Why?"},
    CHAT: {"messages": MESSAGES},
    "/v1/completions": {"prompt": "Why?"},
}
EVERY_PATH = pytest.mark.parametrize("path", list(DIALECTS))


def client_for(path: str, headers: dict[str, str], body: bytes | None = None) -> FakeClient:
    sent = msgspec.json.encode(BODIES[path]) if body is None else body
    return FakeClient(path, sent, headers=headers.items())


def code_of(client: FakeClient) -> str:
    """The error's code, in whichever of the two shapes."""
    said = client.json()
    error = said["error"]
    code: str = error["code"] if isinstance(error, dict) else said["code"]
    return code


@EVERY_PATH
def test_the_worker_gets_the_clients_own_bytes(path: str) -> None:
    async def main() -> None:
        async with edge(request_timeout_s=77) as made:
            body = b" " + msgspec.json.encode({**BODIES[path], "stream": True, "unknown": [1.0, "\u00e9"]})
            client = client_for(path, {"x-request-id": "mine-1", "traceparent": TRACE}, body)
            await asyncio.sleep(3)
            held = await made.asked(client)
            call = held.call
            assert (call.path, call.body, call.stream) == (path, body, True)
            assert (call.request_id, call.traceparent, call.deadline) == ("mine-1", TRACE, 80)
            held.end(GOOD)
            await turns()
            assert client.headers["x-request-id"] == "mine-1"

    run(main())


def test_what_is_not_well_formed_is_replaced_or_dropped() -> None:
    async def main() -> None:
        async with edge() as made:
            held = await made.asked(chat(headers=[("x-request-id", "no spaces"), ("traceparent", "nonsense")]))
            assert (held.call.request_id, held.call.traceparent) == ("req-42", "")
            held.end(GOOD)

    run(main())


def test_the_model_decides_who_is_asked() -> None:
    async def main() -> None:
        async with edge(2) as made:
            made.data_plane.worker(1).become_ready(models=("tiny",))
            await turns()
            made.ask(chat(model="tiny"))
            await turns()
            [held] = made.data_plane.worker(1).calls
            assert held.call.model == "tiny"
            held.end(GOOD)

    run(main())


# Keys


@EVERY_PATH
@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"x-api-key": "wrong"}])
def test_nobody_without_a_key_is_let_in(path: str, headers: dict[str, str]) -> None:
    """And not a byte of their bodies is read."""

    async def main() -> None:
        async with edge(api_keys=(KEY,)) as made:
            client = await made.ask(client_for(path, headers))
            assert (client.status, code_of(client)) == (401, "invalid_api_key")
            assert client.headers["x-request-id"] == "req-42"
            assert client.receives == 0
            assert not made.data_plane.worker().calls
            assert made.count(401, path) == 1

    run(main())


@pytest.mark.parametrize("headers", [{"authorization": f"bearer {KEY}"}, {"authorization": KEY}, {"x-api-key": KEY}])
def test_a_key_lets_in(headers: dict[str, str]) -> None:
    async def main() -> None:
        async with edge(api_keys=("another", KEY)) as made:
            (await made.asked(client_for(CHAT, headers))).end(GOOD)
            await turns()
            assert made.count(200) == 1

    run(main())


# Bodies


@EVERY_PATH
def test_a_bad_body_is_told_in_the_apis_own_words(path: str) -> None:
    async def main() -> None:
        async with edge() as made:
            client = await made.ask(client_for(path, {}, b'{"model": 5}'))
            assert (client.status, code_of(client)) == (400, "invalid_request")
            assert client.headers["content-type"] == "application/json"
            assert client.headers["content-length"] == str(len(client.body))
            assert "connection" not in client.headers
            assert not made.data_plane.worker().calls
            assert made.count(400, path) == 1

    run(main())


def test_a_large_body_is_refused_unread_when_it_is_announced() -> None:
    async def main() -> None:
        async with edge(max_body_bytes=2000) as made:
            client = await made.ask(client_for(CHAT, {"content-length": "2001"}))
            assert (client.status, code_of(client)) == (413, "request_too_large")
            assert client.headers["connection"] == "close"
            assert client.receives == 0

    run(main())


def test_a_large_body_is_refused_where_it_exceeds_the_limit() -> None:
    async def main() -> None:
        async with edge(max_body_bytes=2000) as made:
            client = await made.ask(FakeClient(CHAT, [b"x" * 1500, b"x" * 1500, b"never read"]))
            assert (client.status, client.headers["connection"]) == (413, "close")
            assert client.receives == 2

    run(main())


def test_a_body_that_does_not_come_is_given_up() -> None:
    async def main() -> None:
        async with edge(body_timeout_s=5) as made:
            client = await made.ask(FakeClient(CHAT, b'{"messages":', whole=False))
            assert (client.status, code_of(client)) == (408, "body_timeout")
            assert client.headers["connection"] == "close"
            assert asyncio.get_running_loop().time() == 5

    run(main())


def test_a_client_that_leaves_with_half_its_body_sent_is_forgotten() -> None:
    async def main() -> None:
        async with edge() as made:
            client = FakeClient(CHAT, b'{"messages":', whole=False)
            made.ask(client)
            await turns()
            client.leave()
            await turns()
            assert client.status == 0
            assert made.count(499) == 1

    run(main())


def test_the_bodies_of_all_requests_together_are_bounded() -> None:
    """Whoever would exceed the bound is told to come again; memory is given back when its request is over."""

    async def main() -> None:
        async with edge(max_bodies_bytes=1 << 20, max_body_bytes=600_000) as made:
            waiting = FakeClient(CHAT, b"x" * 600_000, whole=False)
            made.ask(waiting)
            await turns()
            assert made.bodies.held == 600_000
            client = await made.ask(client_for(CHAT, {}, b"x" * 500_000))
            assert (client.status, code_of(client)) == (503, "workers_busy")
            assert client.headers["connection"] == "close"
            assert "retry-after" in client.headers
            held = await made.asked(chat())
            waiting.leave()
            held.end(GOOD)
            await turns()
            assert made.bodies.held == 0

    run(main())


# Bugs


class BugError(Exception):
    """Nobody's fault but ours."""


def test_a_bug_before_the_answer_is_a_500_and_logged() -> None:
    async def main() -> None:
        async with edge() as made:

            class Broken:
                def pick(self, *_: object) -> None:
                    raise BugError("secret details")

                def score(self, _: object) -> None:
                    return None

            made.data_plane.dispatcher.use(Broken())
            with capture_logs() as logs:
                client = await made.ask(chat())
            assert (client.status, code_of(client)) == (500, "internal_error")
            assert b"secret details" not in client.body
            assert made.count(500) == 1
            [log] = [log for log in logs if log["log_level"] == "error"]
            assert (log["request_id"], log["exc_info"]) == ("req-42", True)

    run(main())


def test_a_bug_after_the_answer_began_is_the_servers_to_cut() -> None:
    """There is no second status to send; what was held is given back all the same."""

    async def main() -> None:
        async with edge() as made:
            client = chat()
            serving = asyncio.get_running_loop().create_task(client.ask(made.endpoints[CHAT]))
            await turns()
            [held] = made.data_plane.worker().calls
            held.chunk(b"data: {}\n\n")

            def broken(_: object) -> None:
                raise BugError

            client.connection.on_lost = broken  # type: ignore[method-assign, assignment]
            held.end(GOOD)
            with capture_logs() as logs, pytest.raises(BugError):
                await serving
            assert (client.status, made.count(200)) == (200, 1)
            assert [log["log_level"] for log in logs] == ["error"]

    run(main())


# Metrics


def test_requests_in_flight_are_counted_when_somebody_looks() -> None:
    async def main() -> None:
        async with edge() as made:
            made.metrics.count_active(lambda: made.data_plane.dispatcher.in_flight)
            held = [await made.asked(chat()) for _ in range(3)]
            assert made.value("active_requests") == 3
            for call in held:
                call.end(GOOD)
            await turns()
            assert made.value("active_requests") == 0

    run(main())


def test_a_request_counts_with_its_duration() -> None:
    async def main() -> None:
        async with edge() as made:
            held = await made.asked(prompt(stream=True))
            await asyncio.sleep(4)
            held.end(GOOD)
            await turns()
            labels = {"method": "POST", "path": "/prompt"}
            assert made.value("request_duration_seconds_sum", **labels) == 4
            assert made.value("request_duration_seconds_count", **labels) == 1

    run(main())

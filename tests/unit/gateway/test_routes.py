"""Everything that is not hot: workers, models, health, errors in the right words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from config_support import gateway_config
from dataplane_support import Rig, rig
from gateway_support import edge_for
from neurogate import __version__
from neurogate.dataplane.pool import EndpointPool
from neurogate.endpoint import ServedModel, WorkerReport
from neurogate.errors import MethodNotAllowedError
from neurogate.gateway.dialects.refusals import refusal
from neurogate.gateway.intake import RequestIds
from neurogate.gateway.lifecycle import Lifecycle, Why
from neurogate.gateway.metrics import GatewayMetrics
from neurogate.gateway.reception import received
from neurogate.gateway.records import Recorder
from neurogate.gateway.routes import build_app, health, readiness
from neurogate.telemetry.access_log import Entry
from neurogate.testing.connections import FakeClient
from neurogate.virtual_time import run

REPORT = WorkerReport(
    worker_id="host:50051",
    version="1.2.3",
    ready=True,
    engine_kind="llamacpp",
    engine_version="b1",
    engine_restarts=2,
    models=(ServedModel("tiny", context_length=512), ServedModel("big", loaded=False)),
    slots_total=4,
    slots_busy=1,
    running=1,
    queued=2,
    tokens_outstanding=300,
    decode_tokens_per_s=12.3456,
    apis=frozenset({"/v1/rerank", "/infill"}),
)


class BugError(Exception):
    """Nobody's fault but ours."""


class Hot:
    """An endpoint that answers at once."""

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hot"})


class Site:
    """The app in front of a data plane."""

    def __init__(self, data_plane: Rig, keys: tuple[str, ...], *, guard_workers: bool = False, **settings: Any) -> None:
        loop = asyncio.get_running_loop()
        self.data_plane = data_plane
        self.lifecycle = Lifecycle()
        self.metrics = GatewayMetrics()
        self.entries: list[Entry] = []
        _, edge = edge_for(data_plane, gateway_config(api_keys=keys, **settings), self.metrics)
        app = build_app(
            data_plane.pool,
            edge.identify,
            self.lifecycle,
            hot={"/prompt": Hot(), "/v1/chat/completions": Hot()},
            now=loop.time,
            guard_workers=guard_workers,
        )
        recorder = Recorder(self.entries.append, edge, wall=lambda: 1e9, loop=loop)
        self.app: ASGIApp = received(
            app,
            edge=edge,
            request_ids=RequestIds(lambda: 42),
            metrics=self.metrics,
            loop=loop,
            recorder=recorder,
        )

    async def get(self, path: str, *, method: str = "GET", **headers: str) -> FakeClient:
        given = [(name.replace("_", "-"), value) for name, value in headers.items()]
        return await FakeClient(path, method=method, headers=given).ask(self.app)

    def count(self, **labels: str) -> float:
        return self.metrics.registry.get_sample_value("neurogate_gateway_requests_total", labels) or 0


@asynccontextmanager
async def site(
    workers: int = 1, *, up: bool = True, keys: tuple[str, ...] = (), guard_workers: bool = False, **settings: Any
) -> AsyncIterator[Site]:
    async with rig(workers, up=up) as data_plane:
        yield Site(data_plane, keys, guard_workers=guard_workers, **settings)


def test_a_worker_is_shown_as_it_is() -> None:
    async def main() -> None:
        async with site() as made:
            await asyncio.sleep(1)
            made.data_plane.worker().tell(REPORT)
            _, receiver = made.data_plane.send()
            await asyncio.sleep(2)
            client = await made.get("/workers")
            assert client.headers["cache-control"] == "no-store"
            assert client.json() == {
                "workers": [
                    {
                        "id": "worker-0",
                        "address": "host-0:50051",
                        "state": "ready",
                        "healthy": True,
                        "ready": True,
                        "draining": False,
                        "cordoned": False,
                        "circuit_breaker_state": "closed",
                        "consecutive_failures": 0,
                        "in_flight": 1,
                        "models": ["tiny", "big"],
                        "slots": {"total": 4, "busy": 1},
                        "requests": {"running": 1, "queued": 2},
                        "tokens_outstanding": 300,
                        "tokens_per_second": 12.35,
                        "engine": {"kind": "llamacpp", "version": "b1", "restarts": 2},
                        "apis": ["/infill", "/v1/rerank"],
                        "name": "host:50051",
                        "version": "1.2.3",
                        "detail": "",
                        "last_words": "",
                        "last_report_s": 2.0,
                    }
                ],
                "count": 1,
            }
            made.data_plane.worker().calls[0].end()
            await receiver.last_word()

    run(main())


def test_a_worker_that_was_never_heard_of_is_shown_too() -> None:
    async def main() -> None:
        async with site(2, up=False) as made:
            made.data_plane.worker(1).refuse_connection("connection refused")
            await asyncio.sleep(1)
            first, second = (await made.get("/workers")).json()["workers"]
            assert (first["healthy"], first["ready"], first["last_report_s"]) == (False, False, None)
            assert second["detail"] == "connection refused"

    run(main())


def test_a_worker_that_drains_or_failed_says_so() -> None:
    async def main() -> None:
        async with site(2) as made:
            made.data_plane.worker(0).drain()
            await made.data_plane.open_breaker(1)
            draining, failed = (await made.get("/workers")).json()["workers"]
            assert (draining["draining"], draining["ready"], draining["healthy"]) == (True, False, True)
            assert (failed["circuit_breaker_state"], failed["consecutive_failures"]) == ("open", 3)

    run(main())


# Health


@pytest.mark.parametrize(("down", "status", "said"), [(0, 200, "healthy"), (1, 200, "degraded"), (2, 503, "unhealthy")])
def test_health_counts_the_workers_that_could_be_asked(down: int, status: int, said: str) -> None:
    async def main() -> None:
        async with site(2) as made:
            for index in range(down):
                made.data_plane.worker(index).become_unready()
            states = {word: count for word, count in (("not_ready", down), ("ready", 2 - down)) if count}
            client = await made.get("/health")
            assert client.status == status
            assert client.json() == {
                "status": said,
                "version": __version__,
                "workers": {"total": 2, "available": 2 - down, "states": states},
            }

    run(main())


def test_an_open_breaker_degrades_and_an_empty_fleet_is_unhealthy() -> None:
    async def main() -> None:
        async with site(2) as made:
            await made.data_plane.open_breaker(0)
            assert health(made.data_plane.pool, {})[1]["status"] == "degraded"
        async with site(0) as made:
            assert (await made.get("/health")).status == 503

    run(main())


def test_readiness_is_the_gateways_own() -> None:
    """Whatever its workers are: a gateway that drains is healthy and not ready."""

    async def main() -> None:
        async with site() as made:
            assert (await made.get("/ready")).status == 503
            made.lifecycle.ready = True
            client = await made.get("/ready")
            assert (client.status, client.json()["ready"], client.json()["draining"]) == (200, True, False)
            made.lifecycle.drain(Why.STOP)
            client = await made.get("/ready")
            assert (client.status, client.json()["ready"], client.json()["draining"]) == (503, False, True)
            assert (await made.get("/health")).status == 200
            assert readiness(made.lifecycle)[0] is False

    run(main())


def test_ping_checks_nothing() -> None:
    async def main() -> None:
        async with site(0) as made:
            client = await made.get("/ping")
            assert (client.status, client.body) == (200, b"")

    run(main())


# Models


def test_the_workers_can_be_kept_from_strangers() -> None:
    async def main() -> None:
        async with site(1, keys=("a-long-key",), guard_workers=True) as made:
            assert (await made.get("/workers")).status == 401
            assert (await made.get("/workers", x_api_key="a-long-key")).status == 200

    run(main())


def test_models_are_those_that_usable_workers_have() -> None:
    """In one shape for OpenAI's and Anthropic's clients."""

    async def main() -> None:
        async with site(3) as made:
            made.data_plane.worker(0).tell(
                replace(REPORT, models=(ServedModel("tiny", loaded=False), ServedModel("a")))
            )
            made.data_plane.worker(1).tell(REPORT)
            made.data_plane.worker(2).tell(replace(REPORT, ready=False, models=(ServedModel("hidden"),)))
            said = (await made.get("/v1/models")).json()
            tiny = said["data"].pop()
            assert tiny == {
                "id": "tiny",
                "object": "model",
                "created": 0,
                "owned_by": "llamacpp",
                "type": "model",
                "display_name": "tiny",
                "created_at": "1970-01-01T00:00:00Z",
                "loaded": True,
                "context_length": 512,
            }
            assert [(entry["id"], entry["loaded"]) for entry in said.pop("data")] == [("a", True), ("big", False)]
            assert said == {"object": "list", "has_more": False, "first_id": "a", "last_id": "tiny"}

    run(main())


def test_no_models_are_an_empty_list() -> None:
    async def main() -> None:
        async with site(0) as made:
            assert (await made.get("/v1/models")).json() == {
                "object": "list",
                "data": [],
                "has_more": False,
                "first_id": None,
                "last_id": None,
            }

    run(main())


@pytest.mark.parametrize(("asked", "got"), [("tiny", "tiny"), ("org/name", "org/name"), ("tiny:latest", "tiny")])
def test_one_model_is_found_by_its_name(asked: str, got: str) -> None:
    async def main() -> None:
        async with site() as made:
            made.data_plane.worker().tell(replace(REPORT, models=(ServedModel("tiny"), ServedModel("org/name"))))
            client = await made.get(f"/v1/models/{asked}")
            assert (client.status, client.json()["id"]) == (200, got)

    run(main())


def test_a_model_that_is_not_there_is_told_with_those_that_are() -> None:
    async def main() -> None:
        async with site() as made:
            made.data_plane.worker().tell(REPORT)
            client = await made.get("/v1/models/nothing")
            assert client.status == 404
            assert client.json()["error"] == {
                "message": "model 'nothing' not found; the models are: big, tiny",
                "type": "invalid_request_error",
                "param": "model",
                "code": "model_not_found",
            }
            anthropic = await made.get("/v1/models/nothing", anthropic_version="2023-06-01")
            assert anthropic.json()["type"] == "error"
            assert anthropic.json()["error"]["type"] == "not_found_error"

    run(main())


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v1/messages", lambda said: said["error"]["type"] == "invalid_request_error" and said["type"] == "error"),
        ("/v1/responses", lambda said: said["error"]["code"] == "method_not_allowed"),
        ("/completion", lambda said: said["error"]["code"] == 405),
        ("/api/chat", lambda said: isinstance(said["error"], str)),
        ("/prompt", lambda said: said["code"] == "method_not_allowed"),
    ],
)
def test_a_refusal_is_in_the_words_of_the_paths_clients(path: str, kind: Any) -> None:
    said = msgspec.json.decode(refusal(path, {}, MethodNotAllowedError("no")))
    assert kind(said)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Bearer caf\xe9"}, 401),
        ({"authorization": "Bearer right"}, 200),
        ({"x_api_key": "right"}, 200),
    ],
)
def test_models_are_for_those_with_a_key(headers: dict[str, str], status: int) -> None:
    async def main() -> None:
        async with site(keys=("right",)) as made:
            client = await made.get("/v1/models", **headers)
            assert client.status == status
            if status == 401:
                assert client.json()["error"]["code"] == "invalid_api_key"
            assert (await made.get("/workers")).status == 200

    run(main())


# Errors


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_route_that_does_not_exist(method: str) -> None:
    async def main() -> None:
        async with site() as made:
            plain = await made.get("/nothing", method=method)
            assert plain.status == 404
            assert plain.json() == {
                "error": "invalid_request_error",
                "code": "not_found",
                "message": f"{method} /nothing: there is no such route",
                "request_id": "req-42",
            }
            openai = await made.get("/v1/embeddings", method=method)
            assert openai.status == 404
            assert openai.json()["error"]["code"] == "not_found"

    run(main())


@pytest.mark.parametrize(("path", "allowed"), [("/prompt", "POST"), ("/v1/chat/completions", "POST")])
def test_a_hot_route_asked_with_another_method(path: str, allowed: str) -> None:
    async def main() -> None:
        async with site() as made:
            client = await made.get(path)
            assert (client.status, client.headers["allow"]) == (405, allowed)
            said = client.json()
            error: Any = said["error"] if path.startswith("/v1/") else said
            assert error["code"] == "method_not_allowed"
            assert error["message"] == f"GET {path}: use {allowed}"

    run(main())


def test_a_cold_route_asked_with_another_method() -> None:
    async def main() -> None:
        async with site() as made:
            client = await made.get("/workers", method="POST")
            assert client.status == 405
            assert "GET" in client.headers["allow"]

    run(main())


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/prompt", "OPTIONS, POST"),
        ("/v1/chat/completions", "OPTIONS, POST"),
        ("/v1/models", "GET, HEAD, OPTIONS"),
        ("/v1/models/a/b", "GET, HEAD, OPTIONS"),
    ],
)
def test_options_tells_anybody_the_methods_of_a_path(path: str, allowed: str) -> None:
    async def main() -> None:
        async with site(keys=("right",)) as made:
            client = await made.get(path, method="OPTIONS")
            assert (client.status, client.headers["allow"], client.body) == (204, allowed, b"")
            assert (await made.get("/nothing", method="OPTIONS")).status == 404

    run(main())


def test_a_path_with_a_slash_too_many_is_not_redirected() -> None:
    """A POST that is redirected loses its body with most clients."""

    async def main() -> None:
        async with site() as made:
            assert (await made.get("/prompt/", method="POST")).status == 404
            assert (await made.get("/health/")).status == 404

    run(main())


def test_a_bug_is_a_500_without_details() -> None:
    async def main() -> None:
        async with site() as made:

            class Broken:
                @property
                def members(self) -> object:
                    raise BugError("secret details")

            client = FakeClient("/workers", method="GET")
            with patch.object(EndpointPool, "snapshot", Broken()), pytest.raises(BugError):  # for the server to log
                await client.ask(made.app)
            assert client.status == 500
            assert client.json()["code"] == "internal_error"
            assert b"secret details" not in client.body
            assert made.count(method="GET", path="/workers", status="500") == 1

    run(main())


def test_hot_endpoints_are_mounted_for_other_servers() -> None:
    async def main() -> None:
        async with site() as made:
            assert (await made.get("/prompt", method="POST")).body == b"hot"

    run(main())


def test_requests_are_counted_under_a_bounded_number_of_names() -> None:
    async def main() -> None:
        async with site() as made:
            for path, method in [
                ("/health", "GET"),
                ("/x", "GET"),
                ("/y/z", "GET"),
                ("/x", "BREW"),
                ("/prompt", "GET"),
            ]:
                await made.get(path, method=method)
            assert made.count(method="GET", path="/health", status="200") == 1
            assert made.count(method="GET", path="other", status="404") == 2
            assert made.count(method="other", path="other", status="404") == 1
            assert made.count(method="GET", path="/prompt", status="405") == 1

    run(main())


def test_requests_of_one_route_are_counted_together() -> None:
    async def main() -> None:
        async with site(address_requests_per_minute=3) as made:
            for model in ("a", "b/c"):
                await made.get(f"/v1/models/{model}")
            await made.get("/v1/models/a", method="POST")
            assert made.count(method="GET", path="/v1/models/{model_id}", status="404") == 2
            assert made.count(method="POST", path="/v1/models/{model_id}", status="405") == 1
            for path in ("/v1/models", "/v1/models/a"):  # refused before they are routed
                assert (await made.get(path)).status == 429
            assert made.count(method="GET", path="/v1/models", status="429") == 1
            assert made.count(method="GET", path="other", status="429") == 1

    run(main())


def test_requests_are_written_down_but_for_probes() -> None:
    async def main() -> None:
        async with site(keys=("a-long-key",)) as made:
            for path in ("/health", "/ready", "/ping"):
                await made.get(path)
            await made.get("/v1/models", x_api_key="a-long-key")
            await made.get("/nothing")
            assert [(entry.path, entry.status, entry.key_id, entry.outcome) for entry in made.entries] == [
                ("/v1/models", 200, "key-1", "answered"),
                ("/nothing", 404, "", "refused"),
            ]
            assert made.entries[0].bytes > 0

    run(main())


def test_answers_and_their_entries_have_the_requests_id() -> None:
    """The client's own when it is well-formed, and then in the error's body too."""

    async def main() -> None:
        async with site(address_requests_per_minute=5) as made:
            told = await made.get("/v1/models", x_request_id="mine-1")
            made_up = await made.get("/workers", x_request_id="no spaces\x1b")
            missing = await made.get("/nothing", x_request_id="mine-2")
            anthropic = await made.get("/v1/messages", x_request_id="mine-3", anthropic_version="2023-06-01")
            _ = await made.get("/nothing")
            held = await made.get("/nothing", x_request_id="mine-4")
            clients = [told, made_up, missing, anthropic, held]
            assert [client.status for client in clients] == [200, 200, 404, 404, 429]
            assert [client.headers["x-request-id"] for client in clients] == [
                "mine-1",
                "req-42",
                "mine-2",
                "mine-3",
                "mine-4",
            ]
            assert [client.json()["request_id"] for client in (missing, anthropic, held)] == [
                "mine-2",
                "mine-3",
                "mine-4",
            ]
            written = [entry.request_id for entry in made.entries]
            assert written == ["mine-1", "req-42", "mine-2", "mine-3", "req-43", "mine-4"]

    run(main())


def test_nothing_is_sent_to_a_head() -> None:
    async def main() -> None:
        async with site() as made:
            await made.get("/v1/models", method="HEAD")
            [entry] = made.entries
            assert (entry.status, entry.bytes) == (200, 0)

    run(main())


def test_an_address_that_guesses_keys_is_held_back() -> None:
    async def main() -> None:
        async with site(keys=("a-long-key",), address_failures_per_minute=2) as made:
            for _ in range(2):
                assert (await made.get("/v1/models", x_api_key="guess")).status == 401
            held = await made.get("/v1/models", x_api_key="a-long-key")
            assert (held.status, held.json()["error"]["type"]) == (429, "rate_limit_error")
            assert int(held.headers["retry-after"]) > 0
            await asyncio.sleep(75)
            assert (await made.get("/v1/models", x_api_key="a-long-key")).status == 200

    run(main())

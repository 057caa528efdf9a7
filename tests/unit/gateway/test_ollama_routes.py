"""What the gateway tells of the fleet in Ollama's words, and what it leaves to the workers' own Ollama."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import ollama
import pytest

from dataplane_support import Rig, rig
from neurogate.edge.caller import ANYBODY, Caller
from neurogate.endpoint import ServedModel, WorkerReport
from neurogate.errors import UnauthorizedError
from neurogate.gateway.lifecycle import Lifecycle
from neurogate.gateway.ollama_routes import API_VERSION, ollama_routes
from neurogate.gateway.routes import build_app
from neurogate.testing.connections import FakeClient
from neurogate.virtual_time import run

LLAMA = ServedModel(
    "llama3.2:latest",
    context_length=4096,
    family="llama",
    parameters=3_212_749_888,
    quantization="Q4_K_M",
    size_bytes=2 << 30,
    digest="a80c4f17acd5",
)
SHORT = ServedModel("llama3.2", context_length=4096)
COLD = ServedModel("qwen3:0.6b", loaded=False)
TINY = ServedModel("tiny")
EMPTY_DETAILS = {
    "parent_model": "",
    "format": "",
    "family": "",
    "families": [],
    "parameter_size": "",
    "quantization_level": "",
}


def report(*models: ServedModel, ready: bool = True) -> WorkerReport:
    return WorkerReport(ready=ready, models=models, slots_total=1)


class Asked:
    """The routes in front of a data plane, and who asks."""

    def __init__(
        self, data_plane: Rig, caller: Caller = ANYBODY, *, aliases: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.seen: list[tuple[bytes, bytes]] = []
        self._caller = caller
        routes = ollama_routes(data_plane.pool, self._identify, started_at=1_700_000_000.25, aliases=lambda: aliases)
        self._app = build_app(data_plane.pool, self._identify, Lifecycle(), hot={}, now=lambda: 0.0, more=routes)

    async def __call__(self, path: str, method: str = "GET", key: str = "good") -> FakeClient:
        return await FakeClient(path, method=method, headers=[("authorization", key)]).ask(self._app)

    async def models(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self(path)).json()["models"]
        return found

    def _identify(self, authorization: bytes, api_key: bytes) -> Caller:
        self.seen.append((authorization, api_key))
        if authorization != b"good":
            raise UnauthorizedError("an API key is needed")
        return self._caller


def test_models_are_listed_once_however_many_workers_have_them_and_whatever_they_call_them() -> None:
    async def main() -> None:
        async with rig(3) as data_plane:
            data_plane.worker(0).tell(report(SHORT, COLD))
            data_plane.worker(1).tell(report(LLAMA, TINY))
            data_plane.worker(2).tell(report(ServedModel("gone"), ready=False))
            asked = Asked(data_plane)
            listed = await asked.models("/api/tags")
            assert [model["name"] for model in listed] == ["llama3.2:latest", "qwen3:0.6b", "tiny"]
            tiny = listed[2]
            assert len(tiny.pop("digest")) == 64
            assert tiny == {
                "name": "tiny",
                "model": "tiny",
                "size": 0,
                "details": EMPTY_DETAILS,
                "modified_at": "2023-11-14T22:13:20.250000Z",
            }
            parsed = ollama.ListResponse(models=listed)
            assert [model.model for model in parsed.models] == ["llama3.2:latest", "qwen3:0.6b", "tiny"]

    run(main())


def test_what_a_worker_tells_of_a_model_is_told() -> None:
    async def main() -> None:
        async with rig() as data_plane:
            data_plane.worker().tell(report(LLAMA))
            [model] = await Asked(data_plane).models("/api/tags")
            assert (model["size"], model["digest"]) == (2 << 30, "a80c4f17acd5")
            assert model["details"] == {
                **EMPTY_DETAILS,
                "family": "llama",
                "families": ["llama"],
                "parameter_size": "3.2B",
                "quantization_level": "Q4_K_M",
            }

    run(main())


def test_only_what_is_loaded_runs() -> None:
    """Until when, and in which memory, nobody knows; so it is not said."""

    async def main() -> None:
        async with rig(2) as data_plane:
            data_plane.worker(0).tell(report(COLD, TINY))
            data_plane.worker(1).tell(report(ServedModel("qwen3:0.6b", context_length=1024)))
            running = await Asked(data_plane).models("/api/ps")
            assert [(model["name"], model.get("context_length")) for model in running] == [
                ("qwen3:0.6b", 1024),
                ("tiny", None),
            ]
            assert not any({"expires_at", "size_vram"} & model.keys() for model in running)
            assert len(ollama.ProcessResponse(models=running).models) == 2

    run(main())


def test_a_key_that_is_bound_to_models_sees_those() -> None:
    async def main() -> None:
        async with rig() as data_plane:
            data_plane.worker().tell(report(LLAMA, SHORT, TINY))
            asked = Asked(data_plane, Caller(models=frozenset({"tiny"})))
            assert [model["name"] for model in await asked.models("/api/tags")] == ["tiny"]
            assert [model["name"] for model in await asked.models("/api/ps")] == ["tiny"]

    run(main())


def test_aliases_are_listed_as_copies() -> None:
    async def main() -> None:
        async with rig() as data_plane:
            data_plane.worker().tell(report(LLAMA, TINY))
            aliases = {"gpt-4": "llama3.2", "tiny:latest": "llama3.2", "lost": "gone"}
            asked = Asked(data_plane, aliases=aliases)
            listed = {model["name"]: model for model in await asked.models("/api/tags")}
            assert list(listed) == ["gpt-4", "llama3.2:latest", "tiny"]
            assert listed["gpt-4"]["digest"] == listed["llama3.2:latest"]["digest"]
            assert [model["name"] for model in await asked.models("/api/ps")] == ["llama3.2:latest", "tiny"]

    run(main())


def test_a_sign_of_life_needs_no_key() -> None:
    async def main() -> None:
        async with rig() as data_plane:
            asked = Asked(data_plane)
            root = await asked("/", key="")
            assert (root.status, root.body) == (200, b"Ollama is running")
            assert root.headers["content-type"].startswith("text/plain")
            head = await asked("/", "HEAD", key="")
            assert head.status == 200
            assert asked.seen == []
            assert (await asked("/api/version")).json() == {"version": API_VERSION}

    run(main())


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/pull"),
        ("POST", "/api/push"),
        ("POST", "/api/create"),
        ("POST", "/api/copy"),
        ("DELETE", "/api/delete"),
        ("HEAD", "/api/blobs/sha256:00"),
        ("POST", "/api/blobs/sha256:00"),
    ],
)
def test_managing_models_is_left_to_the_workers_own_ollama(method: str, path: str) -> None:
    async def main() -> None:
        async with rig() as data_plane:
            asked = Asked(data_plane)
            refused = await asked(path, method)
            assert refused.status == 501
            if method != "HEAD":
                assert "the Ollama of the worker itself" in refused.json()["error"]
            assert asked.seen == [(b"good", b"")]

    run(main())


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/tags"),
        ("GET", "/api/ps"),
        ("GET", "/api/version"),
        ("POST", "/api/pull"),
        ("DELETE", "/api/delete"),
    ],
)
def test_nobody_is_let_in_without_the_key(method: str, path: str) -> None:
    async def main() -> None:
        async with rig() as data_plane:
            refused = await Asked(data_plane)(path, method, key="bad")
            assert (refused.status, refused.json()) == (401, {"error": "an API key is needed"})

    run(main())

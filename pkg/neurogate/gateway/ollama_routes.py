"""What Ollama tells of itself and its models, told of the whole fleet; and what only a worker's own Ollama can do.

Every model has one entry, whichever workers have it and whether they call it `NAME` or `NAME:latest`. Clients read
fields unasked, so a field that no worker knows has the zero that Ollama itself would write.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from neurogate.dataplane.pool import EndpointPool
from neurogate.edge.caller import Caller
from neurogate.edge.permissions import sees
from neurogate.endpoint import ServedModel
from neurogate.errors import UnsupportedError
from neurogate.gateway.callers import Identify, caller_of
from neurogate.model_names import LATEST, parameter_size

API_VERSION = "0.12.11"
"""The release of Ollama whose API is spoken here; clients compare it to know what they may ask for."""

_MANAGED = {
    "/api/pull": "POST",
    "/api/push": "POST",
    "/api/create": "POST",
    "/api/copy": "POST",
    "/api/delete": "DELETE",
}


def ollama_routes(
    pool: EndpointPool,
    identify: Identify,
    *,
    started_at: float,
    aliases: Callable[[], Mapping[str, str]] = dict,
) -> list[Route]:
    """The routes.

    `started_at` is when the gateway began, in Unix seconds: models are no older to its clients. `aliases` are other
    names of models there are now; they are listed as the copies that Ollama would have made.
    """
    modified_at = datetime.fromtimestamp(started_at, UTC).isoformat().replace("+00:00", "Z")

    async def root(_: Request) -> Response:
        return PlainTextResponse("Ollama is running")

    async def version(request: Request) -> Response:
        caller_of(request, identify)
        return _json({"version": API_VERSION})

    async def tags(request: Request) -> Response:
        models = _fleet(pool, caller_of(request, identify))
        listed = sorted([*models, *_copies(models, aliases())], key=lambda model: model.name)
        return _json({"models": [{**_listed(model), "modified_at": modified_at} for model in listed]})

    async def loaded(request: Request) -> Response:
        models = _fleet(pool, caller_of(request, identify))
        return _json({"models": [_running(model) for model in models if model.loaded]})

    async def managed(request: Request) -> Response:
        caller_of(request, identify)
        raise UnsupportedError(
            f"{request.url.path[:100]} is not for a gateway: manage models with the Ollama of the worker itself"
        )

    return [
        Route("/", root, methods=["GET"]),
        Route("/api/version", version, methods=["GET"]),
        Route("/api/tags", tags, methods=["GET"]),
        Route("/api/ps", loaded, methods=["GET"]),
        *(Route(path, managed, methods=[method]) for path, method in _MANAGED.items()),
        Route("/api/blobs/{digest}", managed, methods=["HEAD", "POST"]),
    ]


def _fleet(pool: EndpointPool, caller: Caller) -> list[ServedModel]:
    """The models of usable workers that the caller may use.

    Of several workers' entries for one model, a loaded one tells most of it; of two names, the one with the tag is
    Ollama's own.
    """
    found: dict[str, ServedModel] = {}
    for member in pool.snapshot.members:
        for model in member.report.models if member.usable else ():
            if not sees(caller, model.name):
                continue
            key = model.name.removesuffix(LATEST)
            other = found.setdefault(key, model)
            best = max(other, model, key=lambda entry: entry.loaded)
            found[key] = replace(best, name=max(other.name, model.name, key=len))
    return [found[key] for key in sorted(found)]


def _copies(models: list[ServedModel], aliases: Mapping[str, str]) -> list[ServedModel]:
    """Their entries under other names."""
    found = {model.name.removesuffix(LATEST): model for model in models}
    return [
        replace(found[name.removesuffix(LATEST)], name=alias)
        for alias, name in aliases.items()
        if name.removesuffix(LATEST) in found and alias.removesuffix(LATEST) not in found
    ]


def _listed(model: ServedModel) -> dict[str, Any]:
    """A digest identifies the entry where no engine tells one: clients show its beginning."""
    return {
        "name": model.name,
        "model": model.name,
        "size": model.size_bytes,
        "digest": model.digest or hashlib.sha256(model.name.encode()).hexdigest(),
        "details": {
            "parent_model": "",
            "format": "",
            "family": model.family,
            "families": [model.family] if model.family else [],
            "parameter_size": parameter_size(model.parameters),
            "quantization_level": model.quantization,
        },
    }


def _running(model: ServedModel) -> dict[str, Any]:
    """Until when it stays loaded, and where, nobody tells."""
    known = {"context_length": model.context_length} if model.context_length else {}
    return {**_listed(model), **known}


def _json(value: Any) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(msgspec.json.encode(value), media_type="application/json", headers=headers)

"""The request headers of NeuroGate's own are in the OpenAPI document, and on its page."""

from __future__ import annotations

import asyncio

from starlette.applications import Starlette

from neurogate.gateway.openapi.routes import openapi_routes
from neurogate.testing.connections import FakeClient

HEADERS = {
    "X-NeuroGate-Timeout",
    "X-NeuroGate-Priority",
    "X-NeuroGate-Queue-Comments",
    "X-NeuroGate-Resume",
    "X-NeuroGate-Explain",
}


def asked(path: str) -> FakeClient:
    app = Starlette(routes=openapi_routes(authenticated=lambda: False))
    return asyncio.run(FakeClient(path, method="GET").ask(app))


def test_every_generating_path_names_the_headers_that_it_takes() -> None:
    document = asked("/openapi.json").json()
    known = document["components"]["parameters"]

    for path in ("/prompt", "/v1/chat/completions", "/api/chat", "/completion"):
        references = document["paths"][path]["post"]["parameters"]
        assert {known[each["$ref"].rsplit("/", 1)[-1]]["name"] for each in references} == HEADERS


def test_the_page_shows_them() -> None:
    page = asked("/docs").body.decode()
    assert all(name in page for name in HEADERS)

"""The ops port of a process: metrics for Prometheus, health and readiness for whoever restarts and routes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Health = Callable[[], tuple[bool, Mapping[str, object]]]
"""Gives (well, what to say)."""


def build_app(registry: CollectorRegistry, *, health: Health, ready: Health) -> Starlette:
    """`/metrics`, `/health`, `/ready` (503 when not) and `/ping` (200, checks nothing)."""

    async def metrics(_: Request) -> Response:
        return Response(
            generate_latest(registry), media_type=CONTENT_TYPE_LATEST, headers={"Cache-Control": "no-store"}
        )

    async def ping(_: Request) -> Response:
        return Response(b"")

    return Starlette(
        routes=[
            Route("/metrics", metrics),
            Route("/health", _endpoint(health)),
            Route("/ready", _endpoint(ready)),
            Route("/ping", ping),
        ]
    )


def _endpoint(check: Health) -> Callable[[Request], object]:
    async def endpoint(_: Request) -> Response:
        well, said = check()
        headers = {} if well else {"Retry-After": "1"}
        return Response(msgspec.json.encode(said), 200 if well else 503, headers, media_type="application/json")

    return endpoint

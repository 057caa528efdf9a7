"""The ops port of a process: metrics for Prometheus, health and readiness for whoever restarts and routes.

`/metrics` speaks to two kinds of readers: who names JSON gets vitals, a few figures for people and pollers; everybody
else gets Prometheus' text, and who asks for OpenMetrics that, with examples of traces in its histograms.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from neurogate.telemetry.scrape import Write, written

Health = Callable[[], tuple[bool, Mapping[str, object]]]
"""Gives (well, what to say)."""

_NO_STORE = {"Cache-Control": "no-store"}
_OPENMETRICS = "application/openmetrics-text"
_OPENMETRICS_TYPE = f"{_OPENMETRICS}; version=1.0.0; charset=utf-8"
_TEXTS = ("text/plain", "text/*", _OPENMETRICS)
"""What names Prometheus' formats."""


def build_app(
    registry: CollectorRegistry,
    *,
    health: Health,
    ready: Health,
    vitals: Callable[[], Mapping[str, object]],
    refresh: Callable[[], Awaitable[object]] | None = None,
    more: Sequence[Route] = (),
) -> Starlette:
    """`/metrics`, `/health`, `/ready` (503 when not) and `/ping` (200, checks nothing).

    `/metrics` is Prometheus' text, OpenMetrics for who prefers that, or `vitals` for who prefers JSON; `/telemetry` and
    `/vitals` are one of them each. `refresh` is awaited before metrics are told; it must be quick and not raise. `more`
    are further routes.
    To the vitals it adds `tasks`, how many the event loop has: what is not given back shows there.
    """

    async def metrics(request: Request) -> Response:
        accept = request.headers.getlist("accept")
        if prefers_json(accept):
            answer = said()
        elif prefers_openmetrics(accept):
            answer = await text(openmetrics, _OPENMETRICS_TYPE)
        else:
            answer = await text(generate_latest, CONTENT_TYPE_LATEST)
        answer.headers["Vary"] = "Accept"
        return answer

    async def telemetry_endpoint(_: Request) -> Response:
        return await text(generate_latest, CONTENT_TYPE_PLAIN_0_0_4)

    async def vitals_endpoint(_: Request) -> Response:
        return said()

    async def text(write: Write, media_type: str) -> Response:
        if refresh is not None:
            await refresh()
        return Response(await written(registry, write), media_type=media_type, headers=_NO_STORE)

    def said() -> Response:
        told = {**vitals(), "tasks": len(asyncio.all_tasks())}
        return Response(msgspec.json.encode(told), media_type="application/json", headers=_NO_STORE)

    async def ping(_: Request) -> Response:
        return Response(b"")

    app = Starlette(
        routes=[
            Route("/metrics", metrics),
            Route("/telemetry", telemetry_endpoint),
            Route("/vitals", vitals_endpoint),
            Route("/health", _endpoint(health)),
            Route("/ready", _endpoint(ready)),
            Route("/ping", ping),
            *more,
        ]
    )
    app.router.redirect_slashes = False  # to whatever the Host header says
    return app


def prefers_json(accept: Iterable[str]) -> bool:
    """Whether Accept headers name `application/json`, rather than any text or OpenMetrics.

    A wildcard names nothing, unless it weighs more than JSON does.
    """
    weights = _weights(accept)
    json = weights.pop("application/json", 0.0)
    anything = max(weights.get("*/*", 0.0), weights.get("application/*", 0.0))
    named = max(weights.get(name, 0.0) for name in _TEXTS)
    return json > named and json >= anything


def prefers_openmetrics(accept: Iterable[str]) -> bool:
    """Whether Accept headers name OpenMetrics, and with no less weight than plain text."""
    weights = _weights(accept)
    named = weights.get(_OPENMETRICS, 0.0)
    return named > 0 and named >= weights.get("text/plain", 0.0)


def _weights(accept: Iterable[str]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for entry in ",".join(accept).split(","):
        media_range, *parameters = (part.strip().lower() for part in entry.split(";"))
        weights[media_range] = max(weights.get(media_range, 0.0), _weight(parameters))
    return weights


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def _endpoint(check: Health) -> Callable[[Request], object]:
    async def endpoint(_: Request) -> Response:
        well, said = check()
        headers = {} if well else {"Retry-After": "1"}
        return Response(msgspec.json.encode(said), 200 if well else 503, headers, media_type="application/json")

    return endpoint

"""Everything that is not hot: models, workers, health, errors. Ordinary Starlette."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp

from neurogate import __version__
from neurogate.dataplane.member import Member
from neurogate.dataplane.pool import EndpointPool
from neurogate.edge.limits import Header
from neurogate.edge.settings import ModelRouteSettings
from neurogate.errors import GatewayError, MethodNotAllowedError, NotFoundError
from neurogate.gateway.callers import REQUEST_ID, Identify, caller_of
from neurogate.gateway.dialects.refusals import refusal
from neurogate.gateway.lifecycle import Lifecycle
from neurogate.gateway.model_list import find_model, list_models
from neurogate.gateway.model_names import ModelNames
from neurogate.gateway.refusal_head import refusal_head


def build_app(
    pool: EndpointPool,
    identify: Identify,
    lifecycle: Lifecycle,
    *,
    hot: Mapping[str, ASGIApp],
    now: Callable[[], float],
    names: ModelNames | None = None,
    details: Callable[[], Mapping[str, object]] = dict,
    more: Sequence[Route] = (),
    guard_workers: bool = False,
) -> Starlette:
    """The gateway's Starlette application; `hot` endpoints are mounted for the sake of their 405.

    `details` are what `/health` tells besides the workers; `more` are further routes. Without `names`, no model has an
    alias. `guard_workers` asks for a key at `/workers`.
    """
    model_names = names or ModelNames(ModelRouteSettings())

    async def health_endpoint(_: Request) -> Response:
        well, said = health(pool, details())
        return _json(said, 200 if well else 503)

    async def ready_endpoint(_: Request) -> Response:
        well, said = readiness(lifecycle)
        return _json(said, 200 if well else 503)

    async def ping(_: Request) -> Response:
        return Response(b"")

    async def workers(request: Request) -> Response:
        if guard_workers:
            caller_of(request, identify)
        members = [describe(member, now()) for member in (*pool.snapshot.members, *pool.leaving)]
        return _json({"workers": members, "count": len(members)})

    async def models(request: Request) -> Response:
        return _json(list_models(pool, model_names, caller_of(request, identify)))

    async def model(request: Request) -> Response:
        return _json(find_model(pool, model_names, caller_of(request, identify), request.path_params["model_id"]))

    routes: list[BaseRoute] = [
        Route("/health", health_endpoint),
        Route("/ready", ready_endpoint),
        Route("/ping", ping),
        Route("/workers", workers),
        Route("/v1/models", models),
        Route("/v1/models/{model_id:path}", model),
        *(Route(path, endpoint, methods=["POST"]) for path, endpoint in hot.items()),
        *more,
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={HTTPException: _http_exception, GatewayError: _gateway_error, Exception: _bug},
    )
    app.router.redirect_slashes = False  # a POST that is redirected loses its body with most clients
    return app


def health(pool: EndpointPool, details: Mapping[str, object]) -> tuple[bool, dict[str, object]]:
    """(any worker is available, what `/health` says, the details included).

    `healthy` with every worker available, `degraded` with some, `unhealthy` with none.
    """
    members = pool.snapshot.members
    states = Counter(member.state for member in members)
    available = sum(count for state, count in states.items() if state.available)
    status = "healthy" if members and available == len(members) else "degraded" if available else "unhealthy"
    return available > 0, {
        "status": status,
        "version": __version__,
        "workers": {"total": len(members), "available": available, "states": states},
        **details,
    }


def readiness(lifecycle: Lifecycle) -> tuple[bool, dict[str, object]]:
    """(requests may come, what `/ready` says)."""
    ready = lifecycle.ready and not lifecycle.draining
    return ready, {"ready": ready, "draining": lifecycle.draining, "version": __version__}


def describe(member: Member, now: float) -> dict[str, object]:
    """One worker as `/workers` shows it."""
    report = member.report
    return {
        "id": member.id,
        "address": member.endpoint.address,
        "state": member.state,
        "healthy": member.linked,
        "ready": member.usable,
        "draining": report.draining or member.cordoned or member.on_idle is not None,
        "cordoned": member.cordoned,
        "circuit_breaker_state": member.breaker.state,
        "consecutive_failures": member.breaker.consecutive_failures,
        "in_flight": member.in_flight,
        "models": [model.name for model in report.models],
        "slots": {"total": report.slots_total, "busy": report.slots_busy},
        "requests": {"running": report.running, "queued": report.queued},
        "tokens_outstanding": report.tokens_outstanding,
        "tokens_per_second": round(report.tokens_per_s, 2),
        "engine": {
            "kind": report.engine_kind,
            "version": report.engine_version,
            "restarts": report.engine_restarts,
        },
        "apis": sorted(report.apis),
        "name": report.worker_id,
        "version": report.version,
        "detail": member.why,
        "last_words": report.last_words,
        "last_report_s": round(now - member.reported_at, 2) if member.reported_at else None,
    }


async def _http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own refusals, in our words."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    path, method = request.url.path, request.method
    if status != 405:
        return _refusal(request, NotFoundError(f"{method} {path}: there is no such route"))
    methods = _methods(request)
    if method == "OPTIONS":  # needs no key, and CORS need not be on
        return Response(status_code=204, headers={"Allow": ", ".join(sorted({*methods, "OPTIONS"}))})
    allowed = ", ".join(sorted(methods))
    wrong = MethodNotAllowedError(f"{method} {path}: use {allowed}")
    return _refusal(request, wrong, [(b"allow", allowed.encode())])


def _methods(request: Request) -> set[str]:
    """What a path takes: it may have several routes, each with methods of its own."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    fitting = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return {method for route in fitting for method in route.methods or ()}


async def _gateway_error(request: Request, error: Exception) -> Response:
    return _refusal(request, error if isinstance(error, GatewayError) else GatewayError("internal error"))


async def _bug(request: Request, _: Exception) -> Response:
    return _refusal(request, GatewayError("internal error; the gateway's log has the details"))


def _refusal(request: Request, error: GatewayError, extra: Sequence[Header] = ()) -> Response:
    request_id = request.scope.get(REQUEST_ID, "")
    body = refusal(request.url.path, request.headers, error, request_id)
    response = Response(body, error.status)
    response.raw_headers = refusal_head(error, body, request_id, extra)
    return response


def _json(value: object, status: int = 200) -> Response:
    return Response(
        msgspec.json.encode(value),
        status,
        media_type="application/json",
        headers={"Cache-Control": "no-store", **({"Retry-After": "1"} if status == 503 else {})},
    )

"""`/debug/requests` on the ops port: what is in flight, and why a request went where it went."""

from __future__ import annotations

import asyncio
from itertools import islice

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from neurogate.edge.admin_keys import AdminKeys
from neurogate.errors import BadRequestError, GatewayError
from neurogate.gateway.explain import KEPT_MAX, Explainer
from neurogate.gateway.in_flight import InFlight
from neurogate.gateway.live.guard import guarded

LIMIT, LIMIT_MAX = 100, 10_000

_NO_STORE = {"Cache-Control": "no-store"}


class RequestNotFoundError(GatewayError):
    """Nothing is known of the request."""

    status = 404
    code = "request_not_found"
    kind = "invalid_request_error"


def debug_routes(
    in_flight: InFlight, explainer: Explainer, keys: AdminKeys, *, loop: asyncio.AbstractEventLoop
) -> list[Route]:
    """GET /debug/requests and /debug/requests/{id}: all requests of that id, for clients may choose one twice."""

    async def listing(request: Request) -> Response:
        rows = list(islice(in_flight.rows(loop.time()), _limit(request)))
        return _json({"count": len(in_flight), "requests": rows, "explained": explainer.ids})

    async def one(request: Request) -> Response:
        request_id = request.path_params["id"]
        rows, records = list(islice(in_flight.find(request_id, loop.time()), LIMIT)), explainer.find(request_id)
        if not rows and not records:
            raise RequestNotFoundError(
                f"{request_id} is not in flight, and not among the last {KEPT_MAX} requests that were explained: "
                "send a request with X-NeuroGate-Explain: 1, while NEUROGATE_EXPLAIN is on"
            )
        return _json({"requests": rows, "explained": records})

    return [
        Route("/debug/requests", guarded(keys, listing), methods=["GET"]),
        Route("/debug/requests/{id}", guarded(keys, one), methods=["GET"]),
    ]


def _limit(request: Request) -> int:
    asked = request.query_params.get("limit", str(LIMIT))
    if not (asked.isascii() and asked.isdigit()) or not 0 < len(asked) <= 6:
        raise BadRequestError("limit: must be a whole number", param="limit")
    return min(int(asked), LIMIT_MAX)


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json", headers=_NO_STORE)

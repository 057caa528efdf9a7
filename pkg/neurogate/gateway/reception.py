"""What every request that is not hot goes through: its address's bounds, its id, the metrics, the access log.

Hot endpoints do the same for themselves, without a wrapped `send` for every token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from neurogate.edge.address_limits import Visit
from neurogate.errors import RateLimitedError
from neurogate.gateway.callers import KEY_ID, REQUEST_ID
from neurogate.gateway.dialects.refusals import refusal
from neurogate.gateway.edge import Edge
from neurogate.gateway.intake import RequestIds, read_headers
from neurogate.gateway.metrics import GatewayMetrics
from neurogate.gateway.records import Recorder
from neurogate.gateway.refusal_head import refusal_head

PROBES = frozenset({"/health", "/ready", "/ping"})
"""Asked every few seconds for ever, by nobody: neither bounded nor written down."""

_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})


def received(
    app: Starlette,
    *,
    edge: Edge,
    request_ids: RequestIds,
    metrics: GatewayMetrics,
    loop: asyncio.AbstractEventLoop,
    recorder: Recorder | None = None,
) -> ASGIApp:
    """The app behind all that; paths it does not route are counted together as `other`."""
    known = {route.path for route in app.routes if isinstance(route, Route)}

    async def receiving(scope: Scope, receive: Receive, send: Send) -> None:
        began_at = loop.time()
        headers = read_headers(scope["headers"])
        scope[REQUEST_ID] = request_id = request_ids.choose(headers.request_id)
        status, size = 500, 0

        async def sending(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                if not any(name == b"x-request-id" for name, _ in message["headers"]):
                    message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            elif scope["method"] != "HEAD":
                size += len(message.get("body", b""))
            await send(message)

        peer = (scope.get("client") or ("",))[0]
        visit: Visit | None = None
        try:
            if scope["path"] not in PROBES:
                visit = edge.arrive(peer, headers.forwarded_for)
            await app(scope, receive, sending)
        except RateLimitedError as error:
            await _refuse(error, scope, sending)
        finally:
            if visit is not None:
                if status == 401:
                    visit.failed()
                visit.end()
            method = scope["method"] if scope["method"] in _METHODS else "other"
            metrics.request(method, _label(scope, known), status, loop.time() - began_at)
            if recorder is not None and scope["path"] not in PROBES:
                recorder.write(
                    scope["method"],
                    scope["path"],
                    status,
                    began_at=began_at,
                    peer=peer,
                    forwarded_for=headers.forwarded_for,
                    request_id=request_id,
                    key_id=scope.get(KEY_ID, ""),
                    size=size,
                )

    return receiving


def _label(scope: Scope, known: Container[str]) -> str:
    """The route's name in metrics; of a request that was refused before it was routed, its path where it is one."""
    route = scope.get("route")
    if isinstance(route, Route):
        return route.path_format
    path: str = scope["path"]
    return path if path in known else "other"


async def _refuse(error: RateLimitedError, scope: Scope, send: Send) -> None:
    body = refusal(scope["path"], Headers(scope=scope), error, scope[REQUEST_ID])
    head = refusal_head(error, body, scope[REQUEST_ID])
    await send({"type": "http.response.start", "status": error.status, "headers": head})
    await send({"type": "http.response.body", "body": body})

"""Who may look: whoever has an admin key where there is one, and everybody else where there is none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response

from neurogate.edge.admin_keys import AdminKeys
from neurogate.errors import GatewayError, UnauthorizedError
from neurogate.gateway.refusal_head import refusal_head

_log = structlog.get_logger("neurogate.live")

Endpoint = Callable[[Request], Awaitable[Response]]


def guarded(keys: AdminKeys, endpoint: Endpoint) -> Endpoint:
    """The endpoint behind the key; what it refuses is worded like the admin API's refusals."""

    async def behind(request: Request) -> Response:
        try:
            if keys.required:
                keys.authenticate(request.headers.get("authorization", ""))
            return await endpoint(request)
        except UnauthorizedError as error:
            client = request.client.host if request.client else ""
            _log.warning("look without the right key", path=request.url.path, client=client)
            return refused(error)
        except GatewayError as error:
            return refused(error)

    return behind


def refused(error: GatewayError) -> Response:
    """The answer to a request that gets none."""
    body = msgspec.json.encode({"error": error.message, "code": error.code, "message": error.message})
    response = Response(body, error.status)
    response.raw_headers = refusal_head(error, body, "", [(b"cache-control", b"no-store")])
    return response

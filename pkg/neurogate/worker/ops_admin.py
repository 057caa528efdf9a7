"""What an admin may do to a worker through its ops port: have it drain, take that back, have it log more or less."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from neurogate.edge.admin_keys import AdminKeys
from neurogate.errors import BadRequestError, GatewayError, UnauthorizedError
from neurogate.telemetry import logging
from neurogate.worker.draining import Draining

Call = Callable[[Request], Awaitable[dict[str, object]]]
"""What to answer once it is done. Raises GatewayError."""

_BODY_BYTES_MAX = 1024

_log = structlog.get_logger("neurogate.admin")


class LogLevel(msgspec.Struct, forbid_unknown_fields=True):
    """The body of PUT /loglevel."""

    level: Literal["debug", "info", "warn", "error"]


def admin_routes(
    keys: Sequence[str],
    draining: Draining,
    *,
    grace_s: float,
    set_level: Callable[[str], None] = logging.set_level,
) -> list[Route]:
    """`POST /drain`, which answers once nothing new is taken, `POST /undrain`, `PUT /loglevel`; none without keys."""
    if not keys:
        return []
    known = AdminKeys(keys)

    async def drain(_: Request) -> dict[str, object]:
        await draining.drain(grace_s=grace_s)
        return {"draining": True, "active_requests": draining.active}

    async def undrain(_: Request) -> dict[str, object]:
        draining.undrain()
        return {"draining": False, "active_requests": draining.active}

    async def loglevel(request: Request) -> dict[str, object]:
        wanted = await _level(request)
        set_level(wanted)
        return {"level": wanted}

    def guarded(call: Call) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                key_id = known.authenticate(request.headers.get("authorization", ""))
                told = await call(request)
            except GatewayError as error:
                if isinstance(error, UnauthorizedError):
                    _log.warning("admin call without the right key", path=request.url.path)
                return _json({"error": error.message, "code": error.code, "message": error.message}, error.status)
            _log.info("admin call", key=key_id, method=request.method, path=request.url.path)
            return _json({"status": "ok", **told}, 200)

        return endpoint

    return [
        Route("/drain", guarded(drain), methods=["POST"]),
        Route("/undrain", guarded(undrain), methods=["POST"]),
        Route("/loglevel", guarded(loglevel), methods=["PUT"]),
    ]


async def _level(request: Request) -> str:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _BODY_BYTES_MAX:
            raise BadRequestError("the body is longer than a level is")
    try:
        return msgspec.json.decode(body, type=LogLevel).level
    except msgspec.DecodeError:
        raise BadRequestError('the body must be {"level": LEVEL}, with debug, info, warn or error') from None


def _json(said: dict[str, object], status: int) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(msgspec.json.encode(said), status, headers, media_type="application/json")

"""What an admin may do to a worker through its ops port: have it drain, and take that back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from neurogate.edge.admin_keys import AdminKeys
from neurogate.errors import UnauthorizedError
from neurogate.worker.draining import Draining

_log = structlog.get_logger("neurogate.admin")


def admin_routes(keys: Sequence[str], draining: Draining, *, grace_s: float) -> list[Route]:
    """`POST /drain`, which answers once nothing new is taken, and `POST /undrain`; none of them without keys."""
    if not keys:
        return []
    known = AdminKeys(keys)

    async def drain() -> None:
        await draining.drain(grace_s=grace_s)

    async def undrain() -> None:
        draining.undrain()

    def guarded(call: Callable[[], Awaitable[None]], *, drains: bool) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                key_id = known.authenticate(request.headers.get("authorization", ""))
            except UnauthorizedError as error:
                _log.warning("admin call without the right key", path=request.url.path)
                return _json({"error": error.message, "code": error.code, "message": error.message}, error.status)
            await call()
            _log.info("admin call", key=key_id, method=request.method, path=request.url.path)
            return _json({"status": "ok", "draining": drains, "active_requests": draining.active}, 200)

        return endpoint

    return [
        Route("/drain", guarded(drain, drains=True), methods=["POST"]),
        Route("/undrain", guarded(undrain, drains=False), methods=["POST"]),
    ]


def _json(said: dict[str, object], status: int) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(msgspec.json.encode(said), status, headers, media_type="application/json")

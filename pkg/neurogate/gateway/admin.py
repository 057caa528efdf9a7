"""The admin API: what may be changed in a running gateway, by whoever has one of its own keys.

Each call is one synchronous change behind the key, and each is in the log with the key's id. Its refusals are of the
plain shape, `{"error", "code", "message"}`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from neurogate.dataplane.member import Member
from neurogate.dataplane.pool import EndpointPool
from neurogate.discovery.listed import ListedResolver
from neurogate.edge.admin_keys import AdminKeys
from neurogate.errors import BadRequestError, InvalidConfigError, TooLargeError, UnauthorizedError
from neurogate.gateway.arrival import ClientGoneError
from neurogate.gateway.intake import read_body
from neurogate.gateway.lifecycle import Lifecycle, Why
from neurogate.gateway.reload import Reloaded, Reloader

BODY_BYTES_MAX = 256 * 1024
BODY_TIMEOUT_S = 10.0

_log = structlog.get_logger("neurogate.admin")

Call = Callable[[Request, str], Awaitable[dict[str, object]]]
"""(request, admin key id) → the answer."""


class NewWorker(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /admin/workers."""

    address: str
    """host:port of its gRPC listener."""


class Admin:
    """The admin API of one gateway."""

    def __init__(
        self,
        keys: AdminKeys,
        reloader: Reloader,
        *,
        pool: EndpointPool,
        resolver: ListedResolver,
        lifecycle: Lifecycle,
        keys_loaded: Callable[[], int],
        describe: Callable[[Member], dict[str, object]],
    ) -> None:
        """`keys_loaded` tells how many API keys are in force; `describe` is one worker as `/workers` shows it."""
        self._keys = keys
        self._reloader = reloader
        self._pool = pool
        self._resolver = resolver
        self._lifecycle = lifecycle
        self._keys_loaded = keys_loaded
        self._describe = describe

    def routes(self) -> list[Route]:
        """Its routes, each behind the admin key."""
        return [
            Route("/admin/config", self._guarded(self._show), methods=["GET"]),
            Route("/admin/config", self._guarded(self._change), methods=["PUT"]),
            Route("/admin/workers", self._guarded(self._add), methods=["POST"]),
            Route("/admin/workers/{id}", self._guarded(self._remove), methods=["DELETE"]),
            Route("/admin/workers/{id}/drain", self._guarded(self._drain), methods=["POST"]),
            Route("/admin/workers/{id}/resume", self._guarded(self._resume), methods=["POST"]),
            Route("/admin/breakers/{id}/reset", self._guarded(self._reset), methods=["POST"]),
            Route("/admin/drain", self._guarded(self._drain_gateway), methods=["POST"]),
            Route("/admin/undrain", self._guarded(self._undrain_gateway), methods=["POST"]),
            Route("/admin/reload", self._guarded(self._reload), methods=["POST"]),
            Route("/reload", self._guarded(self._reload), methods=["POST"]),
        ]

    def _guarded(self, call: Call) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            path = request.url.path
            try:
                key_id = self._keys.authenticate(request.headers.get("authorization", ""))
            except UnauthorizedError:
                client = request.client.host if request.client else ""
                _log.warning("admin call without the right key", method=request.method, path=path, client=client)
                raise
            answer = await call(request, key_id)
            if request.method != "GET":
                _log.info("admin call", key=key_id, method=request.method, path=path)
            status = InvalidConfigError.status if answer.get("code") == InvalidConfigError.code else 200
            return Response(
                msgspec.json.encode(answer),
                status,
                media_type="application/json",
                headers={"Cache-Control": "no-store"},
            )

        return endpoint

    async def _show(self, _request: Request, _key_id: str) -> dict[str, object]:
        settings = {
            setting.key: {"value": value, "source": source, "reloads": setting.reloads}
            for setting, value, source in self._reloader.rows()
        }
        return {**self._reloader.status(), "settings": settings, "needs_restart": self._reloader.pending}

    async def _change(self, request: Request, key_id: str) -> dict[str, object]:
        values = await _body(request, dict[str, Any])
        if not values:
            raise BadRequestError('name what to change, for example {"gateway.retries": 1}')
        return _told(await self._reloader.set(values, key_id))

    async def _reload(self, _request: Request, key_id: str) -> dict[str, object]:
        result = await self._reloader.reload(key_id)
        return {**_told(result), "keys_loaded": self._keys_loaded()}

    async def _add(self, request: Request, key_id: str) -> dict[str, object]:
        new = await _body(request, NewWorker)
        added = self._resolver.add(new.address)
        _log.info("worker added", key=key_id, worker=added.id, address=added.address)
        return {"status": "ok", "id": added.id, "address": added.address}

    async def _remove(self, request: Request, key_id: str) -> dict[str, object]:
        worker_id = request.path_params["id"]
        in_flight = sum(member.in_flight for member in self._pool.snapshot.members if member.id == worker_id)
        removed = self._resolver.remove(worker_id)
        _log.info("worker removed", key=key_id, worker=removed.id, address=removed.address, requests=in_flight)
        return {"status": "ok", "id": removed.id, "address": removed.address, "in_flight": in_flight}

    async def _drain_gateway(self, _request: Request, _key_id: str) -> dict[str, object]:
        self._lifecycle.drain(Why.ADMIN)
        return {"status": "ok", "draining": self._lifecycle.draining}

    async def _undrain_gateway(self, _request: Request, _key_id: str) -> dict[str, object]:
        self._lifecycle.undrain(Why.ADMIN)
        return {"status": "ok", "draining": self._lifecycle.draining}

    async def _drain(self, request: Request, key_id: str) -> dict[str, object]:
        return self._worker(self._pool.cordon(request.path_params["id"]), key_id, "worker cordoned")

    async def _resume(self, request: Request, key_id: str) -> dict[str, object]:
        return self._worker(self._pool.uncordon(request.path_params["id"]), key_id, "worker resumed")

    async def _reset(self, request: Request, key_id: str) -> dict[str, object]:
        return self._worker(self._pool.reset_breaker(request.path_params["id"]), key_id, "breaker reset")

    def _worker(self, member: Member, key_id: str, what: str) -> dict[str, object]:
        _log.info(what, key=key_id, worker=member.id)
        return {"status": "ok", "worker": self._describe(member)}


def _told(result: Reloaded) -> dict[str, object]:
    """What came of a change; a refusal's fields too when a part of it could not be done."""
    done = {"changed": result.changed, "needs_restart": result.needs_restart}
    if not result.error:
        return {"status": "ok", **done}
    failed = {"error": result.error, "code": InvalidConfigError.code, "message": result.error}
    return {"status": "invalid", **failed, **done}


async def _body(request: Request, kind: type[Any]) -> Any:
    try:
        body = await read_body(request.receive, limit=BODY_BYTES_MAX, timeout_s=BODY_TIMEOUT_S)
    except TooLargeError:
        raise TooLargeError(f"the body is larger than the {BODY_BYTES_MAX} bytes that the admin API takes") from None
    except ClientGoneError as error:
        raise BadRequestError("the body did not arrive") from error
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise BadRequestError(f"the body is not what this call takes: {error}") from error

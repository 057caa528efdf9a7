"""The admin API's part of the document."""

from __future__ import annotations

from typing import Any

from neurogate.gateway.openapi.answers import ERRORS, Schema
from neurogate.operations import Family

TAG = "Administration"
SCHEME = "admin"

_STATUS: Schema = {"type": "object", "properties": {"status": {"const": "ok"}}, "required": ["status"]}
_CONFIG: Schema = {
    "type": "object",
    "properties": {"status": {"enum": ["ok", "invalid"]}, "settings": {"type": "object"}},
    "required": ["status", "settings"],
}
_ADDRESS: Schema = {
    "type": "object",
    "properties": {"address": {"type": "string", "description": "host:port of the worker's gRPC listener."}},
    "required": ["address"],
    "additionalProperties": False,
}
_CHANGES: Schema = {
    "type": "object",
    "minProperties": 1,
    "description": "Values by section and key, for example gateway.retries.",
}
_FAILURES = {
    400: "The body is not what this call takes, or a value is wrong; nothing was changed.",
    401: "No admin key, or not the right one.",
    403: "This gateway has no admin key: set NEUROGATE_ADMIN_KEY.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
}
_CHANGE_FAILURES = {
    **_FAILURES,
    400: "Something is wrong: nothing was changed. With `status: invalid` only the key file is, and the rest was done.",
}
_NO_WORKER = {404: "There is no such worker."}
_ID = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}]


def admin_paths() -> dict[str, Any]:
    """The paths, each behind the admin key."""
    return {
        "/admin/config": {
            "get": _call("The settings in force, and where each comes from", answer=_CONFIG),
            "put": _call("Change settings that need no restart", body=_CHANGES, failures=_CHANGE_FAILURES),
        },
        "/admin/workers": {"post": _call("Add a worker", body=_ADDRESS)},
        "/admin/workers/{id}": _of_worker("delete", "Remove a worker, once it has finished what it holds"),
        "/admin/workers/{id}/drain": _of_worker("post", "Give a worker nothing new"),
        "/admin/workers/{id}/resume": _of_worker("post", "Take that back"),
        "/admin/breakers/{id}/reset": _of_worker("post", "Close a worker's breaker"),
        "/admin/drain": {"post": _call("Tell load balancers and clients to go elsewhere; requests are served on")},
        "/admin/undrain": {"post": _call("Take that back")},
        "/admin/reload": {"post": _call("Read configuration and keys again", failures=_CHANGE_FAILURES)},
        "/reload": {"post": _call("The same", failures=_CHANGE_FAILURES)},
    }


def _of_worker(method: str, summary: str) -> dict[str, Any]:
    return {method: _call(summary, failures={**_FAILURES, **_NO_WORKER}), "parameters": _ID}


def _call(
    summary: str, *, body: Schema | None = None, answer: Schema = _STATUS, failures: dict[int, str] | None = None
) -> dict[str, Any]:
    said: dict[str, Any] = {
        "summary": summary,
        "tags": [TAG],
        "security": [{SCHEME: []}],
        "responses": {
            "200": {"description": "Done.", "content": {"application/json": {"schema": answer}}},
            **{
                str(status): {
                    "description": told,
                    "content": {"application/json": {"schema": ERRORS[Family.NEUROGATE]}},
                }
                for status, told in (failures or _FAILURES).items()
            },
        },
    }
    if body is not None:
        said["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return said

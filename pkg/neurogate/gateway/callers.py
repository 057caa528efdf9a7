"""Whose request it is and which, for the endpoints that are ordinary Starlette."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request

from neurogate.edge.caller import Caller
from neurogate.edge.permissions import may_call

Identify = Callable[[bytes, bytes], Caller]
"""(Authorization, X-Api-Key) → whose key it is. Raises UnauthorizedError."""

KEY_ID = "neurogate.key_id"
"""Where the scope says afterwards whose key it was."""

REQUEST_ID = "neurogate.request_id"
"""Where the scope says the request's id."""


def caller_of(request: Request, identify: Identify) -> Caller:
    """Whose key a request carries. Raises as `identify` does, and ForbiddenError when it is not good for the path."""
    headers = request.headers
    caller = identify(
        headers.get("authorization", "").encode("latin-1"),
        headers.get("x-api-key", "").encode("latin-1"),
    )
    request.scope[KEY_ID] = caller.key_id
    may_call(caller, request.url.path)
    return caller

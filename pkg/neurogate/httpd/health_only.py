"""The health-only app: 200 to any GET or HEAD. It asks nobody, needs no key, and counts as no activity."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

_BODY = b"ok\n"
_HEADERS = [
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"content-length", b"%d" % len(_BODY)),
    (b"cache-control", b"no-store"),
]
_REFUSED_HEADERS = [(b"allow", b"GET, HEAD"), (b"content-length", b"0")]


async def app(scope: Scope, _: Receive, send: Send) -> None:
    """Answer."""
    if scope["method"] in {"GET", "HEAD"}:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await send({"type": "http.response.body", "body": _BODY})
    else:
        await send({"type": "http.response.start", "status": 405, "headers": _REFUSED_HEADERS})
        await send({"type": "http.response.body", "body": b""})

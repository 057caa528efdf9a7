"""The health-only app: 200 to whatever is asked. It asks nobody, needs no key, and counts as no activity."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

_BODY = b"ok\n"
_HEADERS = [
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"content-length", b"%d" % len(_BODY)),
    (b"cache-control", b"no-store"),
]


async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer any method and path; the server leaves the body of an answer to HEAD out."""
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BODY})

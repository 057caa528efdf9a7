"""CORS (https://fetch.spec.whatwg.org/#http-cors-protocol): which pages may call the API from a browser.

Credentials are not allowed, so a page must hold a key of its own: no cookie of ours could be abused, and `*` is safe.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from neurogate.httpd.answer_head import with_headers
from neurogate.httpd.at_once import never
from neurogate.httpd.origins import ANY

_METHODS = b"GET, POST, OPTIONS"
_REQUEST_HEADERS = b"Authorization, Content-Type, X-API-Key, X-Request-ID"
_EXPOSED = b", ".join(
    [
        b"X-Request-ID",
        b"Request-ID",
        b"X-NeuroGate-Worker",
        b"X-NeuroGate-Attempts",
        b"X-NeuroGate-Explain",
        b"Retry-After",
        b"RateLimit",
        b"RateLimit-Policy",
        b"RateLimit-Limit",
        b"RateLimit-Remaining",
        b"RateLimit-Reset",
        b"X-RateLimit-Limit-Requests",
        b"X-RateLimit-Remaining-Requests",
        b"X-RateLimit-Reset-Requests",
        b"X-RateLimit-Limit-Tokens",
        b"X-RateLimit-Remaining-Tokens",
        b"X-RateLimit-Reset-Tokens",
    ]
)
_MAX_AGE_S = b"86400"
_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,2048}")


def around(app: ASGIApp, origins: Collection[str]) -> ASGIApp:
    """The app with CORS around it for these origins; the app itself when there are none."""
    return Cors(app, origins) if origins else app


class Cors:
    """An app with CORS around it. Preflights are answered here and need no key."""

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app = app
        self._at_once: Callable[[Scope], bool] = getattr(app, "at_once", never)
        self._any = ANY in origins
        self._origins = frozenset(origin.encode().lower() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers: dict[bytes, bytes] = dict(scope["headers"]) if scope["type"] == "http" else {}
        origin = headers.get(b"origin")
        if origin is None:
            await self._app(scope, receive, send)
            return
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            await self._preflight(origin, headers.get(b"access-control-request-headers", b""), send)
            return
        own = self._allowed(origin)
        if self._permits(origin):
            own.append((b"access-control-expose-headers", _EXPOSED))

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = with_headers(message, own)
            await send(message)

        await self._app(scope, receive, sending)

    def at_once(self, scope: Scope) -> bool:
        """See `httpd.at_once.AtOnce`: as the app has it."""
        return self._at_once(scope)

    def _permits(self, origin: bytes) -> bool:
        return self._any or origin.lower() in self._origins

    def _allowed(self, origin: bytes) -> list[tuple[bytes, bytes]]:
        if self._any:
            return [(b"access-control-allow-origin", b"*")]
        allowed = [(b"vary", b"Origin")]
        if self._permits(origin):
            allowed.append((b"access-control-allow-origin", origin))
        return allowed

    async def _preflight(self, origin: bytes, asked: bytes, send: Send) -> None:
        headers = self._allowed(origin)
        if self._permits(origin):
            names = _REQUEST_HEADERS + (b", " + asked if _NAMES.fullmatch(asked) else b"")
            headers += [
                (b"access-control-allow-methods", _METHODS),
                (b"access-control-allow-headers", names),  # clients' libraries send some of their own
                (b"access-control-max-age", _MAX_AGE_S),
            ]
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

"""The gateway's front door: which endpoint a request is for, and whether it needs a task there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.types import ASGIApp, Receive, Scope, Send


class FrontDoor:
    """Hot paths by one dictionary look-up, everything else through Starlette's router and middleware."""

    def __init__(self, hot: Mapping[str, ASGIApp], others: ASGIApp, *, immediate: Callable[[], bool]) -> None:
        """`immediate`: what hot endpoints ask before they dispatch a request is answered on the spot."""
        self._hot = hot
        self._others = others
        self._immediate = immediate

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request."""
        endpoint = self._hot.get(scope["path"]) if scope["method"] == "POST" else None
        return (endpoint or self._others)(scope, receive, send)

    def at_once(self, scope: Scope) -> bool:
        """See `httpd.at_once.AtOnce`."""
        return scope["method"] == "POST" and scope["path"] in self._hot and self._immediate()

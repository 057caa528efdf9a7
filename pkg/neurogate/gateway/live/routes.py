"""The live page's routes on the ops port: the page itself, its pictures as events, and one picture alone.

The page holds nothing and needs no key; what it shows does (ADR 0027).
"""

from __future__ import annotations

import asyncio
import functools
from importlib import resources

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from neurogate.edge.admin_keys import AdminKeys
from neurogate.gateway.live.camera import Camera
from neurogate.gateway.live.guard import Endpoint, guarded, refused
from neurogate.gateway.live.hub import Hub, TooManyViewersError
from neurogate.httpd import Connection
from neurogate.httpd.security_headers import PAGE_POLICY

STALLED_S = 30.0
"""Seconds after which a viewer that takes nothing is cut off: its place is another's."""

_FILES = {
    "/dashboard": ("index.html", "text/html; charset=utf-8"),
    "/dashboard/live.css": ("live.css", "text/css; charset=utf-8"),
    "/dashboard/live.js": ("live.js", "text/javascript; charset=utf-8"),
    "/dashboard/icon.svg": ("icon.svg", "image/svg+xml"),
}
_PAGE_HEADERS = {"Cache-Control": "no-cache", "Content-Security-Policy": PAGE_POLICY}
_NO_STORE = {"Cache-Control": "no-store"}
_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
_encode = msgspec.json.Encoder().encode


def as_event(camera: Camera) -> bytes:
    """A new picture as a server-sent event."""
    return b"event: picture\ndata: %b\n\n" % _encode(camera.take())


def live_routes(hub: Hub, camera: Camera, keys: AdminKeys) -> list[Route]:
    """GET /dashboard with its files, /dashboard/events and /dashboard/picture."""

    async def events(_: Request) -> Response:
        return PictureStream(hub)

    async def picture(_: Request) -> Response:
        return Response(_encode(camera.latest()), media_type="application/json", headers=_NO_STORE)

    return [
        *(Route(path, _page(name, media_type)) for path, (name, media_type) in _FILES.items()),
        Route("/dashboard/events", guarded(keys, events), methods=["GET"]),
        Route("/dashboard/picture", guarded(keys, picture), methods=["GET"]),
    ]


class PictureStream(Response):
    """One viewer's stream of events, until it leaves, reads nothing for STALLED_S, or there are no more pictures."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self._hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it; HEAD gets the head alone, which ends."""
        head: Message = {"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS}
        if scope["method"] == "HEAD":
            await send(head)
            await send({"type": "http.response.body", "body": b""})
            return
        connection: Connection = scope["extensions"]["neurogate.connection"]
        try:
            with self._hub.viewer() as viewer:
                connection.on_lost(viewer.close)
                await send(head)
                while (event := await viewer.next()) is not None:
                    async with asyncio.timeout(STALLED_S):
                        await send({"type": "http.response.body", "body": event, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
        except TooManyViewersError as error:
            await refused(error)(scope, receive, send)
        except TimeoutError:
            connection.abort()
        finally:
            connection.on_lost(None)


def _page(name: str, media_type: str) -> Endpoint:
    @functools.cache
    def content() -> bytes:
        return resources.files("neurogate.gateway.live").joinpath("page", name).read_bytes()

    async def endpoint(_: Request) -> Response:
        return Response(content(), media_type=media_type, headers=_PAGE_HEADERS)

    return endpoint

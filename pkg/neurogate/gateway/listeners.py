"""The API's listener: what it takes, and how that follows the configuration."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import ASGIApp

from neurogate.gateway.reload import Reloader
from neurogate.gateway.settings import GatewayConfig
from neurogate.httpd import HttpLimits, HttpServer, cors

_BODY_GRACE_S = 2.0
"""Endpoints word their own 408: the listener's is for what does not look at the time."""


def api_limits(config: GatewayConfig, *, connections: int) -> HttpLimits:
    """The bounds of the API's port, for so many connections as the process can have."""
    return config.http.limits(connections=connections, body_timeout_s=config.gateway.body_timeout_s + _BODY_GRACE_S)


def follow_http(reloader: Reloader, server: HttpServer, *, connections: int) -> None:
    """Hold the server's connections to the bounds of the newest configuration."""
    reloader.subscribe(
        ("http", "gateway.body_timeout_s"),
        lambda config: server.set_limits(api_limits(config, connections=connections)),
    )


def follow_cors(reloader: Reloader, servers: Iterable[HttpServer], app: ASGIApp) -> None:
    """Serve `app` to browsers of the newest origins; without any, nothing is around it."""

    def take(config: GatewayConfig) -> None:
        around = cors.around(app, config.http.cors_origins)
        for server in servers:
            server.set_app(around)

    reloader.subscribe(["http.cors_origins"], take)

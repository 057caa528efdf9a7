"""Settings of a process's HTTP listeners."""

from __future__ import annotations

from typing import Annotated

import msgspec

from neurogate.config import env
from neurogate.httpd.limits import HttpLimits


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the HTTP ports take, and from whom a browser may call them."""

    max_url_bytes: Annotated[
        int, env("NEUROGATE_HTTP_MAX_URL_BYTES", "Longest URL, in bytes; beyond it 414.", reloads=True, ge=256)
    ] = 8192
    max_header_bytes: Annotated[
        int, env("NEUROGATE_HTTP_MAX_HEADER_BYTES", "Longest header, in bytes; beyond it 431.", reloads=True, ge=256)
    ] = 8192
    max_head_bytes: Annotated[
        int,
        env(
            "NEUROGATE_HTTP_MAX_HEAD_BYTES",
            "Request line and headers together, in bytes; beyond it 431.",
            reloads=True,
            ge=1024,
        ),
    ] = 64 * 1024
    max_headers: Annotated[
        int, env("NEUROGATE_HTTP_MAX_HEADERS", "Number of headers; beyond it 431.", reloads=True, ge=16)
    ] = 128
    header_timeout_s: Annotated[
        float,
        env(
            "NEUROGATE_HTTP_HEADER_TIMEOUT_S",
            "Seconds for a request's head, from the connection or from its first byte; then 408.",
            reloads=True,
            gt=0,
        ),
    ] = 10.0
    idle_timeout_s: Annotated[
        float,
        env("NEUROGATE_HTTP_IDLE_TIMEOUT_S", "Seconds a connection is kept between two requests.", reloads=True, gt=0),
    ] = 75.0
    tls_handshake_timeout_s: Annotated[
        float, env("NEUROGATE_HTTP_TLS_HANDSHAKE_TIMEOUT_S", "Seconds for a TLS handshake.", gt=0)
    ] = 10.0
    max_connections: Annotated[
        int,
        env(
            "NEUROGATE_HTTP_MAX_CONNECTIONS",
            "Connections at once on the API's port; beyond it 503. Fewer where the process may not open so many files.",
            ge=1,
        ),
    ] = 10_000
    health_port: Annotated[
        int,
        env(
            "PORT_HEALTH",
            "Health-only port: 200 to anything, whatever state the gateway is in; -1 is off.",
            ge=-1,
            le=65535,
        ),
    ] = 8001
    cors_origins: Annotated[
        tuple[str, ...],
        env(
            "NEUROGATE_CORS_ORIGINS",
            "Comma-separated origins, scheme://host[:port], whose pages may call the API from a browser; * is any, none"
            " turns CORS off.",
            reloads=True,
        ),
    ] = ()

    def limits(self, *, connections: int, body_timeout_s: float) -> HttpLimits:
        """The same for a listener; `body_timeout_s` is that of endpoints which have none of their own."""
        return HttpLimits(
            url_bytes=self.max_url_bytes,
            header_bytes=self.max_header_bytes,
            head_bytes=self.max_head_bytes,
            headers=self.max_headers,
            head_timeout_s=self.header_timeout_s,
            body_timeout_s=body_timeout_s,
            idle_timeout_s=self.idle_timeout_s,
            handshake_timeout_s=self.tls_handshake_timeout_s,
            connections=connections,
        )

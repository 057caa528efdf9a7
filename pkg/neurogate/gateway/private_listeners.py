"""What those who run a gateway connect to: its ops port, and the port that only says that it lives."""

from __future__ import annotations

import asyncio
import socket

from starlette.types import ASGIApp

from neurogate.gateway.handover import Offer
from neurogate.gateway.live.hub import Hub
from neurogate.gateway.settings import GatewayConfig
from neurogate.httpd import HttpServer, health_only

_SEND_BUFFER_BYTES = 64 * 1024
"""Or the kernel would keep minutes of pictures for a viewer of the live page that does not read."""


class PrivateListeners:
    """Both ports, that of health may be off; and what those who look at the ops port are shown."""

    def __init__(self, config: GatewayConfig, ops_app: ASGIApp, live: Hub) -> None:
        self._live = live
        host, self._health_port = config.gateway.host, config.http.health_port
        self._host = host
        self._ops_port = config.gateway.metrics_port
        self._ops = HttpServer(
            ops_app, name="METRICS_PORT", host=host, port=self._ops_port, send_buffer_bytes=_SEND_BUFFER_BYTES
        )
        self._health = HttpServer(health_only.app, name="PORT_HEALTH", host=host, port=self._health_port)

    @property
    def sockets(self) -> dict[str, socket.socket]:
        """What it listens on, by name, to be handed over."""
        found = {"ops": self._ops.listener, "health": self._health.listener}
        return {name: listener for name, listener in found.items() if listener is not None}

    async def start(self, tasks: asyncio.TaskGroup, offer: Offer) -> dict[str, int]:
        """Listen, where possible on what is offered. Returns `ops_port`, and `health_port` when it is not off.

        Raises OSError naming the setting of a port that is taken.
        """
        ports: dict[str, int] = {}
        if self._health_port >= 0:
            listener = offer.take("health", self._host, self._health_port)
            ports["health_port"] = await self._health.start(tasks, listener)
        tasks.create_task(self._live.run(), name="live")
        ports["ops_port"] = await self._ops.start(tasks, offer.take("ops", self._host, self._ops_port))
        return ports

    async def stop(self, grace_s: float, *, quiet_s: float = 0.0) -> None:
        """Refuse new connections, let what is in flight finish for `grace_s`, then cut it. Idempotent."""
        self._live.stop()  # or whoever looks would have to be cut
        async with asyncio.TaskGroup() as tasks:
            for server in (self._ops, self._health):
                tasks.create_task(server.stop(grace_s, quiet_s=quiet_s), name="private-stop")

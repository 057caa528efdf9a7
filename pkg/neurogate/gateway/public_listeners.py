"""What clients connect to: HTTP, HTTPS and gRPC of one gateway, opened and stopped together."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from starlette.types import ASGIApp

from neurogate import __version__
from neurogate.gateway.certificates import Certificates
from neurogate.gateway.handover import Offer
from neurogate.gateway.settings import GatewayConfig
from neurogate.httpd import HttpLimits, HttpServer
from neurogate.rpc.public_backend import PublicBackend
from neurogate.rpc.public_server import ListenerLimits, PublicServer
from neurogate.rpc.public_service import ChooseId


def listener_limits(config: GatewayConfig) -> ListenerLimits:
    """The bounds of the gRPC listener."""
    grpc = config.grpc
    return ListenerLimits(
        message_bytes=grpc.grpc_max_message_bytes,
        connections=grpc.grpc_max_connections,
        streams=grpc.grpc_max_streams,
        keyless_calls=grpc.grpc_max_keyless_calls,
        idle_timeout_s=grpc.grpc_idle_timeout_s,
        handshake_timeout_s=config.http.tls_handshake_timeout_s,
    )


class PublicListeners:
    """With a certificate HTTP_PORT is HTTPS, unless HTTPS has a port of its own; gRPC has one for each (ADR 0016)."""

    def __init__(
        self,
        config: GatewayConfig,
        certificates: Certificates,
        *,
        app: ASGIApp,
        grpc: PublicBackend,
        choose_id: ChooseId,
        limits: HttpLimits,
        on_refused: Callable[[int], None],
    ) -> None:
        host, https_port = config.gateway.host, config.tls.https_port
        self._host = host
        self._ports = config.grpc
        self._tls = tls = certificates.public
        context = None if tls is None else tls.https()
        beside = context is not None and https_port >= 0
        self._http = HttpServer(
            app,
            name="HTTP_PORT",
            host=host,
            port=config.gateway.http_port,
            limits=limits,
            ssl=None if beside else context,
            on_refused=on_refused,
        )
        self._https = (
            HttpServer(
                app,
                name="NEUROGATE_HTTPS_PORT",
                host=host,
                port=https_port,
                limits=limits,
                ssl=context,
                on_refused=on_refused,
            )
            if beside
            else None
        )
        self._http_port = config.gateway.http_port
        self._https_port = https_port
        self._grpc_task: asyncio.Task[None] | None = None
        self._grpc_ports: dict[str, int] = {}
        self._grpc = PublicServer(
            grpc,
            choose_id=choose_id,
            version=__version__,
            limits=listener_limits(config),
            share_ports=bool(config.gateway.takeover_socket),
        )
        self._draining = False
        self._drain_changed = asyncio.Event()

    @property
    def http_servers(self) -> list[HttpServer]:
        """Those that take HTTP, in plain or not."""
        return [server for server in (self._http, self._https) if server is not None]

    @property
    def sockets(self) -> dict[str, socket.socket]:
        """What it listens on, by name, to be handed over; gRPC has none that could be."""
        found = {"http": self._http.listener, "https": None if self._https is None else self._https.listener}
        return {name: listener for name, listener in found.items() if listener is not None}

    @property
    def grpc_ports(self) -> dict[str, int]:
        """The ports of gRPC that are open, by name."""
        return dict(self._grpc_ports)

    async def start(self, tasks: asyncio.TaskGroup, offer: Offer | None = None) -> dict[str, int]:
        """Listen, where possible on what is offered.

        Returns the ports by `http_port`, `https_port`, `grpc_port` and `grpc_tls_port`, those that are open. Raises
        OSError naming the setting of a port that is taken.
        """
        offer = offer or Offer()
        ports: dict[str, int] = {}
        address, wanted = f"[{self._host}]" if ":" in self._host else self._host, self._ports
        if wanted.grpc_port >= 0:
            ports["grpc_port"] = self._grpc.listen(
                "NEUROGATE_GRPC_PORT", f"{address}:{offer.port('grpc_port', wanted.grpc_port)}"
            )
        if wanted.grpc_tls_port >= 0 and self._tls is not None:
            ports["grpc_tls_port"] = self._grpc.listen(
                "NEUROGATE_GRPC_TLS_PORT",
                f"{address}:{offer.port('grpc_tls_port', wanted.grpc_tls_port)}",
                self._tls.server_credentials(),
            )
        self._grpc_ports = dict(ports)
        if ports:
            started = asyncio.Event()
            self._grpc_task = tasks.create_task(self._serve_grpc(started), name="grpc")
            await started.wait()
        if self._https is not None:
            ports["https_port"] = await self._https.start(tasks, offer.take("https", self._host, self._https_port))
        ports["http_port"] = await self._http.start(tasks, offer.take("http", self._host, self._http_port))
        return ports

    def set_draining(self, draining: bool) -> None:  # noqa: FBT001 - a follower of the lifecycle
        """Tell clients to connect elsewhere, or no longer: in answers, and by gRPC's health."""
        self._draining = draining
        self._drain_changed.set()
        for server in self.http_servers:
            server.say_close(close=draining)

    async def stop(self, grace_s: float, *, quiet_s: float = 0.0) -> None:
        """Refuse new connections and calls, let what is in flight finish for `grace_s`, then cut it. Idempotent.

        HTTP connections without a request are closed when they have been quiet for `quiet_s`.
        """
        async with asyncio.TaskGroup() as tasks:
            for server in self.http_servers:
                tasks.create_task(server.stop(grace_s, quiet_s=quiet_s), name="http-stop")
            tasks.create_task(self._grpc.stop(grace_s), name="grpc-stop")
        if self._grpc_task is not None:
            self._grpc_task.cancel()

    async def _serve_grpc(self, started: asyncio.Event) -> None:
        """GRPC's server has tasks of its own, which nobody else would end if the process fails."""
        try:
            await self._grpc.start()
            started.set()
            while True:
                await self._drain_changed.wait()
                self._drain_changed.clear()
                await self._grpc.set_serving(serving=not self._draining)
        finally:
            await self._grpc.stop(0)

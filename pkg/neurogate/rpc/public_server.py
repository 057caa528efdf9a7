"""The public gRPC listener of a gateway: its own service, health and reflection, and everything else passed through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from neurogate.rpc.keyless_calls import KeylessCalls
from neurogate.rpc.proxying import ProxyContext, proxy
from neurogate.rpc.public_backend import PublicBackend
from neurogate.rpc.public_service import LLM_SERVICE, ChooseId, PublicLLMService, incoming, telling


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    """Bounds of the listener; those of calls that need a key are their backend's."""

    message_bytes: int
    """Largest message taken."""
    connections: int
    """At once on each port; gRPC closes those beyond."""
    streams: int
    """Calls at once on one connection; its client holds others back."""
    keyless_calls: int
    """Calls at once that need no key."""
    idle_timeout_s: float
    """Seconds that a connection is kept without a call."""
    handshake_timeout_s: float
    """Seconds from a connection to its first HTTP/2 frame, TLS included."""


class PublicServer:
    """The listener. Its services share one server, whichever ports are opened."""

    def __init__(
        self,
        backend: PublicBackend,
        *,
        choose_id: ChooseId,
        version: str,
        limits: ListenerLimits,
        share_ports: bool = False,
    ) -> None:
        """`share_ports` lets another process of this user, which says so too, listen on the same ports (ADR 0021)."""
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._server = grpc.aio.server(
            interceptors=(KeylessCalls(limits.keyless_calls),), options=_options(limits, share_ports=share_ports)
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((LLM_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        service = PublicLLMService(backend, choose_id, version)
        self._server.add_generic_rpc_handlers((service.handlers(), _Passage(backend, choose_id)))

    def listen(self, name: str, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        """Open a port, host:port, before `start`; port 0 takes a free one. Without credentials it is plain.

        Returns the port. Raises OSError, which tells `name`, the setting, when it is taken.
        """
        try:
            if credentials is None:
                return self._server.add_insecure_port(address)
            return self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address} ({name}): {error}") from error

    async def start(self) -> None:
        """Serve on the ports that are open."""
        await self._server.start()
        await self.set_serving(serving=True)

    async def set_serving(self, *, serving: bool) -> None:
        """What the health service answers; calls are taken all the same."""
        await self._set_serving(
            health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        )

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, let those in flight finish for `grace_s`, then cut them. Idempotent."""
        await self.set_serving(serving=False)
        await self._server.stop(grace_s)

    async def _set_serving(self, status: int) -> None:
        for service in ("", LLM_SERVICE):
            await self._health.set(service, status)


def _options(limits: ListenerLimits, *, share_ports: bool) -> Sequence[tuple[str, int]]:
    return (
        ("grpc.so_reuseport", int(share_ports)),  # without it a second gateway on the port fails, as it must
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_send_message_length", -1),  # what was received may be sent
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.max_concurrent_streams", limits.streams),
        ("grpc.server_handshake_timeout_ms", round(limits.handshake_timeout_s * 1000)),
        ("grpc.max_connection_idle_ms", round(limits.idle_timeout_s * 1000)),
        ("grpc.keepalive_time_ms", 30_000),  # a client that is gone without a word is found out
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # a client may ping so often,
        ("grpc.http2.max_ping_strikes", 2),  # and is cut when it pings more often
    )


class _Passage(grpc.GenericRpcHandler):  # type: ignore[type-arg] # it has no type arguments when it runs
    """Takes every method that no service of the gateway has."""

    def __init__(self, backend: PublicBackend, choose_id: ChooseId) -> None:
        self._backend = backend
        self._choose_id = choose_id

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        method = handler_call_details.method

        async def pass_through(_: object, context: ProxyContext) -> None:
            rpc = incoming(method, context, self._choose_id)
            async with telling(context, rpc), self._backend.proxy(rpc) as proxied:
                await proxy(rpc, context, proxied)

        return grpc.stream_stream_rpc_method_handler(pass_through)

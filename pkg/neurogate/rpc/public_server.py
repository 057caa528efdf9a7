"""The public gRPC listener of a gateway: its own service, health and reflection, and everything else passed through."""

from __future__ import annotations

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from neurogate.rpc.proxying import ProxyContext, proxy
from neurogate.rpc.public_backend import PublicBackend
from neurogate.rpc.public_service import LLM_SERVICE, ChooseId, PublicLLMService, incoming, telling


class PublicServer:
    """The listener. Its services share one server, whichever ports are opened."""

    def __init__(self, backend: PublicBackend, *, choose_id: ChooseId, version: str, max_message_bytes: int) -> None:
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._server = grpc.aio.server(
            options=(
                ("grpc.so_reuseport", 0),  # a second gateway on the port must fail, not share it
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", -1),  # what was received may be sent
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.keepalive_timeout_ms", 10_000),
            )
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
        await self._set_serving(health_pb2.HealthCheckResponse.SERVING)

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, let those in flight finish for `grace_s`, then cut them. Idempotent."""
        await self._set_serving(health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._server.stop(grace_s)

    async def _set_serving(self, status: int) -> None:
        for service in ("", LLM_SERVICE):
            await self._health.set(service, status)


class _Passage(grpc.GenericRpcHandler):  # type: ignore[type-arg] # it has no type arguments when it runs
    """Takes every method that no service of the gateway has."""

    def __init__(self, backend: PublicBackend, choose_id: ChooseId) -> None:
        self._backend = backend
        self._choose_id = choose_id

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        method = handler_call_details.method
        if method.startswith("/grpc.reflection."):
            return None  # a newer version than ours: UNIMPLEMENTED, and clients ask for the older one

        async def pass_through(_: object, context: ProxyContext) -> None:
            rpc = incoming(method, context, self._choose_id)
            async with telling(context, rpc), self._backend.proxy(rpc) as proxied:
                await proxy(rpc, context, proxied)

        return grpc.stream_stream_rpc_method_handler(pass_through)

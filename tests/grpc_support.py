"""The public gRPC listener of a gateway, in front of workers that also serve an echo of every shape."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import grpc.aio

from config_support import gateway_config
from link_support import READY, Answering, ScriptedBackend, echo
from neurogate import __version__
from neurogate.gateway.assembly import Gateway
from neurogate.gateway.public_listeners import listener_limits
from neurogate.rpc.link_server import LinkServerSettings
from neurogate.rpc.public_server import ListenerLimits, PublicServer
from neurogate.rpc.worker_service import WorkerServer
from neurogate.testing.watched import Watched
from real_loop import eventually

MIB = 1 << 20

KEY = "a-secret-key"
BEARER = ("authorization", f"Bearer {KEY}")

LIMITS = listener_limits(gateway_config())

Context = grpc.aio.ServicerContext[bytes, bytes]


@dataclass
class Echo:
    """A service of somebody's, unknown to the gateway, on one worker: `/test.Echo/*`."""

    calls: Watched[int] = field(default_factory=lambda: Watched(0))
    """That began."""
    ended: Watched[int] = field(default_factory=lambda: Watched(0))
    cancelled: Watched[int] = field(default_factory=lambda: Watched(0))
    half_closed: Watched[int] = field(default_factory=lambda: Watched(0))
    """Streams whose end was heard."""
    metadata: list[dict[str, Any]] = field(default_factory=list)
    time_left: list[float | None] = field(default_factory=list)
    written: Watched[int] = field(default_factory=lambda: Watched(0))
    read: Watched[int] = field(default_factory=lambda: Watched(0))

    def handlers(self) -> grpc.GenericRpcHandler:  # type: ignore[type-arg]
        shapes = {
            "Unary": grpc.unary_unary_rpc_method_handler(self._noted(self._unary)),
            "Fail": grpc.unary_unary_rpc_method_handler(self._noted(self._fail)),
            "Down": grpc.unary_stream_rpc_method_handler(self._noted(self._down)),
            "Flood": grpc.unary_stream_rpc_method_handler(self._noted(self._flood)),
            "Up": grpc.stream_unary_rpc_method_handler(self._noted(self._up)),
            "Deaf": grpc.stream_unary_rpc_method_handler(self._noted(self._deaf)),
            "Both": grpc.stream_stream_rpc_method_handler(self._noted(self._both)),
            "Large": grpc.unary_unary_rpc_method_handler(self._noted(self._large)),
            "Hang": grpc.unary_unary_rpc_method_handler(self._noted(self._hang)),
        }
        return grpc.method_handlers_generic_handler("test.Echo", shapes)

    def _noted(self, answer: Callable[[Any, Context], Any]) -> Any:
        async def noted(request: Any, context: Context) -> Any:
            self.calls.set(self.calls.value + 1)
            self.metadata.append(dict(context.invocation_metadata() or ()))
            self.time_left.append(context.time_remaining())
            try:
                return await answer(request, context)
            except asyncio.CancelledError:
                self.cancelled.set(self.cancelled.value + 1)
                raise
            finally:
                self.ended.set(self.ended.value + 1)

        return noted

    async def _unary(self, request: bytes, context: Context) -> bytes:
        await context.send_initial_metadata((("x-first", "1"), ("x-first-bin", b"\0\xff")))
        context.set_trailing_metadata((("x-last", "2"), ("x-last-bin", b"\1\xfe")))
        return request

    async def _fail(self, request: bytes, context: Context) -> bytes:
        context.set_trailing_metadata((("grpc-status-details-bin", request), ("x-last", "2")))
        await context.abort(grpc.StatusCode.DATA_LOSS, "lost: \u00fc%", context.trailing_metadata())
        raise AssertionError

    async def _down(self, request: bytes, context: Context) -> None:
        for number in range(int(request)):
            await context.write(b"%d" % number)

    async def _flood(self, request: bytes, context: Context) -> None:
        while True:
            await context.write(request)
            self.written.set(self.written.value + 1)

    async def _up(self, requests: AsyncIterator[bytes], _: Context) -> bytes:
        messages = [message async for message in requests]
        self.half_closed.set(self.half_closed.value + 1)
        return b"|".join(messages)

    async def _large(self, request: bytes, _: Context) -> bytes:
        return b"x" * int(request)

    async def _deaf(self, _: AsyncIterator[bytes], __: Context) -> bytes:
        await asyncio.Event().wait()
        return b""

    async def _both(self, requests: AsyncIterator[bytes], context: Context) -> None:
        async for message in requests:
            self.read.set(self.read.value + 1)
            await context.write(message)
        self.half_closed.set(self.half_closed.value + 1)
        context.set_trailing_metadata((("x-last", "both"),))

    async def _hang(self, _: bytes, __: Context) -> bytes:
        await asyncio.Event().wait()
        return b""


class EchoWorker:
    """A worker with a service of its own beside ours."""

    def __init__(self, *, model: str = "tiny", max_message_bytes: int = 27 * MIB, answering: Answering = echo) -> None:
        report = replace(READY, models=(replace(READY.models[0], name=model),), slots_busy=0, running=0)
        self.backend = ScriptedBackend(answering, report=report)
        self.echo = Echo()
        settings = LinkServerSettings(8 << 20, 0.0005, 0.05, 10 << 20)
        self.server = WorkerServer(self.backend, settings, max_message_bytes=max_message_bytes)
        self.server._server.add_generic_rpc_handlers((self.echo.handlers(),))

    async def start(self) -> str:
        return f"127.0.0.1:{await self.server.start('127.0.0.1:0')}"

    async def stop(self) -> None:
        await self.server.stop(0)
        await eventually(lambda: not self.server.servicer.sessions)


@dataclass
class Public:
    """A gateway with its public listener, and a client of it."""

    gateway: Gateway
    workers: list[EchoWorker]
    address: str
    channel: grpc.aio.Channel

    @property
    def worker(self) -> EchoWorker:
        return self.workers[0]

    def unary(self, name: str) -> Any:
        return self.channel.unary_unary(f"/test.Echo/{name}")

    def down(self, name: str) -> Any:
        return self.channel.unary_stream(f"/test.Echo/{name}")

    def up(self, name: str) -> Any:
        return self.channel.stream_unary(f"/test.Echo/{name}")

    def both(self, name: str) -> Any:
        return self.channel.stream_stream(f"/test.Echo/{name}")

    def member(self, index: int = 0) -> Any:
        return self.gateway.pool.snapshot.members[index]

    def requests(self, path: str, status: int) -> float | None:
        """How many were counted."""
        labels = {"method": "GRPC", "path": path, "status": str(status)}
        return self.gateway.metrics.registry.get_sample_value("neurogate_gateway_requests_total", labels)

    def assert_nothing_held(self) -> None:
        assert repr(self.gateway.pool).endswith("Requests: 0 in flight, 0 waiting]>")
        assert self.gateway.grpc.fleet().active_requests == 0
        assert self.gateway.bodies.held == 0


@asynccontextmanager
async def listening(
    gateway: Gateway, limits: ListenerLimits = LIMITS, options: tuple[tuple[str, Any], ...] = ()
) -> AsyncIterator[tuple[str, grpc.aio.Channel]]:
    """A gateway's public listener: its address, and a channel to it."""
    server = PublicServer(
        gateway.grpc,
        choose_id=gateway.request_ids.choose,
        version=__version__,
        limits=limits,
    )
    address = f"127.0.0.1:{server.listen('NEUROGATE_GRPC_PORT', '127.0.0.1:0')}"
    await server.start()
    everything = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), *options)
    try:
        async with grpc.aio.insecure_channel(address, options=everything) as channel:
            yield address, channel
    finally:
        await server.stop(0)


@asynccontextmanager
async def public(
    workers: int | list[EchoWorker] = 1, *, options: tuple[tuple[str, Any], ...] = (), **settings: Any
) -> AsyncIterator[Public]:
    """A gateway and its listener, every worker ready. Afterwards nothing is held, and no call is left."""
    made = [EchoWorker() for _ in range(workers)] if isinstance(workers, int) else workers
    async with asyncio.TaskGroup() as tasks, AsyncExitStack() as stack:
        addresses = []
        for worker in made:
            addresses.append(await worker.start())
            stack.push_async_callback(worker.stop)
        config = gateway_config(worker_addresses=tuple(addresses), **settings)
        gateway = Gateway(config, rng=random.Random(1), now_ns=lambda: 42)
        pool = tasks.create_task(gateway.pool.run(gateway.resolver))
        await eventually(lambda: len(gateway.pool.snapshot.admitting("")) == len(made))
        stack.callback(pool.cancel)
        async with listening(gateway, listener_limits(config), options) as (address, channel):
            found = Public(gateway, made, address, channel)
            yield found
        await eventually(lambda: found.gateway.grpc.fleet().active_requests == 0)
        found.assert_nothing_held()

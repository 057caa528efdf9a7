"""One side of a gRPC verification: calls whose messages are bytes, whatever their shape."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from neurogate.errors import NeuroGateError

Metadata = tuple[tuple[str, str | bytes], ...]

_OWN = frozenset(
    {"content-type", "date", "grpc-accept-encoding", "grpc-encoding", "grpc-status", "server", "user-agent"}
)
"""Written by gRPC itself."""
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer."""

    code: str
    details: str
    messages: tuple[bytes, ...]
    head: Metadata
    trailers: Metadata
    took_s: float


class GrpcSide:
    """A server, and a channel to it. Close it."""

    def __init__(self, address: str, *, key: str, tls_ca: str, timeout_s: float) -> None:
        """`address` is host:port, or https://host:port for TLS. Raises NeuroGateError for a CA that cannot be read."""
        scheme, _, target = address.rpartition("://")
        self.url = address
        self._timeout_s = timeout_s
        self._metadata: Metadata = (("authorization", f"Bearer {key}"),) if key else ()
        if scheme == "https":
            try:
                roots = Path(tls_ca).read_bytes() if tls_ca else None
            except OSError as error:
                raise NeuroGateError(f"--tls-ca: {tls_ca} cannot be read ({error})") from error
            self._channel = grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(roots), options=_OPTIONS)
        else:
            self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)

    async def close(self) -> None:
        """Hang up."""
        await self._channel.close(None)

    async def reach(self) -> None:
        """Raises NeuroGateError when nobody answers there."""
        try:
            async with asyncio.timeout(min(self._timeout_s, 10.0)):
                await self._channel.channel_ready()
        except TimeoutError as error:
            raise NeuroGateError(f"{self.url} does not answer gRPC") from error

    async def call(
        self, method: str, messages: Sequence[bytes], *, timeout_s: float | None = None, metadata: Metadata = ()
    ) -> Reply:
        """The whole answer. Never raises: what went wrong is its status."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        call = self._begin(method, timeout_s or self._timeout_s, metadata)
        received: list[bytes] = []
        try:
            await _write(call, messages)
            while isinstance(message := await call.read(), bytes):
                received.append(message)
        except grpc.aio.AioRpcError:
            pass
        finally:
            call.cancel()
        return Reply(
            (await call.code()).name,
            await call.details() or "",
            tuple(received),
            _users(await call.initial_metadata()),
            _users(await call.trailing_metadata()),
            loop.time() - began,
        )

    async def leave_early(self, method: str, message: bytes) -> bool:
        """Take the first message of an answer and cancel. Returns whether there was one."""
        call = self._begin(method, self._timeout_s, ())
        try:
            await _write(call, [message])
            return isinstance(await call.read(), bytes)
        except grpc.aio.AioRpcError:
            return False
        finally:
            call.cancel()

    def _begin(self, method: str, timeout_s: float, metadata: Metadata) -> grpc.aio.StreamStreamCall[bytes, bytes]:
        begin: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(method, None, None)
        return begin(None, timeout=timeout_s, metadata=(*self._metadata, *metadata))


async def _write(call: grpc.aio.StreamStreamCall[bytes, bytes], messages: Sequence[bytes]) -> None:
    """An answer may be over before everything is written: its status tells why."""
    try:
        for message in messages:
            await call.write(message)
        await call.done_writing()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        pass


def _users(metadata: grpc.aio.Metadata | None) -> Metadata:
    return tuple((key, value) for key, value in metadata or () if key not in _OWN)

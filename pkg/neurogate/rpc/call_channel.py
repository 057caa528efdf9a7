"""A gateway's channel for calls of their own to one worker, beside the link and never on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import grpc
import grpc.aio

from neurogate.rpc.status import Metadata

ChannelOptions = Sequence[tuple[str, int | str]]
Dial = Callable[[str, ChannelOptions], grpc.aio.Channel]
"""Makes a channel to an address; it connects by itself when it is used."""

BytesCall = grpc.aio.StreamStreamCall[bytes, bytes]

COMMON_OPTIONS: ChannelOptions = (
    ("grpc.enable_retries", 0),  # retries are the dispatcher's
    ("grpc.use_local_subchannel_pool", 1),  # a connection is its channel's own, never a cached broken one
    ("grpc.enable_http_proxy", 0),  # workers are reached directly, whatever HTTP clients on this machine do
)


def dial_plain(address: str, options: ChannelOptions) -> grpc.aio.Channel:
    """A channel without TLS."""
    return grpc.aio.insecure_channel(address, options=tuple(options))


async def connected(call: BytesCall) -> None:
    """Wait until the call's head is on its way to the worker. Raises AioRpcError, and CancelledError if it was cut.

    `call.wait_for_connection` alone would wait for ever for a call whose channel is closed meanwhile.
    """
    call.add_done_callback(lambda _: call._metadata_sent.set())  # type: ignore[attr-defined] # noqa: SLF001
    await call.wait_for_connection()


async def send(call: BytesCall, message: bytes) -> None:
    """Write a message to a call that has its connection. Raises grpc.aio.InternalError when the call is over.

    `call.write` would also give the call the status INTERNAL then, in place of the one that is on its way.
    """
    await call._cython_call.send_serialized_message(message)  # type: ignore[attr-defined] # noqa: SLF001


def was_cut(call: BytesCall) -> bool:
    """Whether a call was ended from this side; to gRPC's own words it may look as if the other side cancelled it."""
    return bool(call._cython_call.is_locally_cancelled())  # type: ignore[attr-defined] # noqa: SLF001


class CallChannel:
    """Opens its channel when it is first needed. Closed, it ends every call on it, and may be opened again."""

    def __init__(self, dial: Dial, address: str, *, max_message_bytes: int) -> None:
        self._dial = dial
        self._address = address
        self._options = (
            *COMMON_OPTIONS,
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", -1),  # what was received may be sent
        )
        self._channel: grpc.aio.Channel | None = None

    def call(self, method: str, *, timeout_s: float | None, metadata: Metadata) -> BytesCall:
        """Begin a call whose messages are bytes both ways; to gRPC, every shape of call is a special case of this."""
        if self._channel is None:
            self._channel = self._dial(self._address, self._options)
        begin: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(method, None, None)
        return begin(None, timeout=timeout_s, metadata=metadata)

    async def close(self) -> None:
        """End every call on the channel: to whoever awaits one, it looks cancelled from this side."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close(None)

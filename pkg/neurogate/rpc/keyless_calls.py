"""Calls that need no key, health and reflection: so many at once and no more, for anybody may make them.

gRPC would read a call's message before its handler hears of it. So these handlers too are streams to it: a message is
read only for a call that is let in, and has to come soon.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

_SERVICES = ("/grpc.health.", "/grpc.reflection.")
_METHODS = frozenset(
    {
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    }
)

_MESSAGE_TIMEOUT_S = 10.0
"""For the one message of a call; a stream of them lasts as long as its client likes."""

_Context = grpc.aio.ServicerContext[Any, Any]
_Handler = Any
"""grpc.RpcMethodHandler, whose stub knows no handlers that are coroutines."""


class KeylessCalls(grpc.aio.ServerInterceptor):  # type: ignore[type-arg] # it has no type arguments when it runs
    """Bounds them; any other call passes untouched."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._calls = 0

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """The handler of a method, behind the bound if it is one of these; None is UNIMPLEMENTED.

        That is what newer versions of these services are, whose clients then ask for the older one.
        """
        method = handler_call_details.method
        if not method.startswith(_SERVICES):
            return await continuation(handler_call_details)
        if method not in _METHODS:
            return None
        handler = await continuation(handler_call_details)
        return grpc.stream_stream_rpc_method_handler(
            partial(self._bounded, handler), handler.request_deserializer, handler.response_serializer
        )

    async def _bounded(self, handler: _Handler, requests: AsyncIterator[Any], context: _Context) -> None:
        if self._calls >= self._limit:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{self._limit} calls without a key are under way (NEUROGATE_GRPC_MAX_KEYLESS_CALLS); come later",
            )
        self._calls += 1
        try:
            await _serve(handler, requests, context)
        finally:
            self._calls -= 1


async def _serve(handler: _Handler, requests: AsyncIterator[Any], context: _Context) -> None:
    if handler.stream_stream is not None:
        async for answer in handler.stream_stream(requests, context):
            await context.write(answer)
        return
    try:
        async with asyncio.timeout(_MESSAGE_TIMEOUT_S):
            request = await context.read()
    except TimeoutError:
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"no message within {_MESSAGE_TIMEOUT_S:g} s")
    if not isinstance(request, Message):
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call has no message")
    if handler.unary_stream is not None:
        await handler.unary_stream(request, context)
    else:
        await context.write(await handler.unary_unary(request, context))

"""Proxies that lie, each in one way: what a verifier must find out. An honest one is a lie that does nothing."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
import grpc.aio
import httpx
from starlette.types import Message, Receive, Scope, Send

from neurogate.httpd import HttpServer

EVENT = re.compile(rb".*?\n\n|.+\Z", re.DOTALL)


class HttpLie:
    """What an HTTP proxy does to an answer; this one is honest."""

    cancels = True

    def status(self, path: str, status: int) -> int:
        return status

    def media_type(self, media_type: str) -> str:
        return media_type

    def events(self, events: list[bytes]) -> list[bytes]:
        return events

    def whole(self, path: str, body: bytes) -> bytes:
        return body

    def request(self, path: str, body: bytes) -> bytes:
        return body


class HttpProxy:
    """Forwards to a server, and lies. It holds a stream until it has all of it, where the lie needs that."""

    def __init__(self, target: str, lie: HttpLie) -> None:
        self.lie = lie
        self.client = httpx.AsyncClient(base_url=target, timeout=60, limits=httpx.Limits(max_connections=None))
        self.left: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        forwarding = asyncio.get_running_loop().create_task(self._forward(scope, body, send))
        leaving = asyncio.get_running_loop().create_task(self._gone(receive))
        await asyncio.wait([forwarding, leaving], return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if not forwarding.done():
            if self.lie.cancels:
                forwarding.cancel()
            self.left.add(forwarding)
            return
        forwarding.result()

    async def close(self) -> None:
        for task in self.left:
            task.cancel()
        if self.left:
            await asyncio.wait(self.left)
        await self.client.aclose()

    async def _gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def _forward(self, scope: Scope, body: bytes, send: Send) -> None:
        path = scope["path"]
        sent = self.lie.request(path, body)
        async with self.client.stream(scope["method"], path, content=sent or None) as response:
            media_type = response.headers.get("content-type", "")
            stream = media_type.startswith("text/event-stream")
            head: Message = {
                "type": "http.response.start",
                "status": self.lie.status(path, response.status_code),
                "headers": [(b"content-type", self.lie.media_type(media_type).encode())],
            }
            await send(head)
            if stream and type(self.lie).events is HttpLie.events:
                async for data in response.aiter_raw():
                    await send({"type": "http.response.body", "body": data, "more_body": True})
            else:
                whole = await response.aread()
                whole = b"".join(self.lie.events(EVENT.findall(whole))) if stream else self.lie.whole(path, whole)
                await send({"type": "http.response.body", "body": whole, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def http_proxy(target: str, lie: HttpLie) -> AsyncIterator[str]:
    """Its address."""
    proxy = HttpProxy(target, lie)
    async with asyncio.TaskGroup() as tasks:
        server = HttpServer(proxy, name="proxy", host="127.0.0.1", port=0)
        port = await server.start(tasks)
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(1)
            await proxy.close()


class DropsAnEvent(HttpLie):
    def events(self, events: list[bytes]) -> list[bytes]:
        return events[:2] + events[3:]


class Reorders(HttpLie):
    def events(self, events: list[bytes]) -> list[bytes]:
        return [*events[:2], events[3], events[2], *events[4:]]


class RepeatsAnEvent(HttpLie):
    def events(self, events: list[bytes]) -> list[bytes]:
        return [*events[:3], events[2], *events[3:]]


class MixesStreams(HttpLie):
    """Now and then an event of one stream ends up in another."""

    def __init__(self) -> None:
        self.kept: bytes | None = None

    def events(self, events: list[bytes]) -> list[bytes]:
        kept, self.kept = self.kept, events[3]
        return [*events[:3], kept or events[3], *events[4:]]


class ChangesAByte(HttpLie):
    def events(self, events: list[bytes]) -> list[bytes]:
        return [event.replace(b"[sim]", b"[sin]") for event in events]


class InventsTheEnd(HttpLie):
    """The stream is cut, and made to look complete."""

    def events(self, events: list[bytes]) -> list[bytes]:
        return [*events[:3], b"data: [DONE]\n\n"]


class ReframesEvents(HttpLie):
    def events(self, events: list[bytes]) -> list[bytes]:
        return [event.replace(b"data: ", b"data:") for event in events]


class SaysOtherwise(HttpLie):
    def whole(self, path: str, body: bytes) -> bytes:
        return body.replace(b"[sim]", b"[sin]")


class WrongStatus(HttpLie):
    def status(self, path: str, status: int) -> int:
        return 201 if status == 200 else status


class AcceptsAnything(HttpLie):
    def status(self, path: str, status: int) -> int:
        return 200 if status >= 400 else status


class RefusesInProse(HttpLie):
    def whole(self, path: str, body: bytes) -> bytes:
        return b"no" if b'"error"' in body else body


class WrongMediaType(HttpLie):
    def media_type(self, media_type: str) -> str:
        return "text/plain"


class IgnoresLeaving(HttpLie):
    cancels = False


class CutsLargeBodies(HttpLie):
    def request(self, path: str, body: bytes) -> bytes:
        if len(body) < 100_000:
            return body
        return json.dumps({"messages": [{"role": "user", "content": "x" * 100_000}]}).encode()


class HidesModels(HttpLie):
    def whole(self, path: str, body: bytes) -> bytes:
        return b'{"object":"list","data":[]}' if path == "/v1/models" else body


class GrpcLie:
    """What a gRPC proxy does to an answer; this one is honest."""

    cancels = True
    keeps_deadline = True
    max_bytes = -1

    def messages(self, method: str, messages: list[bytes]) -> list[bytes]:
        return messages

    def head(self, metadata: Sequence[Any]) -> Sequence[Any]:
        return metadata

    def trailers(self, metadata: Sequence[Any]) -> Sequence[Any]:
        return metadata

    def code(self, code: grpc.StatusCode) -> grpc.StatusCode:
        return code


class GrpcProxy(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Forwards every method as bytes, and lies."""

    def __init__(self, target: str, lie: GrpcLie) -> None:
        self.lie = lie
        self.channel = grpc.aio.insecure_channel(
            target, options=(("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
        )
        self.left: set[asyncio.Task[None]] = set()

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return grpc.stream_stream_rpc_method_handler(partial(self._handle, details.method))

    async def close(self) -> None:
        for task in self.left:
            task.cancel()
        if self.left:
            await asyncio.wait(self.left)
        await self.channel.close(None)

    async def _handle(self, method: str, requests: Any, context: Any) -> None:
        sent = [message async for message in requests]
        if self.lie.cancels:
            await self._forward(method, sent, context)
            return
        task = asyncio.get_running_loop().create_task(self._forward(method, sent, context))
        self.left.add(task)
        await asyncio.shield(task)
        self.left.discard(task)

    async def _forward(self, method: str, sent: list[bytes], context: Any) -> None:
        lie = self.lie
        timeout = context.time_remaining() if lie.keeps_deadline else None
        metadata = [entry for entry in context.invocation_metadata() if entry[0].startswith("x-")]
        call = self.channel.stream_stream(method)(timeout=timeout, metadata=metadata)
        try:
            for message in sent:
                await call.write(message)
            await call.done_writing()
            await context.send_initial_metadata(lie.head(tuple(await call.initial_metadata() or ())))
            if type(lie).messages is GrpcLie.messages:
                while isinstance(message := await call.read(), bytes):
                    await self._write(context, message)
            else:
                received = []
                while isinstance(message := await call.read(), bytes):
                    received.append(message)
                for message in lie.messages(method, received):
                    await self._write(context, message)
        except grpc.aio.AioRpcError:
            pass
        finally:
            call.cancel()
        context.set_trailing_metadata(tuple(lie.trailers(tuple(await call.trailing_metadata() or ()))))
        context.set_details(await call.details() or "")
        context.set_code(lie.code(await call.code()))

    async def _write(self, context: Any, message: bytes) -> None:
        """A lie that goes on for a client that is gone writes to nobody."""
        try:
            await context.write(message)
        except (grpc.aio.BaseError, asyncio.InvalidStateError):
            assert not self.lie.cancels


@asynccontextmanager
async def grpc_proxy(target: str, lie: GrpcLie) -> AsyncIterator[str]:
    """Its address."""
    proxy = GrpcProxy(target, lie)
    server = grpc.aio.server(options=(("grpc.max_receive_message_length", lie.max_bytes),))
    server.add_generic_rpc_handlers((proxy,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)
        await proxy.close()


class DropsAMessage(GrpcLie):
    def messages(self, method: str, messages: list[bytes]) -> list[bytes]:
        return [*messages[:2], *messages[3:]]


class ReordersMessages(GrpcLie):
    def messages(self, method: str, messages: list[bytes]) -> list[bytes]:
        return messages if len(messages) < 4 else [messages[1], messages[0], *messages[2:]]


class ChangesAMessage(GrpcLie):
    def messages(self, method: str, messages: list[bytes]) -> list[bytes]:
        return [message.replace(b"[sim]", b"[sin]") for message in messages]


class SwapsAnswers(GrpcLie):
    """Every answer is the one that was asked for before."""

    def __init__(self) -> None:
        self.kept: dict[str, list[bytes]] = {}

    def messages(self, method: str, messages: list[bytes]) -> list[bytes]:
        kept, self.kept[method] = self.kept.get(method, messages), messages
        return kept


class LosesTrailers(GrpcLie):
    def trailers(self, metadata: Sequence[Any]) -> Sequence[Any]:
        return ()


class LosesMetadata(GrpcLie):
    def head(self, metadata: Sequence[Any]) -> Sequence[Any]:
        return ()


class WrongCode(GrpcLie):
    def code(self, code: grpc.StatusCode) -> grpc.StatusCode:
        return grpc.StatusCode.INTERNAL if code is grpc.StatusCode.UNIMPLEMENTED else code


class IgnoresCancelling(GrpcLie):
    cancels = False
    keeps_deadline = False


class SmallMessagesOnly(GrpcLie):
    max_bytes = 1 << 20

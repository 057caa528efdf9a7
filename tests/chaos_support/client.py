"""A client that hides nothing: it keeps every byte, when pieces of text came, and how the connection ended.

One connection a request, HTTP/1.1 by hand: what ends an answer (the last chunk, the length, or nothing of the kind)
must not be smoothed over by a library. gRPC is called with bytes.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from chaos_support.checker import Api, Received

GRPC_METHOD = "/llm.v1.LLMService/StreamGenerateText"


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go."""

    port: int
    key: str = ""
    tls: ssl.SSLContext | None = None
    timeout_s: float = 60.0
    headers: tuple[tuple[str, str], ...] = ()


async def ask(target: Target, api: Api, prompt: str, max_tokens: int, **more: object) -> Received:
    """One request to one API."""
    received = Received()
    await follow(target, api, api.body(prompt, max_tokens) | more, received)
    return received


async def follow(
    target: Target, api: Api, body: dict[str, Any], received: Received, started: asyncio.Event | None = None
) -> None:
    """The same into `received`; `started` is set with the first text."""
    try:
        async with asyncio.timeout(target.timeout_s):
            await _exchange(target, api, json.dumps(body).encode(), received, started)
    except TimeoutError:
        received.timed_out = True
    except OSError:  # a connection that is refused or reset, TLS errors included
        pass
    finally:
        if started is not None:
            started.set()  # whoever waits for the start waits no longer


async def get(target: Target, path: str) -> tuple[int, Any]:
    """Status and JSON of a GET. Raises OSError, and ValueError when there is none."""
    received = Received()
    head = f"GET {path} HTTP/1.1\r\nhost: chaos\r\nauthorization: Bearer {target.key}\r\nconnection: close\r\n\r\n"
    async with asyncio.timeout(target.timeout_s):
        await _speak(target, head.encode(), b"", received, None)
    return received.status, json.loads(received.body)


async def _exchange(target: Target, api: Api, body: bytes, received: Received, started: asyncio.Event | None) -> None:
    head = [
        f"POST {api.path} HTTP/1.1",
        "host: chaos",
        "connection: close",
        "content-type: application/json",
        f"content-length: {len(body)}",
        *([f"authorization: Bearer {target.key}"] if target.key else []),
        *(f"{name}: {value}" for name, value in target.headers),
    ]
    await _speak(target, ("\r\n".join(head) + "\r\n\r\n").encode() + body, api.mark, received, started)


async def _speak(
    target: Target, request: bytes, mark: bytes, received: Received, started: asyncio.Event | None
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port, ssl=target.tls)
    try:
        writer.write(request)
        await _read_head(reader, received)
        if received.status:
            await _read_body(reader, mark, received, started)
    except asyncio.IncompleteReadError:
        pass  # cut: `complete` stays False
    finally:
        writer.transport.abort()


async def _read_head(reader: asyncio.StreamReader, received: Received) -> None:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    for line in lines[1:-2]:
        name, _, value = line.partition(":")
        received.headers[name.lower()] = value.strip()
    received.status = int(lines[0].split(" ")[1])


async def _read_body(
    reader: asyncio.StreamReader, mark: bytes, received: Received, started: asyncio.Event | None
) -> None:
    pieces: list[bytes] = []
    try:
        if received.headers.get("transfer-encoding") != "chunked":
            pieces.append(await _exactly(reader, int(received.headers["content-length"]), pieces))
        else:
            while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                piece = await _exactly(reader, size, pieces)
                pieces.append(piece)
                if mark in piece:
                    received.times.append(asyncio.get_running_loop().time())
                    if started is not None:
                        started.set()
                await reader.readexactly(2)
            await reader.readexactly(2)
        received.complete = True
    finally:
        received.body = b"".join(pieces)


async def _exactly(reader: asyncio.StreamReader, size: int, pieces: list[bytes]) -> bytes:
    try:
        return await reader.readexactly(size)
    except asyncio.IncompleteReadError as error:
        pieces.append(error.partial)
        raise


async def follow_grpc(
    channel: grpc.aio.Channel,
    target: Target,
    prompt: str,
    max_tokens: int,
    received: Received,
    started: asyncio.Event | None = None,
) -> None:
    """One StreamGenerateText into `received`."""
    request = _text(1, "chaos") + _text(2, prompt) + b"\x20" + _varint(max_tokens)
    call = channel.unary_stream(GRPC_METHOD)(
        request, timeout=target.timeout_s, metadata=(("authorization", f"Bearer {target.key}"),)
    )
    received.status = 200
    try:
        async for message in call:
            received.messages.append(message)
            received.times.append(asyncio.get_running_loop().time())
            if started is not None:
                started.set()
        received.complete = True
    except grpc.aio.AioRpcError as error:
        received.failed = f"{error.code().name}: {error.details()}"
        received.timed_out = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    finally:
        if started is not None:
            started.set()


def _text(number: int, text: str) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(text.encode())) + text.encode()


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])

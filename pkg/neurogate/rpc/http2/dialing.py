"""How a gateway reaches a worker for its link: a connection of its own, with TLS or without, and a call on it."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Protocol

from neurogate.race import first_of
from neurogate.rpc.http2.call import CallOwner, GrpcCall
from neurogate.rpc.http2.client import ClientCall
from neurogate.rpc.http2.connection import reason_of

LINK = "/neurogate.v1.Worker/Link"
_SCHEME = re.compile(r"(?:dns|ipv4|ipv6):(?=.*:)")
"""What gRPC lets stand before host:port."""


class DialError(Exception):
    """There is no connection; the text says why."""


class Dialer(Protocol):
    """Opens the link's call to an address."""

    async def __call__(self, address: str, owner: CallOwner, *, timeout_s: float, max_message_bytes: int) -> GrpcCall:
        """A call on a connection of its own; what comes is told to `owner` from the first byte on. Raises DialError."""
        ...


class LinkDialer:
    """Dials host:port, an IPv6 address in brackets, or `unix:` and a path.

    With a `context` it speaks TLS and takes the newest one for every connection; the worker's certificate must be for
    `name`, or else for its host.
    """

    def __init__(self, context: Callable[[], ssl.SSLContext] | None = None, *, name: str = "") -> None:
        self._context = context
        self._name = name

    async def __call__(self, address: str, owner: CallOwner, *, timeout_s: float, max_message_bytes: int) -> GrpcCall:
        """See `Dialer`."""
        loop = asyncio.get_running_loop()
        path = address.removeprefix("unix:") if address.startswith("unix:") else ""
        host, port = ("localhost", 0) if path else _host_port(address)
        context = None if self._context is None else self._context()
        make = partial(
            ClientCall,
            owner,
            LINK,
            authority=self._name or ("localhost" if path else _SCHEME.sub("", address)),
            secure=context is not None,
            loop=loop,
            max_message_bytes=max_message_bytes,
        )
        attempt = _Attempt(make, context, None if context is None else self._name or host)
        try:
            async with asyncio.timeout(timeout_s):
                if path:
                    return await attempt.unix(path)
                return await attempt.tcp(await _found(host, port), port)
        except TimeoutError:
            raise DialError(f"{address}: no connection within {timeout_s:g} s") from None
        except OSError as error:  # of TLS too
            raise DialError(f"{address}: {reason_of(error)}") from None


class _Attempt:
    """One call's connection, wherever it comes about. Whatever does not come about is not heard of again."""

    def __init__(self, make: Callable[[], ClientCall], context: ssl.SSLContext | None, name: str | None) -> None:
        self._make = make
        self._context = context
        self._name = name

    async def unix(self, path: str) -> ClientCall:
        return await self._by(asyncio.get_running_loop().create_unix_connection, path)

    async def tcp(self, found: list[str], port: int) -> ClientCall:
        """By the first address that connects, TLS and all. Raises OSError of the last that does not."""
        connect = asyncio.get_running_loop().create_connection
        return await first_of((partial(self._by, connect, host, port) for host in found), discard=ClientCall.abort)

    async def _by(self, connect: Callable[..., Awaitable[object]], *where: object) -> ClientCall:
        call = self._make()
        try:
            await connect(lambda: call, *where, ssl=self._context, server_hostname=self._name)
        except BaseException:
            call.abort()
            raise
        return call


async def _found(host: str, port: int) -> list[str]:
    """The addresses of a host, which may be one."""
    with suppress(ValueError):
        return [str(ipaddress.ip_address(host))]
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise DialError(f"no address is known for {host}: {reason_of(error)}") from None
    return list(dict.fromkeys(str(where[0]) for *_, where in found))


def _host_port(address: str) -> tuple[str, int]:
    host, _, port = _SCHEME.sub("", address).rpartition(":")
    if not host or not port.isascii() or not port.isdigit():
        raise DialError(f"{address}: it is not host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)

"""The connections to one engine: as many as there are requests, kept for a moment for those that follow."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import quote, unquote

from neurogate import urls
from neurogate.engines.connection import Connection, ConnectionLostError

KEEPALIVE_S = 3.0
"""Idle connections are dropped before the engine does it: llama.cpp and uvicorn close theirs after 5 s, and a request
sent into a closing connection is lost."""
_ADDRESSES_S = 10.0
"""How long a name's addresses are remembered."""


@dataclass(frozen=True)
class Origin:
    """Where a base URL points."""

    host: str
    port: int
    tls: bool
    authority: str
    """For the header `Host`."""
    prefix: str
    """Before every path."""
    authorization: str
    """That of the URL's user; empty without one."""

    @classmethod
    def of(cls, url: str) -> Origin:
        """Raises ValueError, which never quotes the URL, for what is none."""
        parts = urls.split(url)
        tls = parts.scheme == "https"
        host = parts.hostname or ""
        port = parts.port or (443 if tls else 80)
        if not host.isascii():
            host = host.encode("idna").decode()
        authority = f"[{host}]" if ":" in host else host
        authorization = ""
        if parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = f"Basic {base64.b64encode(user.encode('latin-1', 'replace')).decode()}"
        return cls(
            host=host,
            port=port,
            tls=tls,
            authority=authority if port == (443 if tls else 80) else f"{authority}:{port}",
            prefix=quote(parts.path, safe="/%:@!$&'()*+,;=~"),
            authorization=authorization,
        )


class Connections:
    """See the module. `reuses` is False for an engine that cannot be trusted to keep a connection open."""

    def __init__(self, origin: Origin, *, connect_timeout_s: float, reuses: bool) -> None:
        self._origin = origin
        self._connect_timeout_s = connect_timeout_s
        self._reuses = reuses
        self._loop = asyncio.get_running_loop()
        self._tls = _tls() if origin.tls else None
        self._open: set[Connection] = set()
        self._idle: list[Connection] = []
        """The one that was used last at the end."""
        self._sweeping: asyncio.TimerHandle | None = None
        self._addresses: list[str] = []
        self._resolved_at = 0.0
        self._closed = False

    def __repr__(self) -> str:
        return f"<Connections {self._origin.authority} open={len(self._open)} idle={len(self._idle)}>"

    async def take(self) -> Connection:
        """A connection for one request. Raises OSError, of which TimeoutError is one."""
        fresh_since = self._loop.time() - KEEPALIVE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable and connection.idle_since > fresh_since:
                return connection
            connection.close()
        async with asyncio.timeout(self._connect_timeout_s):
            return await self._connect()

    def give_back(self, connection: Connection) -> None:
        """The request is over: the connection is kept when its answer is whole, else cut."""
        if self._reuses and connection.reusable and not self._closed:
            connection.idle_since = self._loop.time()
            self._idle.append(connection)
            if self._sweeping is None:
                self._sweeping = self._loop.call_later(KEEPALIVE_S, self._sweep)
        else:
            connection.close()

    def close(self) -> None:
        """Cut them all, and make no more."""
        self._closed = True
        self._idle.clear()
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in tuple(self._open):
            connection.close()

    def _sweep(self) -> None:
        stale = self._loop.time() - KEEPALIVE_S
        kept = []
        for connection in self._idle:
            if connection.idle_since > stale and connection.reusable:
                kept.append(connection)
            else:
                connection.close()
        self._idle = kept
        self._sweeping = self._loop.call_later(KEEPALIVE_S / 3, self._sweep) if kept else None

    async def _connect(self) -> Connection:
        """Try one address after the other; those that do not answer are left out until the name is asked again."""
        addresses = await self._resolve()
        for address in tuple(addresses):
            try:
                async with asyncio.timeout(self._connect_timeout_s / 2 if len(addresses) > 1 else None):
                    connection = await self._connect_to(address)
            except OSError as error:
                failed = error
                if address in addresses:
                    addresses.remove(address)
                continue
            if addresses[0] == address:
                addresses.append(addresses.pop(0))  # connections are spread over all of them
            return connection
        raise failed

    async def _connect_to(self, address: str) -> Connection:
        origin, tls = self._origin, self._tls
        _, connection = await self._loop.create_connection(
            lambda: Connection(self._loop, self._open.discard),
            address,
            origin.port,
            ssl=tls,
            server_hostname=origin.host if tls is not None else None,
        )
        if self._closed:
            connection.close()
            raise ConnectionLostError("the engine was stopped")
        self._open.add(connection)
        return connection

    async def _resolve(self) -> list[str]:
        host = self._origin.host
        now = self._loop.time()
        if not self._addresses or now - self._resolved_at >= _ADDRESSES_S:
            found = [host] if _is_address(host) else await self._ask(host)
            self._addresses = found
            self._resolved_at = now
        return self._addresses

    async def _ask(self, host: str) -> list[str]:
        told = await self._loop.getaddrinfo(host, self._origin.port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(info[4][0]) for info in told))


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True

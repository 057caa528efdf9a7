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
from neurogate.engines.connection import Connection
from neurogate.engines.dialing import dial
from neurogate.engines.lost import ConnectionLostError, afresh

KEEPALIVE_S = 3.0
"""Idle connections are dropped before the engine does it: llama.cpp and uvicorn close theirs after 5 s, and a request
sent into a closing connection is lost."""
_ADDRESSES_S = 10.0
"""How old a name's addresses may be before it is asked again."""
_OLD_ADDRESSES_S = 60.0
"""How old they may be to be used while it is asked."""


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
        self._addresses: tuple[str, ...] = ()
        """Those of the name that may answer; replaced, never changed, because many connect at once."""
        self._asking: asyncio.Task[tuple[str, ...] | OSError] | None = None
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
        if self._asking is not None:
            self._asking.cancel()
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
        """To whichever address answers first; one that fails is left out until the name is asked again."""
        if self._closed:
            raise ConnectionLostError("the engine was stopped")
        addresses = await self._resolve()
        self._addresses = self._addresses[1:] + self._addresses[:1]  # connections are spread over all of them
        try:
            return await dial(addresses, self._connect_to, self._leave_out)
        except OSError:
            if self._asking is None and set(self._addresses) <= set(addresses):
                raise
        # The addresses were old, and the name has moved, or is being asked whether it has
        return await dial(await self._resolve(), self._connect_to, self._leave_out)

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

    def _leave_out(self, address: str) -> None:
        self._addresses = tuple(other for other in self._addresses if other != address)

    async def _resolve(self) -> tuple[str, ...]:
        """The addresses to try. The name is asked once for all who wait, and beside them while the old ones will do."""
        host = self._origin.host
        if _is_address(host):
            return (host,)
        known = self._addresses
        age = self._loop.time() - self._resolved_at
        if known and age < _ADDRESSES_S:
            return known
        if self._asking is None:
            self._asking = self._loop.create_task(self._ask(host))
        if known and age < _OLD_ADDRESSES_S:
            return known
        asking = self._asking
        await asyncio.wait((asking,))  # who leaves takes nobody along
        if asking.cancelled():
            raise ConnectionLostError("the engine was stopped")
        found = asking.result()
        if isinstance(found, OSError):
            raise afresh(found)
        return self._addresses or found

    async def _ask(self, host: str) -> tuple[str, ...] | OSError:
        """An error is a result: several may wait for it, or nobody."""
        try:
            told = await self._loop.getaddrinfo(host, self._origin.port, type=socket.SOCK_STREAM)
        except OSError as error:
            return error.with_traceback(None)
        except UnicodeError as error:
            return OSError(f"its name is none: {error}")
        finally:
            self._asking = None
        self._addresses = tuple(dict.fromkeys(str(info[4][0]) for info in told))
        self._resolved_at = self._loop.time()
        return self._addresses


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

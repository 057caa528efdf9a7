"""Sockets that listen where gRPC would: all addresses of a name have one port, and a wildcard means both families."""

from __future__ import annotations

import asyncio
import errno
import socket

BACKLOG = 4096
_WILDCARDS = {"", "0.0.0.0", "::"}


async def listen(address: str) -> list[socket.socket]:
    """Listen on host:port; port 0 takes a free one. Raises OSError when the port is taken or the host is none."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not port.isdecimal():
        raise OSError(f"{address!r} is not host:port")
    if host in _WILDCARDS:
        return [_listen_everywhere(int(port))]
    found = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    return _listen_each([(int(family), str(where[0])) for family, _, _, _, where in found], int(port))


def peer_of(transport: asyncio.BaseTransport) -> str:
    """Who is at the other end, as gRPC says it."""
    name = transport.get_extra_info("peername")
    if not isinstance(name, tuple):
        return "unknown"
    host, port = str(name[0]).removeprefix("::ffff:"), name[1]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"


def _listen_everywhere(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(
                ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG, reuse_port=False
            )
        except OSError as error:
            if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                raise
    return socket.create_server(("0.0.0.0", port), backlog=BACKLOG)


def _listen_each(addresses: list[tuple[int, str]], port: int) -> list[socket.socket]:
    """As many as there are on this machine: a name may have an IPv6 address where there is no IPv6."""
    sockets: list[socket.socket] = []
    problem = OSError("the name has no address")
    for family, host in addresses:
        try:
            sockets.append(socket.create_server((host, port), family=family, backlog=BACKLOG))
        except OSError as error:
            problem = error
            if error.errno == errno.EADDRINUSE:
                break
        else:
            port = sockets[-1].getsockname()[1]
    if not sockets or problem.errno == errno.EADDRINUSE:
        for opened in sockets:
            opened.close()
        raise problem
    return sockets

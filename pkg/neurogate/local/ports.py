"""Ports of a fleet: the usual ones where they are free, others where they are not."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import ExitStack

_NEIGHBOURS = 20
"""Ports tried after the usual one, because a port nearby is easier to remember than any free one."""


def free_ports(wanted: Iterable[tuple[str, int]]) -> list[int]:
    """A free port for each wanted (address, port): itself, one of the next few, or any. All are different.

    Raises OSError when an address has no free port at all, for example because it is not this machine's.
    """
    with ExitStack() as held:  # each stays bound until all are chosen, so that none is chosen twice
        return [_bound(host, port, held) for host, port in wanted]


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen on the port now."""
    with ExitStack() as held:
        return _try(host, port, held) is not None


def _bound(host: str, wanted: int, held: ExitStack) -> int:
    for port in range(wanted, min(wanted + _NEIGHBOURS, 65536)) if wanted else ():
        found = _try(host, port, held)
        if found is not None:
            return found
    any_port = _try(host, 0, held)
    if any_port is None:
        raise OSError(f"no port is free on {host}")
    return any_port


def _try(host: str, port: int, held: ExitStack) -> int | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    candidate = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
    candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free for a server
    try:
        candidate.bind((host, port))
        candidate.listen(1)
    except OSError:
        return None
    return int(candidate.getsockname()[1])

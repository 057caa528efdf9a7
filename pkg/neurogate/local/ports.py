"""Ports of a fleet: those that were asked for, and the usual ones where they are free, others where they are not."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

from neurogate.errors import NeuroGateError

OFF = -1

_NEIGHBOURS = 20
"""Ports tried after the usual one, because a port nearby is easier to remember than any free one."""


class PortError(NeuroGateError):
    """A listener cannot have its port."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The port that a listener should have."""

    host: str
    port: int
    """0 takes any, -1 is a listener that is off."""
    asked: str = ""
    """Who asked for this very port, for example `HTTP_PORT (env HTTP_PORT)`; empty when it is only the usual one."""


def free_ports(wanted: Iterable[Wanted]) -> list[int]:
    """A free port for each: one that was asked for is itself; a usual one is itself, one of the next few, or any.

    All are different, but for those that are off, which are -1. Raises PortError naming a port that was asked for and
    is not free, and an address that has no free port at all, for example because it is not this machine's.
    """
    listeners = list(wanted)
    chosen = [OFF] * len(listeners)
    with ExitStack() as held:  # each stays bound until all are chosen, so that none is chosen twice
        for is_asked in (True, False):  # the usual ones make way
            for index, listener in enumerate(listeners):
                if listener.port != OFF and bool(listener.asked) is is_asked:
                    chosen[index] = (_asked if is_asked else _usual)(listener, held)
    return chosen


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen on the port now."""
    with ExitStack() as held:
        return _try(host, port, held) is not None


def _asked(wanted: Wanted, held: ExitStack) -> int:
    try:
        return _bound(wanted.host, wanted.port, held)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else "there is no such port"
        raise PortError(f"{wanted.asked}: cannot listen on {wanted.host}:{wanted.port}: {reason}") from error


def _usual(wanted: Wanted, held: ExitStack) -> int:
    host, usual = wanted.host, wanted.port
    for port in range(usual, min(usual + _NEIGHBOURS, 65536)) if usual else ():
        found = _try(host, port, held)
        if found is not None:
            return found
    any_port = _try(host, 0, held)
    if any_port is None:
        raise PortError(f"no port is free on {host}")
    return any_port


def _try(host: str, port: int, held: ExitStack) -> int | None:
    try:
        return _bound(host, port, held)
    except OSError:
        return None


def _bound(host: str, port: int, held: ExitStack) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    candidate = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
    candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free for a server
    candidate.bind((host, port))
    candidate.listen(1)
    return int(candidate.getsockname()[1])

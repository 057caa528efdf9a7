"""File descriptors: as many as the process may have, and how many of them connections may take."""

from __future__ import annotations

import array
import fcntl
import resource
import termios
from typing import Any

RESERVED = 256
"""For workers' links, logs, listeners, and connections that are turned away."""


def raise_limit() -> int:
    """Raise the process's own limit to what it is allowed. Returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def connections_within(wanted: int, limit: int) -> int:
    """How many connections there can be when the process may have `limit` descriptors; at least one."""
    if limit == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, limit - RESERVED))


def unread(sock: Any) -> int:
    """Bytes that have come to a socket and were not read yet; none to one that is gone."""
    if sock is None or sock.fileno() < 0:
        return 0
    found = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), termios.FIONREAD, found)
    return found[0]

"""Listeners of one process that want the same port."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from neurogate.config.declare import Problem

_ANYWHERE = frozenset({"", "0.0.0.0", "::"})


class Listener(NamedTuple):
    """A port that a process listens on."""

    key: str
    """Its setting, for example `gateway.http_port`."""
    host: str
    port: int
    """0 takes a free one, -1 is off."""


def shared_ports(listeners: Iterable[Listener]) -> Iterator[Problem]:
    """A problem for every two that want the same port of the same address."""
    taken = [listener for listener in listeners if listener.port > 0]
    for one, other in itertools.combinations(taken, 2):
        meet = one.host == other.host or one.host in _ANYWHERE or other.host in _ANYWHERE
        if one.port == other.port and meet:
            yield Problem((one.key, other.key), f"both are {one.port}; every listener needs a port of its own")

"""Whose a connection to a worker is, by its first bytes. Pure.

A gateway says at once what it wants: preface, settings and the headers of the link's call. gRPC's own clients send no
headers before they have seen the server's settings: whoever stops before the headers is one of them, and must not wait.

A proxy on the way may put other calls on the same connection, which only gRPC's server can serve. It writes headers in
its own way, with HPACK's tables, where a gateway writes literals: so headers as a gateway writes them come from one.
"""

from __future__ import annotations

from enum import Enum, auto

from neurogate.rpc.http2 import frames
from neurogate.rpc.http2.frames import PREFACE, Http2Error
from neurogate.rpc.http2.headers import HeaderReader, block

LINK = b"/neurogate.v1.Worker/Link"
_LONGEST = 4096
"""A gateway's headers end before; whoever sends settings byte by byte is looked at no longer."""


class Whose(Enum):
    """Who serves a connection."""

    OURS = auto()
    """It begins with the link's call."""
    GRPC = auto()
    """Everything else."""
    UNCLEAR = auto()
    """What is there ends within something that its sender goes on with, whoever that is."""


def whose(data: bytes) -> Whose:
    """Look at everything that has come so far."""
    if not data.startswith(PREFACE):
        return Whose.UNCLEAR if PREFACE.startswith(data) else Whose.GRPC
    at = len(PREFACE)
    while at < len(data) or at == len(PREFACE):  # settings must follow the preface
        head = data[at : at + frames.HEAD_BYTES]
        if len(head) < frames.HEAD_BYTES:
            return Whose.UNCLEAR
        size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        at += frames.HEAD_BYTES + size
        if at > _LONGEST or kind not in _BEGINNING:
            break
        if at > len(data):
            return Whose.UNCLEAR
        if kind == frames.HEADERS:
            return Whose.OURS if _begins_a_link(flags, data[at - size : at]) else Whose.GRPC
    return Whose.GRPC


def _begins_a_link(flags: int, packed: bytes) -> bool:
    """Whether it is the link's call, by a gateway that has nothing else to ask on this connection."""
    if not packed.startswith(_AS_WE_WRITE):
        return False
    try:
        read = HeaderReader().begin(flags, 1, packed)
    except Http2Error:
        return False
    if read is None:
        return False
    _, fields, last = read
    return not last and fields.get(b":path") == LINK and fields.get(b"user-agent", b"").startswith(b"neurogate")


_AS_WE_WRITE = block(((":method", "POST"),))
"""How a gateway's headers begin. Every table has this pair in it, so whoever uses one writes it in a byte."""
_BEGINNING = {frames.SETTINGS, frames.WINDOW_UPDATE, frames.HEADERS}

"""What one gateway hands to the next through a Unix socket: listening sockets as descriptors, and ports as numbers.

Both sides ask the kernel who the other is: whoever may connect could take the ports, whoever listens could give others.
How that is asked is Linux's own way, so this works there only; elsewhere `lacking` says so and nothing here is called.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

READY = b"ready\n"
"""From the new gateway: it serves."""
DRAINING = b"draining\n"
"""From the old one: it takes no more connections."""

_SOCKETS_MAX = 16
_LETTER_BYTES_MAX = 64 * 1024
_PATH_BYTES_MAX = 100
"""The kernel takes 107."""


_LINUX = {"SO_PEERCRED": socket, "MSG_CMSG_CLOEXEC": socket, "O_PATH": os}
"""Names of what is used here and not everywhere."""
_DESCRIPTORS = Path("/proc/self/fd")


def lacking() -> str:
    """What this platform lacks of what is needed here; empty where it has it all."""
    for name, module in _LINUX.items():
        if not hasattr(module, name):
            return f"{sys.platform} has no {name}"
    return "" if _DESCRIPTORS.is_dir() else f"there is no {_DESCRIPTORS}"


class TakeoverError(OSError):
    """The running gateway cannot be taken over from."""


class _Letter(msgspec.Struct):
    """What comes with the descriptors."""

    pid: int
    version: str
    usable: int
    sockets: list[str]
    ports: dict[str, int]


@dataclass(slots=True)
class Offer:
    """What a running gateway hands over. Sockets that nobody takes are closed with it."""

    pid: int = 0
    version: str = ""
    usable: int = 0
    """Workers that it can send requests to."""
    sockets: dict[str, socket.socket] = field(default_factory=dict)
    """Listening, by name."""
    ports: Mapping[str, int] = field(default_factory=dict)
    """Those of listeners that cannot be handed over, by name."""

    def take(self, name: str, host: str, port: int) -> socket.socket | None:
        """The socket of that name when it is bound as wanted; port 0 takes whichever it has."""
        found = self.sockets.get(name)
        if found is None or not _is_bound(found, host, port):
            return None
        return self.sockets.pop(name)

    def port(self, name: str, wanted: int) -> int:
        """The port of that name in place of any."""
        return wanted or self.ports.get(name, 0)

    def close(self) -> None:
        """Let go of what was not taken. Idempotent."""
        for each in self.sockets.values():
            each.close()
        self.sockets = {}


def give(to: socket.socket, offer: Offer) -> None:
    """Send it; the sockets stay open here. Raises OSError when the other side is gone."""
    letter = _Letter(offer.pid, offer.version, offer.usable, list(offer.sockets), dict(offer.ports))
    socket.send_fds(to, [msgspec.json.encode(letter)], [each.fileno() for each in offer.sockets.values()])


async def receive(source: socket.socket) -> Offer:
    """Wait for what is given. Raises TakeoverError when it is no offer."""
    await _readable(source)
    data, descriptors, _, _ = socket.recv_fds(source, _LETTER_BYTES_MAX, _SOCKETS_MAX, socket.MSG_CMSG_CLOEXEC)
    sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    try:
        letter = msgspec.json.decode(data, type=_Letter)
    except msgspec.DecodeError:
        letter = None
    if letter is None or len(letter.sockets) != len(sockets) or not all(map(_listens, sockets)):
        for each in sockets:
            each.close()
        raise TakeoverError("the running gateway handed over something else than its listeners")
    for each in sockets:
        each.setblocking(False)  # noqa: FBT003 - the standard library's
    return Offer(
        letter.pid, letter.version, letter.usable, dict(zip(letter.sockets, sockets, strict=True)), letter.ports
    )


def is_ours(peer: socket.socket) -> bool:
    """Whether the process at the other end runs as the same user."""
    _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return bool(uid == os.geteuid())


@contextlib.contextmanager
def address_of(path: Path) -> Iterator[str]:
    """What a Unix socket at the path is called: the kernel takes short names only, a directory makes any name short."""
    if len(os.fsencode(path)) <= _PATH_BYTES_MAX:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"{_DESCRIPTORS}/{directory}/{path.name}"
    finally:
        os.close(directory)


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sock.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock.fileno())


def _listens(sock: socket.socket) -> bool:
    return sock.family in {socket.AF_INET, socket.AF_INET6} and bool(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    )


def _is_bound(sock: socket.socket, host: str, port: int) -> bool:
    found = sock.getsockname()
    if port and found[1] != port:
        return False
    try:
        wanted = socket.getaddrinfo(host, port, family=sock.family, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return any(each[4][0] == found[0] for each in wanted)

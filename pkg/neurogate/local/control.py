"""A running `neurogate up` is told by another process to restart its fleet, and tells how that goes.

One Unix socket in the run's directory, which is its user's alone; one line `rolling`, and lines of JSON back.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from neurogate.gateway.handover import address_of
from neurogate.local.keeper import Say

ROLLING = b"rolling\n"
_ASKED_S = 5.0

Roll = Callable[[Say], Awaitable[bool]]


class Told(msgspec.Struct, omit_defaults=True):
    """One line of the answer."""

    say: str = ""
    ok: bool | None = None
    """In the last line: whether all went well."""


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """The socket, there for as long as the context. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        with address_of(path) as address:
            listener.bind(address)
        path.chmod(0o600)
        listener.listen()
        listener.setblocking(False)  # noqa: FBT003 - the standard library's
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


async def serve(listener: socket.socket, roll: Roll) -> None:
    """Do what is asked, for ever. Who asked may leave: what has begun goes on."""
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        while True:
            connection, _ = await loop.sock_accept(listener)
            tasks.create_task(_answer(connection, roll), name="control-call")


async def ask_to_roll(directory: Path, control: str) -> AsyncGenerator[Told, None]:
    """What the fleet of the directory tells of its restart. Raises OSError when it does not answer."""
    asking = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with address_of(directory / control) as address:
        asking.connect(address)
    reader, writer = await asyncio.open_unix_connection(sock=asking)
    try:
        writer.write(ROLLING)
        while line := await reader.readline():
            yield msgspec.json.decode(line, type=Told)
    finally:
        writer.close()


async def _answer(connection: socket.socket, roll: Roll) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=connection)

    def tell(told: Told) -> None:
        if not writer.is_closing():
            writer.write(msgspec.json.encode(told) + b"\n")

    try:
        async with asyncio.timeout(_ASKED_S):
            asked = await reader.readline()
        if asked == ROLLING:
            tell(Told(ok=await roll(lambda line: tell(Told(say=line)))))
        with suppress(OSError):
            await writer.drain()
    except (TimeoutError, ValueError, OSError):
        return  # it asked for nothing
    finally:
        writer.close()

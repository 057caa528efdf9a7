"""Where gRPC's own server listens inside a worker, for the connections that the front passes on."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

import grpc
import grpc.aio


class BackDoor:
    """A Unix socket that nobody else finds by chance: abstract on Linux, in a folder of its own elsewhere.

    An abstract one needs no file system that can be written, and leaves nothing behind however the process ends.
    """

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._address: str = ""
        self._numbers = itertools.count(1)

    def open(self, server: grpc.aio.Server) -> None:
        """Let the server listen there. Raises OSError."""
        if sys.platform == "linux":
            name = f"neurogate-{secrets.token_hex(8)}"
            self._address, target = f"\0{name}", f"unix-abstract:{name}"
        else:
            self._folder = tempfile.TemporaryDirectory(prefix="ng-")
            self._address = str(Path(self._folder.name) / "grpc")
            target = f"unix:{self._address}"
        try:
            server.add_insecure_port(target)
        except RuntimeError as error:
            self.close()
            raise OSError(f"cannot listen on a Unix socket for gRPC's server: {error}") from error

    async def connect(self, protocol: Callable[[], asyncio.Protocol], peer: str) -> None:
        """Connect to the server on behalf of `peer`. Raises OSError."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)  # noqa: FBT003 - the standard library's
            if self._folder is None:
                self._name(connection, peer)
            connection.connect(self._address)
            await asyncio.get_running_loop().create_unix_connection(protocol, sock=connection)
        except BaseException:
            connection.close()
            raise

    def _name(self, connection: socket.socket, peer: str) -> None:
        """So that gRPC tells who it is. One port of a client's may have a connection to each of our addresses."""
        with suppress(OSError):  # better no name than no connection
            connection.bind(f"{self._address}/{peer}/{next(self._numbers)}")

    def close(self) -> None:
        """Leave nothing behind. Idempotent."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def client_of(peer: str) -> str:
    """Who a connection through the door is for, by what gRPC calls its peer; every other peer is who it is."""
    if not peer.startswith("unix-abstract:neurogate-"):
        return peer
    return unquote(peer.partition("/")[2]).partition("/")[0]

"""A gateway takes over from the one that runs: the old one serves until the new one does, and then drains (ADR 0021).

Whoever owns the path is the gateway that may be taken over from. A new owner's socket is renamed over the old one's, so
that the path never names nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import structlog

from neurogate.dataplane.pool import EndpointPool
from neurogate.errors import ConfigError
from neurogate.gateway import handover
from neurogate.gateway.handover import (
    DRAINING,
    READY,
    Offer,
    TakeoverError,
    address_of,
    give,
    is_ours,
    receive,
)

_ANSWER_S = 10.0
"""How long the other side may take to say the next word, where it has nothing to do first."""
LINKS_S = 10.0
"""How long a new gateway waits for its links."""
_AGAIN_S = 1.0
_START_S = 300.0
"""How long a new gateway may take to start before another one may try."""

_log = structlog.get_logger("neurogate.takeover")


def place(takeover_socket: str) -> Path | None:
    """The path that the setting names; None where it is off. Raises ConfigError where there can be none."""
    if not takeover_socket:
        return None
    if lack := handover.lacking():
        raise ConfigError(f"NEUROGATE_TAKEOVER_SOCKET: gateways take over from each other on Linux only: {lack}")
    path = Path(takeover_socket)
    if not path.parent.is_dir():
        raise ConfigError(f"NEUROGATE_TAKEOVER_SOCKET: there is no directory {path.parent}")
    return path


class Predecessor:
    """The gateway that runs, for one that starts."""

    def __init__(self, connection: socket.socket, offer: Offer) -> None:
        self._connection = connection
        self.offer = offer

    async def drain(self) -> None:
        """Tell it that we serve; returns when it takes no more connections. It may be gone, which is as good."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_ANSWER_S):
                await loop.sock_sendall(self._connection, READY)
                await loop.sock_recv(self._connection, len(DRAINING))
        except OSError as error:
            _log.warning("the gateway before did not say that it drains", pid=self.offer.pid, error=str(error))

    def close(self) -> None:
        """Let go of it, and of what it offered that nobody took. Before `drain` that makes it go on. Idempotent."""
        self._connection.close()
        self.offer.close()


async def find(path: Path) -> Predecessor | None:
    """The gateway that owns the path; None when nobody does.

    Raises TakeoverError when there is one that cannot be taken over from.
    """
    connection = _unix_socket()
    try:
        async with asyncio.timeout(_ANSWER_S):
            if _connect(connection, path):
                return Predecessor(connection, await receive(connection))
    except BaseException as error:
        connection.close()
        if isinstance(error, OSError):
            told = str(error) or f"no answer for {_ANSWER_S:g} s"
            raise TakeoverError(f"cannot take over at {path} (NEUROGATE_TAKEOVER_SOCKET): {told}") from error
        raise
    connection.close()
    return None


async def as_usable(pool: EndpointPool, wanted: int, timeout_s: float = LINKS_S) -> None:
    """Wait until so many workers can be used, or all there are; when time is over, any will do.

    Raises TakeoverError when there is none although some are wanted: whoever has them must go on.
    """
    published = asyncio.Event()

    def usable() -> int:
        return sum(member.usable for member in pool.snapshot.members)

    try:
        async with asyncio.timeout(timeout_s):
            while usable() < min(wanted, len(pool.snapshot.members)):
                published.clear()
                pool.wait(published.set)
                await published.wait()
    except TimeoutError:
        _log.warning("fewer workers than the gateway before has", usable=usable(), before=wanted)
    finally:
        pool.unwait(published.set)
    if wanted and not usable():
        raise TakeoverError(f"no worker can be used after {timeout_s:g} s, and the running gateway has {wanted}")


class Owner:
    """Owns the path, and hands over to whoever comes first and serves."""

    def __init__(self, path: Path, offer: Callable[[], Offer], on_taken: Callable[[], None]) -> None:
        """`offer` is made for each who asks, and its sockets stay ours; `on_taken` begins to drain, at once."""
        self._path = path
        self._offer = offer
        self._on_taken = on_taken
        self._listener: socket.socket | None = None
        self._inode = 0

    def claim(self) -> None:
        """Be found under the path from now on, whoever was before. Raises OSError when the path cannot be had."""
        path = self._path
        if path.exists() and not path.is_socket():
            raise OSError(f"cannot listen on {path} (NEUROGATE_TAKEOVER_SOCKET): there is a file of that name")
        own = path.with_name(f"{path.name}.{os.getpid()}")
        self._listener = listener = _unix_socket()
        try:
            own.unlink(missing_ok=True)
            with address_of(own) as address:
                listener.bind(address)
            own.chmod(0o600)
            listener.listen()
            self._inode = own.stat().st_ino
            own.rename(path)
        except OSError as error:
            self.close()
            own.unlink(missing_ok=True)
            raise OSError(f"cannot listen on {path} (NEUROGATE_TAKEOVER_SOCKET): {error.strerror or error}") from error

    async def run(self) -> None:
        """Hand over when asked. Returns once a new gateway serves; one that fails before changes nothing."""
        loop = asyncio.get_running_loop()
        try:
            while self._listener is not None:
                try:
                    connection, _ = await loop.sock_accept(self._listener)
                except OSError:  # too many files are open, for example
                    await asyncio.sleep(_AGAIN_S)
                    continue
                with connection:
                    if await self._hand_over(connection):
                        return
                if not self._is_found():  # it had claimed the path before it ended
                    self.close()
                    self.claim()
        except OSError as error:
            _log.error("nobody can take over from this gateway any more", reason=str(error))
        finally:
            self.close()

    def close(self) -> None:
        """Own the path no more. Idempotent."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        listener.close()
        if self._is_found():  # else it is another's by now
            self._path.unlink(missing_ok=True)

    async def _hand_over(self, connection: socket.socket) -> bool:
        """Whether the other side serves now."""
        loop = asyncio.get_running_loop()
        if not is_ours(connection):
            _log.warning("another user's process asked for the listeners")
            return False
        _log.info("a gateway starts that will take over")
        reason = "it ended before it served"
        try:
            give(connection, self._offer())
            async with asyncio.timeout(_START_S):
                if await loop.sock_recv(connection, len(READY)) == READY:
                    self._on_taken()
                    with contextlib.suppress(OSError):  # it needs no answer
                        connection.send(DRAINING)
                    return True
        except TimeoutError:
            reason = f"it did not serve within {_START_S:g} s"
        except OSError as error:
            reason = str(error)
        _log.warning("no gateway took over; this one goes on", reason=reason)
        return False

    def _is_found(self) -> bool:
        try:
            return self._path.stat().st_ino == self._inode
        except OSError:
            return False


def _unix_socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.setblocking(False)  # noqa: FBT003 - the standard library's
    return made


def _connect(connection: socket.socket, path: Path) -> bool:
    """Whether somebody is there. Raises OSError when it is not one of ours, or there is no telling."""
    try:
        with address_of(path) as address:
            connection.connect(address)
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    if not is_ours(connection):
        raise TakeoverError("it belongs to another user's process")
    return True

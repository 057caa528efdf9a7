"""The gateways that are linked to a worker, whatever carries their links."""

from __future__ import annotations

import asyncio

import structlog

from neurogate.rpc.backend import WorkerBackend
from neurogate.rpc.link_server import LinkServerSettings, LinkSession, LinkWire

_log = structlog.get_logger("neurogate.link")


class LinkSessions:
    """Counts and tells all of them."""

    def __init__(
        self, backend: WorkerBackend, settings: LinkServerSettings, *, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._backend = backend
        self._settings = settings
        self._loop = loop
        self._open: dict[LinkSession, str] = {}

    def __len__(self) -> int:
        """Gateways connected."""
        return len(self._open)

    @property
    def active(self) -> int:
        """Calls held for all of them."""
        return sum(session.active for session in self._open)

    def refresh(self) -> None:
        """Tell every gateway at once how the worker is."""
        for session in self._open:
            session.refresh()

    async def flushed(self) -> None:
        """Wait until every gateway has been written what was said so far."""
        for session in tuple(self._open):
            await session.flushed()

    def open(self, wire: LinkWire, peer: str) -> LinkSession:
        """A session on a wire."""
        session = LinkSession(
            self._backend,
            self._settings,
            wire,
            loop=self._loop,
            on_hello=lambda gateway_id: _log.info("gateway linked", gateway=gateway_id, peer=peer),
        )
        self._open[session] = peer
        return session

    def close(self, session: LinkSession) -> None:
        """It ends, if it has not, and counts no more."""
        session.end()
        _log.info("gateway left", peer=self._open.pop(session))

"""How a worker stops taking requests: it says so first, and refuses when nobody can have missed it (ADR 0021)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Protocol

TOLD_S = 2.0
"""How long gateways may take to be told: one that hangs must not hold up the others."""


class Drainable(Protocol):
    """The worker."""

    @property
    def draining(self) -> bool:
        """Whether it said that nothing new should come."""
        ...

    @property
    def active(self) -> int:
        """Requests held now."""
        ...

    def announce_drain(self) -> None:
        """Say that nothing new should come; what comes is taken all the same."""
        ...

    def drain(self) -> None:
        """Take nothing new."""
        ...

    def undrain(self) -> None:
        """Take that back."""
        ...


class Gateways(Protocol):
    """Those that are linked."""

    def refresh(self) -> None:
        """Tell them at once how the worker is."""
        ...

    async def flushed(self) -> None:
        """Wait until they have been written all that was said."""
        ...


class Draining:
    """Drains one worker, and takes it back."""

    def __init__(self, worker: Drainable, gateways: Gateways) -> None:
        self._worker = worker
        self._gateways = gateways

    @property
    def active(self) -> int:
        """Requests the worker holds."""
        return self._worker.active

    async def drain(self, *, grace_s: float) -> None:
        """Returns `grace_s` after its gateways were told, when the worker takes nothing new; or that was undone."""
        self._worker.announce_drain()
        self._gateways.refresh()
        with suppress(TimeoutError):
            async with asyncio.timeout(TOLD_S):
                await self._gateways.flushed()
        if grace_s:
            await asyncio.sleep(grace_s)
        if self._worker.draining:
            self._worker.drain()

    def undrain(self) -> None:
        """Take requests again."""
        self._worker.undrain()
        self._gateways.refresh()

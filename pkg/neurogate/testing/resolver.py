"""A resolver that names the workers its owner tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from neurogate.endpoint import Endpoint


class ManualResolver:
    """A `Resolver`. Every set is complete, so a watcher that was busy meanwhile sees only the latest."""

    def __init__(self) -> None:
        self._endpoints: tuple[Endpoint, ...] = ()
        self._generation = 0
        self._finished = False
        self._changed = asyncio.Event()

    def publish(self, *endpoints: Endpoint) -> None:
        """Name the complete set."""
        self._endpoints = endpoints
        self._generation += 1
        self._wake()

    def finish(self) -> None:
        """Declare that the set never changes again: watchers end after the latest one."""
        self._finished = True
        self._wake()

    async def watch(self) -> AsyncIterator[tuple[Endpoint, ...]]:
        """The latest set, if there is one, and every later one."""
        seen = 0
        while True:
            if seen != self._generation:
                seen = self._generation
                yield self._endpoints
            elif self._finished:
                return
            else:
                await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

"""Follows all sources at once, each in a task of its own, and puts what they find on the list.

A source that breaks costs nobody but itself: what it found stays, and it is followed anew by a new resolver.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from neurogate.discovery.listed import ListedResolver
from neurogate.discovery.resolver import Resolver, SourceObserver
from neurogate.discovery.sources import Source

BROKEN_PAUSE_S = 5.0
"""How long a source that broke is left alone."""

Make = Callable[[Source], Resolver]


class Following:
    """Sources of workers that change by themselves."""

    def __init__(
        self, listed: ListedResolver, make: Make, sources: Sequence[Source], *, observer: SourceObserver
    ) -> None:
        self._listed = listed
        self._make = make
        self._sources = tuple(sources)
        self._observer = observer
        self._changed = asyncio.Event()
        self._silent = {source.text for source in sources}
        """Those that have not named a set yet."""
        self._heard = asyncio.Event()
        self._tell_heard()

    def configure(self, make: Make, sources: Sequence[Source]) -> None:
        """Follow others. Those that stay are asked anew, and what they have found stays until they answer."""
        self._make, self._sources = make, tuple(sources)
        self._silent &= {source.text for source in sources}
        self._tell_heard()
        self._changed.set()

    async def heard(self, timeout_s: float) -> None:
        """Wait until each source has named a set, but no longer than that: whoever is late comes later."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._heard.wait()
        except TimeoutError:
            return

    async def run(self) -> None:
        """Follow them until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            running: dict[str, asyncio.Task[None]] = {}
            while True:
                self._changed.clear()
                before, running = running, {}
                for task in before.values():
                    task.cancel()
                for source in self._sources:
                    running[source.text] = tasks.create_task(self._follow(source), name=source.text)
                for text in before.keys() - running.keys():
                    self._listed.offer(text, ())
                    self._observer.forgotten(text)
                await self._changed.wait()

    async def _follow(self, source: Source) -> None:
        while True:
            try:
                async for endpoints in self._make(source).watch():
                    self._listed.offer(source.text, endpoints)
                    self._silent.discard(source.text)
                    self._tell_heard()
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not end a gateway that serves
                self._observer.broke(source.text, error)
                await asyncio.sleep(BROKEN_PAUSE_S)
            else:
                return

    def _tell_heard(self) -> None:
        if not self._silent:
            self._heard.set()

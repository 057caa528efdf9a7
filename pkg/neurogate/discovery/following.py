"""Follows all sources at once, each in a task of its own, and puts what they find on the list.

A source that breaks costs nobody but itself: what it found stays, and it is followed anew by a new resolver.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from neurogate.discovery.listed import ListedResolver
from neurogate.discovery.resolver import Resolver, SourceObserver
from neurogate.discovery.sources import Source
from neurogate.endpoint import Endpoint

BROKEN_PAUSE_S = 5.0
"""How long a source that broke is left alone."""


class Maker(Protocol):
    """Makes the resolvers of sources."""

    def settings_of(self, source: Source) -> object:
        """What matters to its resolver; while that is equal, the one there is goes on."""
        ...

    def make(self, source: Source, known: tuple[Endpoint, ...]) -> Resolver:
        """One that begins with what is known of the source: doubts that nobody is left, and says only what is new."""
        ...


class Following:
    """Sources of workers that change by themselves."""

    def __init__(
        self, listed: ListedResolver, maker: Maker, sources: Sequence[Source], *, observer: SourceObserver
    ) -> None:
        self._listed = listed
        self._maker = maker
        self._sources = tuple(sources)
        self._observer = observer
        self._changed = asyncio.Event()
        self._silent = {source.text for source in sources}
        """Those that have not named a set yet."""
        self._heard = asyncio.Event()
        self._tell_heard()

    def configure(self, maker: Maker, sources: Sequence[Source]) -> None:
        """Follow others. Those that stay with other settings are asked anew, beginning with what they have found."""
        self._maker, self._sources = maker, tuple(sources)
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
            running: dict[str, tuple[object, asyncio.Task[None]]] = {}
            while True:
                self._changed.clear()
                wanted = {source.text: self._maker.settings_of(source) for source in self._sources}
                for text, (settings, task) in list(running.items()):
                    if text not in wanted or wanted[text] != settings:
                        task.cancel()
                        del running[text]
                    if text not in wanted:
                        self._listed.offer(text, ())
                        self._observer.forgotten(text)
                for source in self._sources:
                    if source.text not in running:
                        task = tasks.create_task(self._follow(source), name=source.text)
                        running[source.text] = wanted[source.text], task
                await self._changed.wait()

    async def _follow(self, source: Source) -> None:
        while True:
            try:
                known = self._listed.offered(source.text)
                async for endpoints in self._maker.make(source, known).watch():
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

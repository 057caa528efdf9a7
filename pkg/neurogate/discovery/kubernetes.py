"""Workers by Kubernetes: the pods behind a Service, listed once and then followed.

The list has a version, and what happened after it is told as it happens; where that cannot be told any more, because
it is too long ago or the connection broke, the list is asked for anew. What was found before stays meanwhile.

Pods that end, as they do when a Service is scaled to nobody, are gone at once. Where there is suddenly no endpoint at
all, as while a Service is replaced, that is believed after a minute, when a new list says so too.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from neurogate.discovery.resolver import EMPTY_S, SourceObserver, SourceUnavailableError
from neurogate.discovery.slices import EndpointSlice, workers
from neurogate.discovery.sources import KubernetesSource
from neurogate.endpoint import Endpoint

PAUSE_FIRST_S = 0.25
PAUSE_MAX_S = 10.0
STEADY_S = 1.0
"""A watch that ends sooner, and told nothing, is a failure."""


@dataclass(frozen=True, slots=True)
class Listing:
    """All slices of a Service, as they were at a version."""

    slices: tuple[EndpointSlice, ...]
    version: str


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to a slice."""

    version: str
    slice: EndpointSlice | None
    """None when nothing did, and only time went on (a bookmark)."""
    deleted: bool = False


class VersionGoneError(Exception):
    """What happened since that version is not known any more (410 Gone): list anew."""


class SliceApi(Protocol):
    """Asks Kubernetes for the slices of one Service."""

    async def slices(self) -> Listing:
        """All of them, now. Raises SourceUnavailableError."""
        ...

    def changes(self, version: str) -> AsyncIterator[Change]:
        """What happens after a version, until the server ends it, as it does every minute or so.

        Raises VersionGoneError and SourceUnavailableError.
        """
        ...


class KubernetesResolver:
    """A `Resolver`."""

    def __init__(
        self,
        source: KubernetesSource,
        api: SliceApi,
        *,
        observer: SourceObserver,
        loop: asyncio.AbstractEventLoop,
        rng: random.Random,
        known: tuple[Endpoint, ...] = (),
    ) -> None:
        """`known` is what was found of the source before, by another one of its resolvers."""
        self._source = source
        self._api = api
        self._observer = observer
        self._loop = loop
        self._rng = rng
        self._known = known
        self._slices: dict[str, EndpointSlice] = {}
        self._failures = 0
        self._believed_at: float | None = None
        """When it will be believed that there is nobody (loop time); None while there is no such doubt."""

    async def watch(self) -> AsyncIterator[tuple[Endpoint, ...]]:
        """The set when it is known first, and whenever it has changed. For one follower."""
        known = self._known or None
        self._slices, self._failures = {}, 0
        version = ""
        while True:
            try:
                if not version:
                    listing = await self._api.slices()
                    version = listing.version
                    self._slices = {slice_.metadata.name: slice_ for slice_ in listing.slices}
                    if (found := self._workers(known)) is not None and found != known:
                        known = found
                        yield found
                began = self._loop.time()
                told = False
                async for change in self._changes(version):
                    version, told, self._failures = change.version or version, True, 0
                    self._take(change)
                    if change.slice is not None and (found := self._workers(known)) is not None and found != known:
                        known = found
                        yield found
                if not told and self._loop.time() - began < STEADY_S:
                    raise SourceUnavailableError("the API server ends every watch at once")  # noqa: TRY301 - as any
                self._failures = 0
            except TimeoutError:  # a doubt is over
                version = ""
            except VersionGoneError:
                version = ""
                await self._pause()
            except SourceUnavailableError as error:
                version = ""
                self._observer.failed(self._source.text, str(error))
                await self._pause()

    async def _changes(self, version: str) -> AsyncIterator[Change]:
        """What happens, until the server ends it. Raises TimeoutError when a doubt is over, and as `changes` does."""
        changes = self._api.changes(version)
        while True:
            async with asyncio.timeout_at(self._believed_at):
                change = await anext(changes, None)
            if change is None:
                return
            yield change

    def _take(self, change: Change) -> None:
        if change.slice is None:
            return
        if change.deleted:
            self._slices.pop(change.slice.metadata.name, None)
        else:
            self._slices[change.slice.metadata.name] = change.slice

    def _workers(self, known: tuple[Endpoint, ...] | None) -> tuple[Endpoint, ...] | None:
        """Who there is; as before when the slices have no such port, which is told, and while emptiness is doubted."""
        nobody = not any(slice_.endpoints for slice_ in self._slices.values())
        if not (nobody and known):
            self._believed_at = None
        elif self._believed_at is None:
            self._believed_at = self._loop.time() + EMPTY_S
        try:
            found = workers(self._slices.values(), self._source.port, known or ())
        except SourceUnavailableError as error:
            self._observer.failed(self._source.text, str(error))
            return known
        self._observer.found(self._source.text, len(found))
        if self._believed_at is None:
            return found
        if self._loop.time() < self._believed_at:
            return known
        self._believed_at = None
        return found

    async def _pause(self) -> None:
        pause_s = min(PAUSE_MAX_S, PAUSE_FIRST_S * 2 ** min(self._failures, 10))
        self._failures += 1
        await asyncio.sleep(pause_s * self._rng.uniform(0.5, 1.0))

"""Who is asked for workers, in memory: names, slices, and an observer that remembers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import msgspec

from neurogate.discovery.dns import Answer, Kind, Record
from neurogate.discovery.kubernetes import Change, Listing, VersionGoneError
from neurogate.discovery.resolver import SourceUnavailableError
from neurogate.discovery.slices import EndpointSlice

_HISTORY = 1000


class RecordingSourceObserver:
    """A `SourceObserver`."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, int | str]] = []
        """(what, source, workers or reason) of all that was told."""

    @property
    def reasons(self) -> list[str]:
        """Why there was no answer, each time."""
        return [str(detail) for what, _, detail in self.heard if what == "failed"]

    def found(self, source: str, endpoints: int) -> None:
        """Remember an answer."""
        self.heard.append(("found", source, endpoints))

    def failed(self, source: str, reason: str) -> None:
        """Remember a failure."""
        self.heard.append(("failed", source, reason))

    def broke(self, source: str, error: Exception) -> None:
        """Remember a fault."""
        self.heard.append(("broke", source, str(error)))

    def forgotten(self, source: str) -> None:
        """Remember that it is not asked any more."""
        self.heard.append(("forgotten", source, ""))


class FakeNames:
    """A `Lookup` whose zone can be changed at any time."""

    def __init__(self, *, ttl_s: float = 5.0) -> None:
        self.ttl_s = ttl_s
        self.zone: dict[tuple[str, Kind], tuple[Record, ...]] = {}
        self.failing: str = ""
        """Why nobody answers, while it is not empty."""
        self.hangs = False
        """Never answer."""
        self.failing_kinds: set[Kind] = set()
        """Questions that fail while others are answered."""
        self.asked: list[tuple[float, str, Kind]] = []
        """(loop time, name, kind) of every question."""

    def put(self, name: str, kind: Kind, records: Iterable[Record | str]) -> None:
        """Replace the records of a name; text is the host of one without a port."""
        self.zone[name, kind] = tuple(record if isinstance(record, Record) else Record(record) for record in records)

    async def __call__(self, name: str, kind: Kind) -> Answer:
        """What the zone says now."""
        self.asked.append((asyncio.get_running_loop().time(), name, kind))
        if self.hangs:
            await asyncio.Event().wait()
        if self.failing or kind in self.failing_kinds:
            raise SourceUnavailableError(self.failing or f"{kind}: SERVFAIL")
        return Answer(self.zone.get((name, kind), ()), self.ttl_s)


def pod(
    name: str,
    address: str,
    *,
    ready: bool | None = True,
    terminating: bool | None = None,
    uid: str = "",
) -> dict[str, object]:
    """An endpoint of a slice, as Kubernetes has it in JSON."""
    return {
        "addresses": [address],
        "conditions": {"ready": ready, "serving": ready, "terminating": terminating},
        "targetRef": {"kind": "Pod", "name": name, "namespace": "neurogate", "uid": uid or f"uid-of-{name}"},
    }


def slice_object(
    name: str,
    endpoints: Iterable[dict[str, object]],
    *,
    family: str = "IPv4",
    ports: Iterable[tuple[str, int]] = (("grpc", 50051),),
) -> dict[str, object]:
    """A slice, as Kubernetes has it in JSON, without a version."""
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "workers"}},
        "addressType": family,
        "endpoints": list(endpoints),
        "ports": [{"name": label, "port": port, "protocol": "TCP"} for label, port in ports],
    }


class SliceStore:
    """The slices of one Service with their history, as the store behind an API server keeps them."""

    def __init__(self) -> None:
        self.version = 1
        self.objects: dict[str, dict[str, object]] = {}
        self.history: list[tuple[int, str, dict[str, object]]] = []
        """(version, type of event, object) of what happened; versions before the first are gone."""
        self.changed = asyncio.Event()

    def put(self, object_: dict[str, object]) -> None:
        """Add a slice, or replace the one of its name."""
        name = _name(object_)
        self._happened("MODIFIED" if name in self.objects else "ADDED", object_)
        self.objects[name] = object_

    def delete(self, name: str) -> None:
        """Take a slice away."""
        self._happened("DELETED", self.objects.pop(name))

    def bookmark(self) -> None:
        """Let time go on without anything that matters."""
        self._happened("BOOKMARK", {"metadata": {}})

    def compact(self) -> None:
        """Forget what happened."""
        self.version += 1
        self.history.clear()
        self._wake()

    def since(self, version: int) -> list[tuple[int, str, dict[str, object]]] | None:
        """What happened after a version; None when that is not known any more."""
        oldest = self.history[0][0] - 1 if self.history else self.version
        return [event for event in self.history if event[0] > version] if version >= oldest else None

    def _happened(self, kind: str, object_: dict[str, object]) -> None:
        self.version += 1
        metadata = {**dict(object_["metadata"]), "resourceVersion": str(self.version)}  # type: ignore[call-overload]
        self.history.append((self.version, kind, {**object_, "metadata": metadata}))
        del self.history[:-_HISTORY]
        self._wake()

    def _wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class FakeSlices:
    """A `SliceApi` on a `SliceStore`."""

    def __init__(self, store: SliceStore) -> None:
        self.store = store
        self.failing = ""
        """Why nobody answers, while it is not empty; watches break on it too."""
        self.ending = asyncio.Event()
        self.listed: list[float] = []
        """Loop time of every list."""
        self.watched: list[tuple[float, str]] = []
        """(loop time, version) of every watch."""

    def end_watches(self) -> None:
        """End every watch, as a server does from time to time."""
        self.ending.set()
        self.ending = asyncio.Event()
        self.store.changed.set()
        self.store.changed = asyncio.Event()

    async def slices(self) -> Listing:
        """All slices."""
        self.listed.append(asyncio.get_running_loop().time())
        if self.failing:
            raise SourceUnavailableError(self.failing)
        slices = tuple(msgspec.convert(object_, EndpointSlice) for object_ in self.store.objects.values())
        return Listing(slices, str(self.store.version))

    async def changes(self, version: str) -> AsyncIterator[Change]:
        """What happens."""
        self.watched.append((asyncio.get_running_loop().time(), version))
        seen, ending = int(version), self.ending
        while not ending.is_set():
            if self.failing:
                raise SourceUnavailableError(self.failing)
            changed = self.store.changed
            events = self.store.since(seen)
            if events is None:
                raise VersionGoneError
            for seen, kind, object_ in events:
                slice_ = None if kind == "BOOKMARK" else msgspec.convert(object_, EndpointSlice)
                yield Change(str(seen), slice_, deleted=kind == "DELETED")
            if not events:
                await changed.wait()


def _name(object_: dict[str, object]) -> str:
    return str(msgspec.convert(object_, EndpointSlice).metadata.name)

"""A list of workers that can be changed while it is followed.

It has several owners: the configuration, which names a whole list; sources such as DNS or Kubernetes, which offer what
they have found; and an admin, who adds and removes one worker at a time. What the admin did outlasts a change of the
others' lists. A worker keeps its name for as long as its address is listed, so that a change of the list moves nobody
who is still in it; a source that knows a name, that of a pod, decides it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence

from neurogate.discovery.addresses import is_address, not_an_address, wrong
from neurogate.endpoint import Endpoint
from neurogate.errors import BadRequestError, ConfigError, WorkerExistsError, WorkerNotFoundError


class ListedResolver:
    """A `Resolver`: names addresses worker-0, worker-1, ... in the order in which they came, unless they have names.

    Raises ConfigError for an address that is not host:port, or that is listed twice.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._configured: tuple[str, ...] = ()
        self._offers: dict[str, tuple[Endpoint, ...]] = {}
        """What each source has found."""
        self._added: dict[str, None] = {}
        self._removed: set[tuple[str, str]] = set()
        """The address and the own name of each worker that an admin took off."""
        self._own: dict[str, str] = {}
        """The own name of each address that is listed now, empty without one: as its source calls it."""
        self._names: dict[str, str] = {}
        """The name of each of them here: its own, unless another one has it."""
        self._changed = asyncio.Event()
        self.configure(addresses)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The complete set, now."""
        return tuple(Endpoint(name, address) for address, name in self._names.items())

    def configure(self, addresses: Sequence[str]) -> None:
        """Name the configuration's list. An address that an admin removed stays out while it is still in that list.

        Raises ConfigError as the constructor does, having changed nothing.
        """
        for problem in wrong(addresses):
            raise ConfigError(f"WORKER_ADDRESSES: {problem}")
        self._configured = tuple(addresses)
        self._publish()

    def offer(self, source: str, endpoints: Sequence[Endpoint]) -> None:
        """Name all that a source has found, by the names that it has for them; a source that has nothing is forgotten.

        An address that two have found is one worker, called as the first of them calls it.
        """
        self._offers[source] = tuple(endpoints)
        if not endpoints:
            del self._offers[source]
        self._publish()

    def offered(self, source: str) -> tuple[Endpoint, ...]:
        """All that a source has found, as it offered it last."""
        return self._offers.get(source, ())

    def add(self, address: str) -> Endpoint:
        """Add a worker; one that was removed comes back.

        Raises BadRequestError for what is no address and WorkerExistsError for one that is listed.
        """
        if not is_address(address):
            raise BadRequestError(not_an_address(address), param="address")
        if address in self._names:
            raise WorkerExistsError(f"{address} is {self._names[address]} already")
        self._removed = {removed for removed in self._removed if removed[0] != address}
        if address not in self._found():
            self._added[address] = None
        self._publish()
        return Endpoint(self._names[address], address)

    def remove(self, worker_id: str) -> Endpoint:
        """Take a worker off the list. Raises WorkerNotFoundError when it is not on it."""
        for address, name in self._names.items():
            if name == worker_id:
                self._added.pop(address, None)
                if address in (found := self._found()):
                    self._removed.add((address, found[address]))
                self._publish()
                return Endpoint(name, address)
        raise WorkerNotFoundError(
            f"there is no worker {worker_id!r}; the workers are: {', '.join(self._names.values())}"
        )

    async def watch(self) -> AsyncIterator[tuple[Endpoint, ...]]:
        """The set as it is and after each change; whoever was busy meanwhile gets only the latest."""
        seen: tuple[Endpoint, ...] | None = None
        while True:
            if seen != self.endpoints:
                seen = self.endpoints
                yield seen
            else:
                await self._changed.wait()

    def _found(self) -> dict[str, str]:
        """The own name of each address that the configuration or a source names."""
        found = dict.fromkeys(self._configured, "")
        for endpoints in self._offers.values():
            for endpoint in endpoints:
                found.setdefault(endpoint.address, endpoint.id)
        return found

    def _publish(self) -> None:
        found = self._found()
        self._removed.intersection_update(found.items())
        own = {address: name for address, name in found.items() if (address, name) not in self._removed}
        own |= {address: "" for address in self._added if address not in own}
        kept = {address: name for address, name in self._names.items() if own.get(address) == self._own[address]}
        given_up = set(self._names.values())  # one that is given up now may still have requests to finish
        taken = set(kept.values())
        for address, name in own.items():
            if address not in kept:
                kept[address] = next(
                    free for free in _names(name) if free not in taken and (name or free not in given_up)
                )
                taken.add(kept[address])
        self._own, self._names = own, {address: kept[address] for address in own}
        self._changed.set()
        self._changed = asyncio.Event()


def _names(own: str) -> Iterator[str]:
    """What a worker may be called, best first."""
    if own:
        yield own
        yield from (f"{own}-{number}" for number in itertools.count(2))
    else:
        yield from (f"worker-{number}" for number in itertools.count())

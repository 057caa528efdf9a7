"""A list of workers that can be changed while it is followed.

It has two owners: the configuration, which names a whole list, and an admin, who adds and removes one worker at a time.
What the admin did outlasts a change of the configuration's list. A worker keeps its name for as long as its address is
listed, so that a change of the list moves nobody who is still in it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence

from neurogate.discovery.addresses import is_address, not_an_address, wrong
from neurogate.endpoint import Endpoint
from neurogate.errors import BadRequestError, ConfigError, WorkerExistsError, WorkerNotFoundError


class ListedResolver:
    """A `Resolver`: names addresses worker-0, worker-1, ... in the order in which they came.

    Raises ConfigError for an address that is not host:port, or that is listed twice.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._configured: tuple[str, ...] = ()
        self._added: dict[str, None] = {}
        self._removed: set[str] = set()
        self._names: dict[str, str] = {}
        """The name of each address that is listed now."""
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
        self._removed &= set(addresses)
        self._publish()

    def add(self, address: str) -> Endpoint:
        """Add a worker; one that was removed comes back.

        Raises BadRequestError for what is no address and WorkerExistsError for one that is listed.
        """
        if not is_address(address):
            raise BadRequestError(not_an_address(address), param="address")
        if address in self._names:
            raise WorkerExistsError(f"{address} is {self._names[address]} already")
        self._removed.discard(address)
        if address not in self._configured:
            self._added[address] = None
        self._publish()
        return Endpoint(self._names[address], address)

    def remove(self, worker_id: str) -> Endpoint:
        """Take a worker off the list. Raises WorkerNotFoundError when it is not on it."""
        for address, name in self._names.items():
            if name == worker_id:
                self._added.pop(address, None)
                if address in self._configured:
                    self._removed.add(address)
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

    def _publish(self) -> None:
        listed = dict.fromkeys(
            [*(address for address in self._configured if address not in self._removed), *self._added]
        )
        names = {address: name for address, name in self._names.items() if address in listed}
        taken = set(self._names.values())  # a name that is given up now may still have requests to finish
        free = (name for name in (f"worker-{number}" for number in itertools.count()) if name not in taken)
        self._names = {address: names.get(address) or next(free) for address in listed}
        self._changed.set()
        self._changed = asyncio.Event()

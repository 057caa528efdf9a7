"""A fixed list of workers, from WORKER_ADDRESSES."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from neurogate.endpoint import Endpoint
from neurogate.errors import ConfigError


class StaticResolver:
    """Names the addresses worker-0, worker-1, ... in the order given.

    Raises ConfigError for an address that is not host:port, or that is listed twice.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        for address in addresses:
            host, colon, port = address.rpartition(":")
            if not (colon and host and port.isdecimal() and 0 < int(port) < 65536):
                raise ConfigError(f"WORKER_ADDRESSES: {address!r} is not host:port, for example localhost:50051")
        if len(set(addresses)) != len(addresses):
            raise ConfigError("WORKER_ADDRESSES: an address is listed twice; each worker once is enough")
        self._endpoints = tuple(Endpoint(f"worker-{index}", address) for index, address in enumerate(addresses))

    async def watch(self) -> AsyncIterator[tuple[Endpoint, ...]]:
        """One complete set; it never changes."""
        yield self._endpoints

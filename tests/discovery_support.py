"""Following a resolver on virtual time: the sets it named, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from neurogate.discovery.resolver import Resolver
from neurogate.endpoint import Endpoint


class Seen:
    """What a follower saw."""

    def __init__(self) -> None:
        self.sets: list[tuple[Endpoint, ...]] = []
        self.times: list[float] = []
        """Loop time of each."""

    @property
    def last(self) -> dict[str, str]:
        """Addresses by name."""
        return {endpoint.id: endpoint.address for endpoint in self.sets[-1]}


@asynccontextmanager
async def followed(resolver: Resolver) -> AsyncIterator[Seen]:
    """Follow it; afterwards nothing is left of it."""
    seen = Seen()
    loop = asyncio.get_running_loop()

    async def follow() -> None:
        async for endpoints in resolver.watch():
            seen.sets.append(endpoints)
            seen.times.append(loop.time())

    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(follow())
        yield seen
        following.cancel()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, left

"""Following a resolver: what of the pool waits in handlers, apart so that the rest can be compiled (ADR 0030)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from neurogate.discovery.resolver import Resolver
from neurogate.endpoint import Endpoint

Apply = Callable[[tuple[Endpoint, ...], asyncio.TaskGroup], Awaitable[None]]


async def follow(resolver: Resolver, apply: Apply, on_stop: Callable[[], None]) -> None:
    """Apply every set that the resolver names, until cancelled. Tasks that `apply` makes in the group end before this.

    `on_stop` is called when nothing is followed any more, and before they are ended.
    """
    async with asyncio.TaskGroup() as links:
        try:
            async for endpoints in resolver.watch():
                await apply(endpoints, links)
            await asyncio.Event().wait()
        finally:
            on_stop()

"""The resolver that names what it is told to name."""

from __future__ import annotations

import asyncio

from neurogate import virtual_time
from neurogate.endpoint import Endpoint
from neurogate.testing.resolver import ManualResolver

A, B = Endpoint("worker-0", "a:1"), Endpoint("worker-1", "b:1")


def test_a_watcher_sees_the_latest_set_and_every_later_one():
    async def main() -> list[tuple[Endpoint, ...]]:
        resolver = ManualResolver()
        resolver.publish(B)
        resolver.publish(A)
        loop = asyncio.get_running_loop()
        loop.call_later(1, resolver.publish, A, B)
        loop.call_later(2, resolver.publish)
        loop.call_later(3, resolver.finish)
        return [endpoints async for endpoints in resolver.watch()]

    assert virtual_time.run(main()) == [(A,), (A, B), ()]


def test_a_busy_watcher_misses_what_was_superseded():
    async def main() -> list[tuple[Endpoint, ...]]:
        resolver = ManualResolver()
        resolver.publish(A)
        seen = []
        async for endpoints in resolver.watch():
            seen.append(endpoints)
            if len(seen) == 1:
                resolver.publish(B)
                resolver.publish(A, B)
                resolver.finish()
        return seen

    assert virtual_time.run(main()) == [(A,), (A, B)]


def test_every_watcher_sees_the_same():
    async def main() -> None:
        resolver = ManualResolver()

        async def watch() -> list[tuple[Endpoint, ...]]:
            return [endpoints async for endpoints in resolver.watch()]

        async with asyncio.TaskGroup() as tasks:
            watchers = [tasks.create_task(watch()) for _ in range(2)]
            await asyncio.sleep(1)
            resolver.publish(A)
            await asyncio.sleep(1)
            resolver.finish()

        assert [watcher.result() for watcher in watchers] == [[(A,)], [(A,)]]

    virtual_time.run(main())

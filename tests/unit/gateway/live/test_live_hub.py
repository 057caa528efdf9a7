"""Who looks at the live page: bounded, shown one picture a second, and never a reason to hold more than one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from dataplane_support import live_timers, turns
from neurogate import virtual_time
from neurogate.gateway.live.hub import Hub, TooManyViewersError


class Painter:
    """Makes numbered pictures, and says when."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self) -> bytes:
        self.times.append(asyncio.get_running_loop().time())
        return b"%d" % len(self.times)


@asynccontextmanager
async def running(viewers_max: int = 2) -> AsyncIterator[tuple[Hub, Painter]]:
    painter = Painter()
    hub = Hub(painter, viewers_max=viewers_max)
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(hub.run())
        await turns()
        yield hub, painter
        hub.stop()
        await task
    assert hub.viewers == 0
    assert live_timers(loop) == []


def test_nobody_looking_costs_nothing() -> None:
    async def main() -> None:
        async with running() as (hub, painter):
            await asyncio.sleep(100)
            assert painter.times == []
            with hub.viewer() as viewer:
                assert await viewer.next() == b"1"
            await asyncio.sleep(100)
            assert painter.times == [100.0]

    virtual_time.run(main())


def test_who_is_sent_away_may_come_back() -> None:
    async def main() -> None:
        async with running() as (hub, _):
            with hub.viewer() as viewer:
                assert await viewer.next() == b"1"
                hub.send_away()
                assert await viewer.next() is None
            with hub.viewer() as again:
                assert await again.next() == b"2"

    virtual_time.run(main())


def test_every_viewer_gets_the_one_picture_of_the_second() -> None:
    async def main() -> None:
        async with running() as (hub, painter):
            with hub.viewer() as one:
                assert await one.next() == b"1"
                await asyncio.sleep(0.5)
                with hub.viewer() as other:
                    assert await other.next() == b"1"  # at once
                    assert [await one.next(), await other.next()] == [b"2", b"2"]
                    assert painter.times == [0.0, 1.0]

    virtual_time.run(main())


def test_who_does_not_read_loses_pictures_and_holds_one() -> None:
    async def main() -> None:
        async with running() as (hub, _):
            with hub.viewer() as viewer:
                await asyncio.sleep(10.5)
                assert await viewer.next() == b"11"
                assert viewer.lost == 10

    virtual_time.run(main())


def test_viewers_are_bounded_and_the_bound_can_change() -> None:
    async def main() -> None:
        async with running(viewers_max=1) as (hub, _):
            with hub.viewer():
                with pytest.raises(TooManyViewersError, match="NEUROGATE_LIVE_VIEWERS_MAX"), hub.viewer():
                    pass
                hub.configure(viewers_max=2)
                with hub.viewer():
                    assert hub.viewers == 2

    virtual_time.run(main())


def test_stopping_tells_those_who_look_and_those_who_come() -> None:
    async def main() -> None:
        async with running() as (hub, painter):
            with hub.viewer() as viewer:
                await viewer.next()
                hub.stop()
                assert await viewer.next() is None
                with hub.viewer() as late:
                    assert await late.next() is None
            await asyncio.sleep(10)
            assert len(painter.times) == 1

    virtual_time.run(main())


def test_a_hub_that_is_cancelled_closes_its_viewers() -> None:
    async def main() -> None:
        hub = Hub(lambda: b"", viewers_max=1)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(hub.run())
            with hub.viewer() as viewer:
                await viewer.next()
                task.cancel()
                assert await viewer.next() is None

    virtual_time.run(main())

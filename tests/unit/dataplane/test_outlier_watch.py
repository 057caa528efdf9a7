"""Workers that are much worse than their peers get nothing new for a while, and nobody else suffers for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from dataplane_support import BREAKER, Rig, rig, turns
from neurogate import virtual_time
from neurogate.channel import EndCode
from neurogate.dataplane.outlier_watch import INTERVAL_S, OutlierWatch
from neurogate.resilience.breaker import BreakerSettings
from neurogate.resilience.outliers import OutlierSettings
from neurogate.testing.workers import Script, answers, ends

CHUNKS = tuple(b'data: {"n":%d}\n\n' % number for number in range(20))
FINE = answers(*CHUNKS, first_s=0.1, every_s=0.02)
SLOW_TO_START = answers(*CHUNKS, first_s=8.0, every_s=0.02)
SLOW_TO_SPEAK = answers(*CHUNKS, first_s=0.1, every_s=0.5)
STURDY = BreakerSettings(fail_max=1_000_000, reset_timeout_s=30.0, min_calls=1_000_000)
"""A breaker that leaves everything to the watch."""


class Watched:
    """A fleet under watch, with a model that everybody has."""

    def __init__(self, made: Rig, watch: OutlierWatch) -> None:
        self.made = made
        self.watch = watch

    def speeds(self, *scripts: Script) -> None:
        for index, script in enumerate(scripts):
            self.made.worker(index).script = script

    async def traffic(self, seconds: float, *, rate: float = 20.0) -> list[int]:
        """Send requests evenly; how many each worker got."""
        loop = asyncio.get_running_loop()
        channels = list(self.made.fleet.channels.values())
        before = [len(channel.calls) for channel in channels]
        end_at = loop.time() + seconds
        while loop.time() < end_at:
            self.made.send(model="m")
            await asyncio.sleep(1 / rate)
        return [len(channel.calls) - had for channel, had in zip(channels, before, strict=True)]

    def ejected(self) -> list[str]:
        return [member.id for member in self.made.pool.snapshot.members if member.ejected]


@asynccontextmanager
async def watched(
    workers: int, *, settings: OutlierSettings | None = None, breaker: BreakerSettings = STURDY
) -> AsyncIterator[Watched]:
    models = {f"worker-{index}": ("m",) for index in range(workers)}
    async with rig(workers, models=models, breaker=breaker) as made:
        loop = asyncio.get_running_loop()
        watch = OutlierWatch(made.pool, settings or OutlierSettings(), loop=loop)
        running = loop.create_task(watch.run())
        try:
            yield Watched(made, watch)
            await asyncio.sleep(30)  # what is under way ends
        finally:
            running.cancel()
            await asyncio.wait([running])


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (SLOW_TO_START, "first tokens after"),
        (SLOW_TO_SPEAK, "tokens/s a stream"),
        (ends(EndCode.BROKEN), "of its requests failed"),
    ],
)
def test_an_outlier_gets_nothing_until_it_comes_back(script: Script, why: str):
    async def main() -> None:
        async with watched(4) as fleet:
            fleet.speeds(FINE, script, FINE, FINE)
            await fleet.traffic(25)
            assert fleet.ejected() == ["worker-1"]
            assert fleet.made.member(1).state == "ejected"
            assert why in fleet.made.member(1).why
            assert ("worker-1", "ejected") in fleet.made.observer.states

            fleet.speeds(FINE, FINE, FINE, FINE)
            assert (await fleet.traffic(10))[1] == 0
            await fleet.traffic(30)
            assert fleet.ejected() == []
            assert min(await fleet.traffic(5)) >= 20
            assert fleet.made.member(1).state == "ready"

    virtual_time.run(main())


def test_one_that_stays_slow_is_out_most_of_the_time():
    async def main() -> None:
        async with watched(5) as fleet:
            fleet.speeds(SLOW_TO_START, FINE, FINE, FINE, FINE)
            got = await fleet.traffic(1200, rate=10)
            assert got[0] < 0.2 * got[1]

    virtual_time.run(main())


def test_a_machine_of_half_the_speed_stays():
    async def main() -> None:
        async with watched(4) as fleet:
            half = answers(*CHUNKS, first_s=2.0, every_s=0.04)
            fleet.speeds(half, answers(*CHUNKS, first_s=1.0, every_s=0.02), FINE, FINE)
            await fleet.traffic(60)
            assert fleet.ejected() == []

    virtual_time.run(main())


def test_of_two_workers_nobody_is_the_odd_one():
    async def main() -> None:
        async with watched(2) as fleet:
            fleet.speeds(SLOW_TO_START, FINE)
            await fleet.traffic(60)
            assert fleet.ejected() == []

    virtual_time.run(main())


def test_peers_are_those_with_the_same_model():
    async def main() -> None:
        async with watched(4) as fleet:
            big = fleet.made.worker(0)
            big.become_ready(models=("big",))
            fleet.speeds(SLOW_TO_START, FINE, FINE, FINE)
            await fleet.traffic(20)
            for _ in range(40):
                fleet.made.send(model="big")
                await asyncio.sleep(0.5)
            assert fleet.ejected() == []

    virtual_time.run(main())


def test_few_requests_judge_nobody():
    async def main() -> None:
        async with watched(3) as fleet:
            fleet.speeds(SLOW_TO_START, FINE, FINE)
            await fleet.traffic(300, rate=0.3)
            assert fleet.ejected() == []

    virtual_time.run(main())


def test_an_ejected_worker_serves_when_all_the_others_are_gone():
    async def main() -> None:
        async with watched(4, breaker=BREAKER) as fleet:
            fleet.speeds(SLOW_TO_START, FINE, FINE, FINE)
            await fleet.traffic(25)
            assert fleet.ejected() == ["worker-0"]
            await asyncio.sleep(9)
            for index in (1, 2, 3):
                fleet.made.worker(index).die()
            receiver = await fleet.made.ask(model="m")
            assert receiver.chunks == list(CHUNKS)

            await asyncio.sleep(INTERVAL_S)
            assert fleet.ejected() == []  # with nobody else left, it is no outlier

    virtual_time.run(main())


def test_one_that_goes_away_is_no_outlier_when_it_comes_back():
    async def main() -> None:
        async with watched(4) as fleet:
            fleet.speeds(SLOW_TO_START, FINE, FINE, FINE)
            await fleet.traffic(25)
            worker = fleet.made.worker(0)
            worker.drain()
            await asyncio.sleep(INTERVAL_S)
            assert fleet.ejected() == []
            worker.become_ready()
            await turns()
            assert fleet.made.member(0).state == "ready"

    virtual_time.run(main())


def test_turned_off_everybody_is_back_at_once_and_nothing_is_counted():
    async def main() -> None:
        async with watched(4) as fleet:
            fleet.speeds(SLOW_TO_START, FINE, FINE, FINE)
            await fleet.traffic(25)
            assert fleet.ejected() == ["worker-0"]
            fleet.watch.configure(OutlierSettings(enabled=False))
            assert fleet.ejected() == []
            assert [member.tally for member in fleet.made.pool.snapshot.members] == [None] * 4
            await fleet.traffic(60)
            assert fleet.ejected() == []

    virtual_time.run(main())


def test_workers_without_a_model_are_peers_of_each_other_and_removed_ones_are_forgotten():
    async def main() -> None:
        async with watched(4) as fleet:
            for channel in fleet.made.fleet.channels.values():
                channel.tell(replace(channel.present, models=()))
            fleet.speeds(SLOW_TO_START, FINE, FINE, FINE)
            for _ in range(300):
                fleet.made.send()
                await asyncio.sleep(0.1)
            assert fleet.ejected() == ["worker-0"]
            await fleet.made.name()
            fleet.watch.look()
            assert len(fleet.watch._watched) == 0

    virtual_time.run(main())

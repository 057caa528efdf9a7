"""A fleet is kept running, and restarted one process at a time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from neurogate.local.keeper import BACKOFF_MAX_S, Keeper
from neurogate.virtual_time import run as run_virtual


class DyingFleet:
    """Its worker ends as soon as it was started, until `lives_s` is set."""

    def __init__(self) -> None:
        self.gateway = SimpleNamespace(name="gateway", ending=None)
        self.worker = SimpleNamespace(name="worker-0", ending="ended with exit code 1", report=lambda: "it died")
        self.workers = [self.worker]
        self.started: list[float] = []
        self.lives_s = 0.0

    async def start(self, child) -> None:
        now = asyncio.get_running_loop().time()
        self.started.append(now)
        if self.lives_s:
            child.ending = None
            asyncio.get_running_loop().call_later(self.lives_s, setattr, child, "ending", "ended with exit code 1")


async def run_for(keeper: Keeper, seconds: float) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await keeper.run()


def test_who_dies_again_and_again_is_started_less_and_less_often() -> None:
    async def main() -> None:
        fleet, said = DyingFleet(), []
        await run_for(Keeper(fleet, said.append), 600)
        gaps = [later - earlier for earlier, later in zip(fleet.started, fleet.started[1:], strict=False)]
        assert fleet.started[0] == pytest.approx(0.5, abs=0.3)
        assert gaps[:4] == pytest.approx([1, 2, 4, 8], abs=0.5)
        assert max(gaps) <= BACKOFF_MAX_S + 0.5
        assert said[0] == "it died\nworker-0 is started again in 0.5 s"
        assert len(said) == len(fleet.started) + 1

    run_virtual(main())


def test_who_had_run_for_long_is_started_again_at_once() -> None:
    async def main() -> None:
        fleet, said = DyingFleet(), []
        fleet.lives_s = 100
        await run_for(Keeper(fleet, said.append), 450)
        assert len(fleet.started) == 5
        assert all(line.endswith("in 0.5 s") for line in said)

    run_virtual(main())


def rolled(fleet, *, meanwhile=None) -> tuple[bool, list[str]]:
    told: list[str] = []

    async def run() -> bool:
        async with fleet:
            await fleet.wait_ready(60, lambda _: None)
            if meanwhile is not None:
                meanwhile()
            keeper = Keeper(fleet, told.append)
            refused: list[str] = []
            both = await asyncio.gather(keeper.roll(told.append), keeper.roll(refused.append))
            assert (both[1], refused) == (False, ["a rolling restart is under way already"])
            return both[0]

    return asyncio.run(run()), told


def test_a_gateway_that_cannot_be_taken_over_from_goes_on(make_fleet, nothing_left) -> None:
    """The workers were restarted; the new gateway finds its ports taken, for the fake one hands nothing over."""
    fleet = make_fleet()

    well, told = rolled(fleet)

    assert not well
    assert told[0] == "worker-0: draining"
    assert [line.partition(",")[0] for line in told[1:5]] == [
        "worker-0: ready",
        "worker-1: draining",
        "worker-1: ready",
        "gateway: another one takes over",
    ]
    assert told[5].startswith("gateway ended with exit code 1; its log")
    assert fleet.gateway.ending == "ended with exit code 0", "it was stopped with its fleet, and not before"
    nothing_left(fleet)


def test_a_worker_that_does_not_come_back_ends_the_restart(make_fleet, nothing_left, monkeypatch) -> None:
    fleet = make_fleet(worker_0="ignore-term", grace_s=0.5)

    well, told = rolled(fleet, meanwhile=lambda: monkeypatch.setenv("FAKE", "worker-0=die"))

    assert not well
    assert told[1] == "worker-0: had to be killed"
    assert told[2].startswith("worker-0 ended with exit code 1; its log")
    assert len(told) == 3
    nothing_left(fleet)

"""A fleet starts together, tells what is wrong, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import signal

import pytest

from neurogate.local import processes
from neurogate.local.fleet import Fleet, FleetError


def ignore(_: object) -> None:
    """No status is looked at."""


def test_fleet_becomes_ready_and_leaves_nothing(make_fleet, nothing_left):
    fleet = make_fleet()
    seen = []

    async def run() -> None:
        async with fleet:
            await fleet.wait_ready(60, seen.append)
            assert len(processes.marked(fleet.name)) == 3
            state = await fleet.state()
            assert [row.address for row in state.rows] == [child.address for child in fleet.workers]

    asyncio.run(run())

    assert seen[-1].ready
    assert fleet.killed == []
    assert fleet.gateway.log.read_text() == "gateway says hello\n"
    nothing_left(fleet)


@pytest.mark.parametrize("name", ["gateway", "worker_1"])
def test_process_that_dies_early_is_told_with_its_log(make_fleet, nothing_left, name):
    fleet = make_fleet(**{name: "die"})

    async def run() -> None:
        async with fleet:
            await fleet.wait_ready(60, ignore)

    with pytest.raises(FleetError, match="ended with exit code 1; its log") as caught:
        asyncio.run(run())

    assert str(caught.value).startswith(name.replace("_", "-"))
    assert "    it cannot work like this" in str(caught.value)
    nothing_left(fleet)


def test_fleet_that_never_gets_ready_is_given_up(make_fleet, nothing_left):
    fleet = make_fleet(gateway="never-ready")

    async def run() -> None:
        async with fleet:
            await fleet.wait_ready(1, ignore)

    with pytest.raises(
        FleetError, match=r"after 1 s: worker-0 is unreachable \(the gateway has no link to it\), w"
    ) as caught:
        asyncio.run(run())

    assert "worker-0 is running; its log" in str(caught.value)
    nothing_left(fleet)


@pytest.mark.parametrize(
    ("behaviours", "told"),
    [
        ({"worker_1": "loading"}, "worker-0 is ready, worker-1 is not_ready (loading)"),
        ({"worker_1": "draining"}, "worker-1 is draining (draining)"),
        ({"worker_1": "garbage"}, "worker-1 is unreachable (it does not answer)"),
        ({"gateway": "starting"}, "worker-1 is ready, the gateway does not take requests for all of them"),
        (
            {"gateway": "garbage"},
            "worker-1 is unreachable (the gateway has no link to it), the gateway does not take requests",
        ),
    ],
)
def test_whoever_is_not_ready_is_told(make_fleet, nothing_left, behaviours, told):
    fleet = make_fleet(**behaviours)

    async def run() -> str:
        async with fleet:
            while (text := str(await fleet.state())) and told not in text:
                await asyncio.sleep(0.05)
            state = await fleet.state()
            assert not state.ready
            return text

    assert told in asyncio.run(asyncio.wait_for(run(), 60))
    nothing_left(fleet)


def test_gateway_that_never_answers_is_told(make_fleet, nothing_left):
    fleet = make_fleet(gateway="deaf")

    async def run() -> None:
        async with fleet:
            await fleet.wait_ready(0.5, ignore)

    with pytest.raises(FleetError, match=r"is not ready after 0\.5 s: the gateway does not answer"):
        asyncio.run(run())

    nothing_left(fleet)


def test_process_that_will_not_end_is_killed(make_fleet, nothing_left):
    fleet = make_fleet(worker_0="ignore-term", grace_s=0.3)

    async def run() -> None:
        async with fleet:
            await fleet.wait_ready(60, ignore)

    asyncio.run(run())

    assert fleet.killed == ["worker-0"]
    assert fleet.workers[0].ending == "was killed by SIGKILL"
    nothing_left(fleet)


def test_process_that_a_killed_worker_left_behind_is_found_and_killed(make_fleet, nothing_left):
    fleet = make_fleet(worker_1="orphan")

    async def run() -> None:
        async with fleet:
            await fleet.wait_ready(60, ignore)
            fleet.workers[1].signal(signal.SIGKILL)
            await fleet.workers[1].ended()
            fleet.workers[1].signal(signal.SIGTERM)  # is fine for one that ended

    asyncio.run(run())

    assert len(fleet.killed) == 1
    assert "signal.pause()" in fleet.killed[0]
    nothing_left(fleet)


def test_interrupted_stop_kills(make_fleet, nothing_left):
    fleet = make_fleet(worker_0="ignore-term", grace_s=60)

    async def run() -> None:
        async with fleet:
            await fleet.wait_ready(60, ignore)
            asyncio.get_running_loop().call_later(0.3, asyncio.current_task().cancel)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())

    assert "worker-0" in fleet.killed
    nothing_left(fleet)


def test_command_that_does_not_exist_leaves_nothing(prepared, nothing_left):
    fleet = Fleet(prepared.plan, prepared.directory, grace_s=1, command=("/nowhere/neurogate",))

    async def run() -> None:
        async with fleet:
            raise AssertionError("started")

    with pytest.raises(FileNotFoundError):
        asyncio.run(run())

    assert fleet.gateway.report().startswith("gateway is running; its log")
    nothing_left(fleet)

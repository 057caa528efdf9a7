"""First tokens that come late open a breaker only while enough other workers are well."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from dataplane_support import Rig, rig
from neurogate import virtual_time
from neurogate.resilience.breaker import BreakerSettings
from neurogate.testing.workers import answers

SLOW = BreakerSettings(reset_timeout_s=300.0, slow_s=30.0)


async def late(made: Rig, index: int, model: str = "") -> None:
    """More late first tokens from one worker than it may have."""
    for other in range(len(made.fleet.channels)):
        made.worker(other).script = answers(b"x", first_s=31.0)
    sent = []
    while made.member(index).in_flight < 5:
        sent.append(made.send(model=model)[0])
    for exchange in sent:
        if exchange.worker_id != f"worker-{index}":
            exchange.cancel()
    await asyncio.sleep(32)


def closed(made: Rig) -> list[int]:
    return [index for index, member in enumerate(made.pool.snapshot.members) if member.breaker.state == "closed"]


@pytest.mark.parametrize(("workers", "left"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_a_fleet_that_is_slow_as_a_whole_keeps_half_of_its_workers(workers: int, left: int):
    async def main() -> None:
        async with rig(workers, breaker=SLOW) as made:
            for index in range(workers):
                made.worker(index).script = answers(b"x", first_s=31.0)
            for _ in range(3):
                for _ in range(8 * workers):
                    made.send()
                await asyncio.sleep(40)

            assert len(closed(made)) == left

    virtual_time.run(main())


def test_nobody_says_what_slow_is_unless_somebody_does():
    async def main() -> None:
        async with rig(2) as made:
            await late(made, 0)

            assert closed(made) == [0, 1]

    virtual_time.run(main())


@pytest.mark.parametrize(
    ("models", "opens"),
    [
        ({"worker-0": ("llama",), "worker-1": ("llama",), "worker-2": ("qwen",)}, True),
        ({"worker-0": ("llama",), "worker-1": ("qwen",), "worker-2": ("qwen",)}, False),
        ({"worker-0": ("llama", "phi"), "worker-1": ("llama",), "worker-2": ("llama",)}, False),
    ],
    ids=["another has it", "alone with its model", "alone with one of its models"],
)
def test_the_others_that_count_have_the_model(models: Mapping[str, tuple[str, ...]], opens: bool):
    async def main() -> None:
        async with rig(3, breaker=SLOW, models=models) as made:
            await late(made, 0, "llama")

            assert closed(made) == ([1, 2] if opens else [0, 1, 2])

    virtual_time.run(main())


@pytest.mark.parametrize("how", ["open", "ejected", "lost", "cordoned"])
def test_the_others_that_count_are_well(how: str):
    async def main() -> None:
        async with rig(2, breaker=SLOW) as made:
            match how:
                case "open":
                    await made.open_breaker(1)
                case "ejected":
                    made.pool.eject(made.member(1), ejected=True, why="errors")
                case "lost":
                    made.worker(1).die()
                case _:
                    made.pool.cordon("worker-1")
            await late(made, 0)

            assert made.member(0).breaker.state == "closed"

    virtual_time.run(main())

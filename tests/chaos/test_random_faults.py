"""A hundred random combinations of faults, drawn from a seed, on one fleet.

Three are under way at a time, each in a lane of three workers, of which it hits two at most: a third of the fleet could
always have answered. What a combination does is drawn from the seed and its own number, whatever the others do.
Its requests go to workers of any lane: of one that goes wrong all is told that was under way beside it.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from chaos_support.audit import Audit
from chaos_support.faults import EXPLAINED, FAULTS, SOON, Fault
from chaos_support.fleet import Fleet, Plan
from chaos_support.stage import Theatre, warm
from chaos_support.traffic import ALL, Asked, Clients
from real_loop import run_real

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]

COMBINATIONS = int(os.environ.get("CHAOS_COMBINATIONS") or 100)
LANES = 3
ABREAST = 3
"""Workers of a lane."""
CLIENTS = 12
BETWEEN_AUDITS = 12


@dataclass(frozen=True, slots=True)
class Hit:
    """One fault of a combination."""

    worker: int
    after_s: float
    fault: Fault
    rng: random.Random


@dataclass(frozen=True, slots=True)
class Combination:
    number: int
    hits: Sequence[Hit]
    asked: Sequence[Asked]

    @property
    def lane(self) -> slice:
        first = self.number % LANES * ABREAST
        return slice(first, first + ABREAST)


@dataclass(frozen=True, slots=True)
class Played:
    told: str
    began_at: float
    ended_at: float
    wrong: Sequence[str]


def went_wrong(played: Sequence[Played]) -> list[str]:
    """The combinations with wrong answers, and what else was going on."""
    notes = []
    for one in played:
        beside = [other.told for other in played if other.began_at < one.ended_at and one.began_at < other.ended_at]
        if one.wrong:
            notes.append(f"combination {one.told}: {'; '.join(one.wrong[:3])}; under way: {', '.join(beside)}")
    return notes


def drawn(number: int, clients: Clients, seed: int) -> Combination:
    rng = random.Random(f"{seed} {number}")
    first = number % LANES * ABREAST
    hits = [
        Hit(first + index, rng.uniform(0, 0.8), rng.choice(FAULTS), random.Random(rng.random()))
        for index in rng.sample(range(ABREAST), rng.randint(1, ABREAST - 1))
    ]
    return Combination(number, hits, clients.draw(CLIENTS, ALL[rng.randrange(len(ALL)) :] + ALL, (10, 80)))


def test_random_combinations(theatre: Theatre) -> None:
    async def strike(fleet: Fleet, hit: Hit) -> str:
        await asyncio.sleep(hit.after_s)
        return f"worker {hit.worker}: {await hit.fault(fleet, hit.worker, hit.rng)}"

    async def play(fleet: Fleet, clients: Clients, one: Combination) -> Played:
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(clients.ask_all(one.asked))
            faults = [tasks.create_task(strike(fleet, hit)) for hit in one.hits]
        await fleet.until_ready(60, workers=one.lane)
        told = f"{one.number} ({'; '.join(fault.result() for fault in faults)})"
        wrong = [f"{asked.name}: {asked.verdict}" for asked in one.asked if str(asked.verdict) != "whole"]
        return Played(told, began_at, loop.time(), wrong)

    async def play_lane(fleet: Fleet, clients: Clients, lane: Sequence[Combination]) -> list[Played]:
        return [await play(fleet, clients, one) for one in lane]

    async def main(fleet: Fleet) -> tuple[Clients, list[str], float]:
        clients = Clients(fleet.target, theatre.oracle, grpc_port=fleet.grpc_port, rng=random.Random(theatre.seed))
        await fleet.until_ready()
        await warm(fleet, clients)
        began_at = asyncio.get_running_loop().time()
        audit = Audit(fleet)
        await audit.begin()
        leaks: list[str] = []
        combinations = [drawn(number, clients, theatre.seed) for number in range(COMBINATIONS)]
        await clients.learn([asked for one in combinations for asked in one.asked])
        for start in range(0, COMBINATIONS, BETWEEN_AUDITS):
            some = combinations[start : start + BETWEEN_AUDITS]
            async with asyncio.TaskGroup() as lanes:
                playing = [lanes.create_task(play_lane(fleet, clients, some[lane::LANES])) for lane in range(LANES)]
            clients.notes += went_wrong([one for lane in playing for one in lane.result()])
            leaks += [f"after {start + len(some)}: {leak}" for leak in await audit.leaks(explained=EXPLAINED)]
        await clients.close()
        return clients, leaks, asyncio.get_running_loop().time() - began_at

    plan = Plan(workers=LANES * ABREAST, engines="lying", links=True, seed=theatre.seed, worker=SOON)
    with Fleet(plan) as fleet:
        clients, leaks, took_s = run_real(main(fleet), timeout_s=1700)
    theatre.judge(theatre.told(f"{COMBINATIONS} random combinations", clients, leaks, took_s, plan))

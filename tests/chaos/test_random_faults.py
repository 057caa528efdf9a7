"""A hundred random combinations of faults, drawn from a seed, one after the other on the same fleet.

At most two of three workers are hit at once, so somebody could always have answered.
"""

from __future__ import annotations

import asyncio
import os
import random

import pytest

from chaos_support.audit import Audit
from chaos_support.faults import EXPLAINED, FAULTS
from chaos_support.fleet import Fleet, Plan
from chaos_support.stage import Theatre, warm
from chaos_support.traffic import ALL, Clients
from real_loop import run_real

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]

COMBINATIONS = int(os.environ.get("CHAOS_COMBINATIONS") or 100)
CLIENTS = 12


def test_random_combinations(theatre: Theatre) -> None:
    rng = random.Random(theatre.seed)

    async def one_fault(fleet: Fleet, index: int, chance: random.Random) -> str:
        await asyncio.sleep(chance.uniform(0, 0.8))
        return f"worker {index}: {await chance.choice(FAULTS)(fleet, index, chance)}"

    async def one_round(fleet: Fleet, clients: Clients) -> list[str]:
        chance = random.Random(rng.random())
        hit = chance.sample(range(3), chance.randint(1, 2))
        asked = clients.draw(CLIENTS, ALL[chance.randrange(len(ALL)) :] + ALL, (10, 80))
        await clients.learn(asked)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(clients.ask_all(asked))
            faults = [tasks.create_task(one_fault(fleet, index, random.Random(chance.random()))) for index in hit]
        await fleet.until_ready(60)
        return [fault.result() for fault in faults]

    async def main(fleet: Fleet) -> tuple[Clients, list[str]]:
        clients = Clients(fleet.target, theatre.oracle, grpc_port=fleet.grpc_port, rng=random.Random(rng.random()))
        await fleet.until_ready()
        await warm(fleet, clients)
        audit = Audit(fleet)
        await audit.begin()
        leaks: list[str] = []
        for number in range(COMBINATIONS):
            before = len(clients.tally.asked)
            faults = await one_round(fleet, clients)
            wrong = [str(one.verdict) for one in clients.tally.asked[before:] if str(one.verdict) != "whole"]
            if number % 10 == 9:
                leaks += [f"after {number + 1}: {leak}" for leak in await audit.leaks(explained=EXPLAINED)]
            if wrong:
                clients.notes.append(f"combination {number} ({'; '.join(faults)}): {wrong[:3]}")
        await clients.close()
        return clients, leaks

    plan = Plan(
        workers=3,
        engines="lying",
        links=True,
        seed=theatre.seed,
        gateway={"NEUROGATE_STALL_S": "4", "NEUROGATE_RETRIES": "5", "NEUROGATE_RETRY_BUDGET": "1"},
    )
    with Fleet(plan) as fleet:
        clients, leaks = run_real(main(fleet), timeout_s=1700)
    theatre.judge(theatre.told(f"{COMBINATIONS} random combinations", clients, leaks, 0.0))

"""Half an hour of mixed traffic with a fault every 20 s: nothing lies, nothing fails, nothing grows (make soak)."""

from __future__ import annotations

import asyncio
import os
import random

import pytest

from chaos_support.audit import Audit, open_files
from chaos_support.faults import EXPLAINED, FAULTS, SOON
from chaos_support.fleet import Fleet, Plan
from chaos_support.stage import Theatre, warm
from chaos_support.traffic import ALL, Clients
from real_loop import run_real

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]

FAULT_EVERY_S = 20.0
CLIENTS = 10
GROWTH_MAX = 0.05


def test_soak(theatre: Theatre) -> None:
    """RSS at the end is within 5 % of what it was once warm, and open files are what they were."""
    minutes = float(os.environ.get("SOAK_MINUTES") or 30)
    warm_at_s = min(300.0, minutes * 60 / 3)
    rng = random.Random(theatre.seed)
    samples: list[tuple[float, float, int]] = []

    async def break_things(fleet: Fleet, ends_at: float, notes: list[str]) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() + FAULT_EVERY_S < ends_at:
            await asyncio.sleep(FAULT_EVERY_S)
            index = rng.randrange(3)
            notes.append(await rng.choice(FAULTS)(fleet, index, random.Random(rng.random())))
            await fleet.until_ready(60)

    async def watch(fleet: Fleet, began_at: float, until: asyncio.Event) -> None:
        while not until.is_set():
            now = asyncio.get_running_loop().time() - began_at
            samples.append((now, fleet.gateway.rss_mib(), open_files(fleet.gateway).total()))
            await asyncio.sleep(5)

    async def main(fleet: Fleet) -> tuple[Clients, list[str], list[str]]:
        clients = Clients(fleet.target, theatre.oracle, grpc_port=fleet.grpc_port, rng=random.Random(rng.random()))
        clients.forgets = True
        await fleet.until_ready()
        await warm(fleet, clients)
        audit = Audit(fleet)
        await audit.begin()
        faults: list[str] = []
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(clients.keep_asking(CLIENTS, ALL, (5, 60), ended, pause_s=0.1))
            watching = tasks.create_task(watch(fleet, began_at, ended))
            await break_things(fleet, began_at + minutes * 60, faults)
            await asyncio.sleep(max(0.0, began_at + minutes * 60 - loop.time()))
            ended.set()
        assert watching.done()
        await clients.close()
        return clients, faults, await audit.leaks(explained=EXPLAINED)

    plan = Plan(
        workers=3,
        engines="lying",
        links=True,
        seed=theatre.seed,
        gateway={"LOG_LEVEL": "info"},
        worker=SOON,
    )
    with Fleet(plan) as fleet:
        clients, faults, leaks = run_real(main(fleet), timeout_s=minutes * 60 + 300)
    warmed = [rss for at, rss, _ in samples if at >= warm_at_s][:6]
    ending = [rss for _, rss, _ in samples][-6:]
    before, after = sum(warmed) / len(warmed), sum(ending) / len(ending)
    growth = after / before - 1
    clients.notes += [
        f"{minutes:g} minutes, {len(faults)} faults",
        f"RSS of the gateway: {before:.1f} MiB at {warm_at_s:.0f} s, {after:.1f} MiB at the end ({growth:+.1%})",
        f"open files: {samples[0][2]} at the start, {samples[-1][2]} at the end",
    ]
    row = theatre.told("soak", clients, leaks, minutes * 60, plan)
    theatre.judge(row)
    assert growth <= GROWTH_MAX, row.notes

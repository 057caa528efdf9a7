"""The promises with numbers: streams by the hundred, workers killed all the time, and nothing lost."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest

from chaos_support.audit import Audit
from chaos_support.checker import APIS, Kind, Received, expected_of
from chaos_support.client import Target, ask, follow
from chaos_support.fleet import Fleet, Plan
from chaos_support.stage import Stage, Theatre
from chaos_support.traffic import STREAMS
from real_loop import run_real

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

CHAT = APIS["chat stream"]
REAL_STREAMS = int(os.environ.get("CHAOS_REAL_STREAMS") or 50)


def test_a_thousand_streams_outlive_a_kill_every_two_seconds(theatre: Theatre) -> None:
    """1000 streams over 5 workers, a random one of them killed every 2 s for 60 s, and restarted."""

    async def kill(stage: Stage) -> None:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + 60
        kills = 0
        async with asyncio.TaskGroup() as restarts:
            away: set[int] = set()

            async def bring_back(index: int) -> None:
                await asyncio.to_thread(stage.fleet.restart_worker, index)
                away.discard(index)

            while loop.time() < ends_at:
                await asyncio.sleep(2)
                there = [index for index in range(5) if index not in away]
                if len(there) < 2:
                    continue  # a slow machine is still bringing the others back
                victim = stage.rng.choice(there)
                away.add(victim)
                stage.fleet.kill_worker(victim)
                kills += 1
                restarts.create_task(bring_back(victim))
        await stage.fleet.until_ready()
        stage.clients.notes.append(f"{kills} kills")

    plan = Plan(workers=5, decode_tps=1, slots=400)
    row = theatre.run(
        "1000 streams, a kill every 2 s for 60 s",
        plan,
        kill,
        clients=1000,
        apis=STREAMS,
        tokens=(55, 65),
        timeout_s=600,
        patience_s=280,
    )
    assert row.whole == 1000


def test_a_stopped_worker_is_left_within_four_seconds(theatre: Theatre) -> None:
    """SIGSTOP of a worker under 100 streams: all of them go on elsewhere, none is silent for more than 4 s."""

    async def stop(stage: Stage) -> None:
        await stage.all_started()
        await asyncio.sleep(0.5)
        stage.fleet.workers[0].send(signal.SIGSTOP)
        while any(one.verdict is None for one in stage.asked):
            await asyncio.sleep(0.1)
        stage.fleet.workers[0].send(signal.SIGCONT)
        await stage.fleet.until_ready()

    plan = Plan(workers=3, decode_tps=10)
    row = theatre.run("SIGSTOP under 100 streams", plan, stop, clients=100, apis=STREAMS, tokens=(80, 100))
    assert row.whole == 100
    assert 1 < row.longest_gap_s <= 4


@pytest.mark.model
def test_real_answers_outlive_their_workers(theatre: Theatre, smollm2_path: Path) -> None:
    """A real model at temperature 0, one slot a worker: 50 streams, each of whose workers is killed in the middle."""
    more = {"temperature": 0, "seed": 1, "cache_prompt": False}
    prompts = [f"{QUESTIONS[number % len(QUESTIONS)]} Give {number + 2} examples." for number in range(REAL_STREAMS)]

    rng = random.Random(theatre.seed)

    async def disturbed_one(fleet: Fleet, target: Target, prompt: str, one: Received, *, tokens: int) -> int:
        """The worker that was killed after so many tokens."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(follow(target, CHAT, CHAT.body(prompt, 60) | more, one))
            while len(one.times) < tokens and not one.complete:
                await asyncio.sleep(0.002)
            victim = int(one.headers["x-neurogate-worker"].removeprefix("worker-"))
            fleet.kill_worker(victim)
        return victim

    async def main(fleet: Fleet) -> tuple[list[Received], list[Received], list[str], float]:
        began_at = asyncio.get_running_loop().time()
        target = Target(fleet.http_port, fleet.target.key, timeout_s=120)
        await fleet.until_ready(90)
        at_once = asyncio.Semaphore(2)

        async def undisturbed_one(prompt: str) -> Received:
            async with at_once:
                return await ask(target, CHAT, prompt, 60, **more)

        undisturbed = await asyncio.gather(*map(undisturbed_one, prompts))
        for one in undisturbed:
            expected_of(CHAT, one)
        audit = Audit(fleet)
        await audit.begin()
        seen = [Received() for _ in prompts]
        async with asyncio.TaskGroup() as restarts:
            for prompt, one in zip(prompts, seen, strict=True):
                await fleet.until_ready(90, at_least=2)
                victim = await disturbed_one(fleet, target, prompt, one, tokens=rng.randint(2, 50))
                restarts.create_task(asyncio.to_thread(fleet.restart_worker, victim))
        await fleet.until_ready(90)
        return undisturbed, seen, await audit.leaks(), asyncio.get_running_loop().time() - began_at

    plan = Plan(
        workers=3,
        worker={
            "NEUROGATE_ENGINE": "llamacpp",
            "NEUROGATE_MODEL": str(smollm2_path),
            "NEUROGATE_ENGINE_SLOTS": "1",
            "NEUROGATE_ENGINE_THREADS": "1",
        },
    )
    with Fleet(plan) as fleet:
        undisturbed, seen, leaks, took_s = run_real(main(fleet), timeout_s=850)
    name = f"{REAL_STREAMS} real streams, each worker killed"
    row = theatre.compared(name, CHAT, prompts, undisturbed, seen, leaks, took_s, plan)
    theatre.judge(row)
    assert row.whole == REAL_STREAMS
    assert all(one.verdict is not None and one.verdict.kind is Kind.WHOLE for one in row.asked)


QUESTIONS = (
    "What is a river?",
    "Why is the sky blue?",
    "How does one bake bread?",
    "Tell me about the sea.",
    "What do bees do all day?",
)

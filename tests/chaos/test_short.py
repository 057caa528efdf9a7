"""The short version of the fault suite: one scenario of each kind."""

from __future__ import annotations

import asyncio
import signal

import pytest

from chaos_support.engine_proxy import Lie
from chaos_support.fleet import Plan
from chaos_support.stage import Stage, Theatre

pytestmark = pytest.mark.timeout(180)


def test_undisturbed_answers_of_every_api_are_those_of_the_engine(theatre: Theatre) -> None:
    async def nothing(stage: Stage) -> None:
        await stage.all_started()

    row = theatre.run("undisturbed", Plan(workers=2), nothing, clients=48)
    assert row.whole == 48


def test_killed_worker(theatre: Theatre) -> None:
    async def kill(stage: Stage) -> None:
        await stage.some_started(10)
        await asyncio.sleep(0.2)
        stage.fleet.kill_worker(0)
        await stage.in_thread(stage.fleet.restart_worker, 0)

    theatre.run("SIGKILL of a worker", Plan(workers=3), kill, clients=36)


def test_a_worker_that_comes_back_has_one_connection(theatre: Theatre) -> None:
    """Attempts to reach it while it was away leave no connections behind."""

    async def flap(stage: Stage) -> None:
        for _ in range(2):
            stage.fleet.kill_worker(0)
            await asyncio.sleep(0.5)
            await stage.in_thread(stage.fleet.restart_worker, 0)
            await stage.fleet.until_ready()

    theatre.run("a worker flaps", Plan(workers=2), flap, clients=12)


def test_stopped_worker(theatre: Theatre) -> None:
    async def stop(stage: Stage) -> None:
        await stage.some_started(10)
        stage.fleet.workers[0].send(signal.SIGSTOP)
        await asyncio.sleep(4)
        stage.fleet.workers[0].send(signal.SIGCONT)
        await stage.fleet.until_ready()

    row = theatre.run("SIGSTOP of a worker", Plan(workers=2), stop, clients=24)
    assert row.longest_gap_s < 5


def test_lying_engine(theatre: Theatre) -> None:
    async def start_lying(stage: Stage) -> None:
        stage.fleet.engine_proxies[0].set(Lie.CUT)
        await stage.all_started()
        stage.fleet.engine_proxies[0].set(Lie.NONE)

    theatre.run("an engine cuts its answers", Plan(workers=3, engines="lying"), start_lying, clients=24)

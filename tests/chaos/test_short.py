"""The short version of the fault suite: one scenario of each kind."""

from __future__ import annotations

import asyncio

import pytest

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

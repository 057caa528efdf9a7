"""Runs one scenario: a warm fleet, clients, a fault while they are served, and then the questions that matter.

Was any answer a lie? Did a request fail that somebody could have answered? Is anything left behind?
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from chaos_support.audit import Audit
from chaos_support.checker import APIS, Api, Kind, Received, expected_of, judge
from chaos_support.client import Target
from chaos_support.fleet import Fleet, Plan
from chaos_support.oracle import Oracle
from chaos_support.report import Row, write
from chaos_support.traffic import ALL, Asked, Clients
from real_loop import run_real


@dataclass
class Stage:
    """What a fault is given."""

    fleet: Fleet
    clients: Clients
    asked: list[Asked]
    """The requests under way."""
    rng: random.Random

    async def all_started(self) -> None:
        """Every stream has had its first text, or its end."""
        await asyncio.gather(*(one.started.wait() for one in self.asked if one.api is None or one.api.streams))

    async def some_started(self, count: int = 1) -> None:
        """So many streams have."""
        streams = [one for one in self.asked if one.api is None or one.api.streams]
        waiting = {asyncio.ensure_future(one.started.wait()) for one in streams}
        done: set[asyncio.Future[object]] = set()
        while len(done) < min(count, len(streams)):
            more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            done |= more
        for one in waiting:
            one.cancel()
        if waiting:
            await asyncio.wait(waiting)

    async def in_thread(self, function: Callable[..., None], *arguments: object) -> None:
        """Something that takes its time, while the clients go on."""
        await asyncio.to_thread(function, *arguments)


Act = Callable[[Stage], Awaitable[None]]
Allowed = Callable[[Asked], bool]


def none_may(_: Asked) -> bool:
    """Somebody could have answered each of them."""
    return False


def any_may(_: Asked) -> bool:
    """Nobody could."""
    return True


class Theatre:
    """Where scenarios are run; keeps what they showed."""

    def __init__(self, oracle: Oracle, *, seed: int, report: Path | None = None) -> None:
        """`report` is written anew after each scenario."""
        self.oracle = oracle
        self.seed = seed
        self._report = report
        self.rows: list[Row] = []

    def run(
        self,
        name: str,
        plan: Plan,
        act: Act,
        *,
        clients: int = 24,
        apis: Sequence[str] = ALL,
        tokens: tuple[int, int] = (20, 60),
        may_fail: Allowed = none_may,
        explained: Collection[str] = (),
        timeout_s: float = 120,
        patience_s: float = 60,
    ) -> Row:
        """One burst of clients and one act. Fails on any lie, leak, or failure that is not allowed."""

        async def main(fleet: Fleet) -> Row:
            rng = random.Random(f"{self.seed} {name}")
            target = replace(fleet.target, timeout_s=patience_s)
            clients_ = Clients(target, self.oracle, grpc_port=fleet.grpc_port, rng=rng)
            await fleet.until_ready()
            await warm(fleet, clients_)
            audit = Audit(fleet)
            await audit.begin()
            began_at = asyncio.get_running_loop().time()
            asked = clients_.draw(clients, apis, tokens)
            await clients_.learn(asked)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(clients_.ask_all(asked))
                await act(Stage(fleet, clients_, asked, rng))
            await clients_.close()
            leaks = await audit.leaks(explained=explained)
            return self.told(name, clients_, leaks, asyncio.get_running_loop().time() - began_at, plan)

        with Fleet(plan) as fleet:
            row = run_real(main(fleet), timeout_s=timeout_s)
        self.judge(row, may_fail)
        return row

    def told(self, name: str, clients: Clients, leaks: Sequence[str], took_s: float, plan: Plan) -> Row:
        """A row of the table. A plan that makes failures easier to survive, or quicker to notice, is told in it."""
        tally = clients.tally
        kinds = tally.kinds
        row = Row(
            name,
            requests=len(tally.asked) + tally.forgotten,
            whole=kinds[Kind.WHOLE] + tally.forgotten,
            honest=kinds[Kind.HONEST],
            lies=kinds[Kind.LIE] + kinds[Kind.SILENT],
            leaks=len(leaks),
            longest_gap_s=tally.longest_gap_s,
            took_s=took_s,
        )
        row.notes += clients.notes
        row.notes += [f"with {name}={value}" for name, value in plan.eased]
        row.notes += [f"lie: {lie}" for lie in tally.lies[:10]]
        row.notes += [f"leak: {leak}" for leak in leaks]
        row.notes += [f"{count} failed honestly: {reason}" for reason, count in tally.failures.most_common(6)]
        row.asked = tally.asked
        self.rows.append(row)
        if self._report is not None:
            write(self._report, self.rows, seed=self.seed)
        return row

    def compared(
        self,
        name: str,
        api: Api,
        prompts: Sequence[str],
        undisturbed: Sequence[Received],
        seen: Sequence[Received],
        leaks: Sequence[str],
        took_s: float,
        plan: Plan,
    ) -> Row:
        """A row of answers that are judged by earlier ones of the same fleet, which must be whole themselves."""
        clients = Clients(Target(0), self.oracle, rng=random.Random(self.seed))
        for prompt, right, one in zip(prompts, undisturbed, seen, strict=True):
            verdict = judge(api, one, expected_of(api, right))
            clients.tally.asked.append(Asked(api, prompt, 0, one, verdict=verdict))
        return self.told(name, clients, leaks, took_s, plan)

    def judge(self, row: Row, may_fail: Allowed = none_may) -> None:
        """Raises AssertionError with the notes of a scenario that showed something wrong."""
        wrong = [one for one in row.asked if one.verdict is not None and one.verdict.kind is Kind.HONEST]
        needless = [f"{one.name} {one.prompt!r}: {one.verdict}" for one in wrong if not may_fail(one)]
        told = "\n".join([f"{row.scenario} (CHAOS_SEED={self.seed})", *row.notes, *needless[:10]])
        assert not row.lies, told
        assert not row.leaks, told
        assert not needless, told


async def warm(fleet: Fleet, clients: Clients) -> None:
    """Ask every API of every worker before anything is counted, so that what is made once has been made."""
    target = fleet.target
    asked = clients.draw(2 * fleet.plan.workers * len(ALL), ALL, (2, 4))
    await clients.learn(asked)
    for start in range(0, len(asked), 24):
        await asyncio.gather(*(clients.ask(one, target) for one in asked[start : start + 24]))
    wrong = [f"{one.name}: {one.verdict}" for one in asked if one.verdict is None or one.verdict.kind is not Kind.WHOLE]
    assert not wrong, wrong
    assert set(APIS) <= {one.name for one in asked}
    clients.tally.asked.clear()

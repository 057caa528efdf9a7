"""Twice and three times what the workers can do: nearly all their work is answers in time, and no wait for nothing."""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import Counter
from dataclasses import replace

import pytest

from gateway_support import Edge, chat, edge
from neurogate.channel import Call
from neurogate.testing.connections import FakeClient
from neurogate.testing.workers import GOOD_END, Script
from neurogate.virtual_time import run

SLOTS = 4
WORKERS = 2
SERVICE_S = 0.5
CAPACITY = WORKERS * SLOTS / SERVICE_S
DONE = b"data: [DONE]\n\n"
CHUNK = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'


class Engine:
    """Slots, and a queue before them. Unlike a real one it goes on working for clients that have left."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._free_at = [0.0] * SLOTS

    def __call__(self, _: Call) -> Script:
        now = self._loop.time()
        begins_at = max(now, heapq.heappop(self._free_at))
        heapq.heappush(self._free_at, begins_at + SERVICE_S)
        first_s = begins_at + SERVICE_S / 10 - now
        return Script(((first_s, CHUNK), (SERVICE_S * 0.9, DONE), (0.0, GOOD_END)))


class Crowd:
    """Clients who come at random, whatever becomes of those before them."""

    def __init__(self, made: Edge, *, deadline_s: float, batch_deadline_s: float, told: bool, batch: float) -> None:
        self._made = made
        self._deadlines_s = {"interactive": deadline_s, "batch": batch_deadline_s}
        self._told = told
        self._batch = batch
        self._rng = random.Random(7)
        self.good_at: dict[str, list[float]] = {"interactive": [], "batch": []}
        self.asked: Counter[str] = Counter()
        self.good: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.told_after_s: dict[str, list[float]] = {}

    async def come(self, rate: float, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as visits:
            end_at = loop.time() + seconds
            while loop.time() < end_at:
                visits.create_task(self._visit("batch" if self._rng.random() < self._batch else "interactive"))
                await asyncio.sleep(self._rng.expovariate(rate))

    async def _visit(self, priority: str) -> None:
        loop = asyncio.get_running_loop()
        began_at, deadline_s = loop.time(), self._deadlines_s[priority]
        self.asked[priority] += 1
        headers = [("x-neurogate-priority", priority)]
        if self._told:
            headers.append(("x-neurogate-timeout", f"{deadline_s:g}"))
        client = chat(headers=headers)
        leaving = loop.call_later(deadline_s, client.leave)
        await self._made.ask(client)
        leaving.cancel()
        took_s = loop.time() - began_at
        how = _how(client)
        if how == "good" and took_s <= deadline_s:
            self.good_at[priority].append(loop.time())
            self.good[priority] += 1
        self.ended[how] += 1
        self.told_after_s.setdefault(how, []).append(took_s)

    def goodput(self, after_s: float, until_s: float, *priorities: str) -> float:
        """Good answers a second within that time, of all priorities unless some are named."""
        found = (at for priority in priorities or self.good_at for at in self.good_at[priority])
        return sum(after_s <= at < until_s for at in found) / (until_s - after_s)


def _how(client: FakeClient) -> str:
    if client.status == 200:
        return "good" if client.body.endswith(DONE) else "broken"
    return str(client.json()["error"]["code"]) if client.status else "left"


def overloaded(
    load: float,
    *,
    deadline_s: float,
    batch_deadline_s: float | None = None,
    told: bool,
    batch: float = 0.2,
    seconds: float = 60,
    **settings: float,
) -> Crowd:
    """What so long of that much load came to. Batch clients have the others' deadline, or one of their own."""
    found: list[Crowd] = []

    async def main() -> None:
        async with edge(WORKERS, keepalive_s=0, **settings) as made:
            loop = asyncio.get_running_loop()
            for channel in made.data_plane.fleet.channels.values():
                channel.script = Engine(loop)
                channel.tell(replace(channel.present, slots_total=SLOTS))
            crowd = Crowd(
                made,
                deadline_s=deadline_s,
                batch_deadline_s=deadline_s if batch_deadline_s is None else batch_deadline_s,
                told=told,
                batch=batch,
            )
            found.append(crowd)
            await crowd.come(CAPACITY * load, seconds)

    run(main())
    return found[0]


@pytest.mark.parametrize("factor", [2.0, 3.0])
@pytest.mark.parametrize("told", [True, False])
def test_goodput_stays_at_the_capacity(factor: float, told: bool) -> None:
    """Whether clients say how long they wait, or have to be learned from; batch clients that do not say it wait."""
    crowd = overloaded(factor, deadline_s=3, batch_deadline_s=3 if told else 120, told=told)

    assert crowd.goodput(20, 60) >= 0.95 * CAPACITY
    assert sum(crowd.told_after_s["queue_too_long"]) == 0.0  # told at once
    shed = sum(count for how, count in crowd.ended.items() if how != "good")
    assert crowd.ended["queue_too_long"] >= 0.8 * shed
    assert crowd.goodput(0, 60, "interactive") > 6 * crowd.goodput(0, 60, "batch")


def test_goodput_stays_at_the_capacity_while_patience_is_forgotten_and_learned_again() -> None:
    crowd = overloaded(2.0, deadline_s=3, told=False, batch=0.0, seconds=400)

    assert crowd.goodput(20, 400) >= 0.95 * CAPACITY
    shed = sum(count for how, count in crowd.ended.items() if how != "good")
    assert crowd.ended["queue_too_long"] >= 0.8 * shed


def test_batch_clients_that_leave_without_having_waited_cost_their_own_turns_and_no_more() -> None:
    """No batch request is refused for what others did: every ninth turn may be for nothing."""
    crowd = overloaded(2.0, deadline_s=3, told=False)

    assert crowd.goodput(20, 60) >= 8 / 9 * 0.98 * CAPACITY


def test_below_the_capacity_nobody_is_refused() -> None:
    crowd = overloaded(0.8, deadline_s=10, told=True)

    assert set(crowd.ended) == {"good"}


def test_nobody_waits_longer_than_the_queue_allows_and_none_of_the_admitted_is_shed() -> None:
    crowd = overloaded(3.0, deadline_s=60, told=False, queue_timeout_s=2, batch_queue_timeout_s=4)

    assert crowd.goodput(10, 60) >= 0.95 * CAPACITY
    assert set(crowd.ended) <= {"good", "queue_too_long", "queue_timeout"}
    assert max(crowd.told_after_s["queue_timeout"]) == pytest.approx(4, abs=0.01)
    in_engines_s = 2 * SERVICE_S + 0.1  # the room is twice the slots
    assert max(crowd.told_after_s["good"]) <= 4 + in_engines_s


def test_batch_requests_are_shed_before_interactive_ones() -> None:
    """Interactive requests alone would fit: the batch ones that come on top delay none of them for long."""
    crowd = overloaded(1.6, deadline_s=3, told=True, batch=0.5)

    assert crowd.goodput(10, 60) >= 0.95 * CAPACITY
    assert crowd.good["interactive"] >= 0.97 * crowd.asked["interactive"]
    assert crowd.good["batch"] < 0.6 * crowd.asked["batch"]


def test_engines_whose_times_differ_are_not_given_what_they_cannot_finish() -> None:
    """A part of the requests waits in the engines' queues, where it cannot be shed."""
    crowd = overloaded(2.0, deadline_s=3, told=True, factor=1.25)

    assert crowd.goodput(20, 60) >= 0.95 * CAPACITY

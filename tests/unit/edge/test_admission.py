"""Whose turn it is: fairness between keys, priorities, bounds, and nothing left behind."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

import pytest

from dataplane_support import live_timers, turns
from neurogate import virtual_time
from neurogate.edge.admission import INTERACTIVE_TURNS, Admission, Ticket
from neurogate.edge.caller import Priority
from neurogate.edge.settings import AdmissionSettings
from neurogate.errors import QueueFullError, QueueTimeoutError, QueueTooLongError


class Desk:
    """An admission whose room the test decides, and a record of who got a turn."""

    def __init__(self, **settings: float) -> None:
        self.rooms: dict[str, int] = {}
        self.loop = asyncio.get_running_loop()
        self.admission = Admission(
            AdmissionSettings(**settings),  # type: ignore[arg-type]
            has_room=lambda lane, taken: self.rooms.get(lane[0], 0) > taken,
            loop=self.loop,
        )
        self.served: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.tickets: list[Ticket] = []

    def come(
        self,
        key: str,
        *,
        model: str = "",
        priority: Priority = "interactive",
        deadline: float = 1e9,
        told: bool = False,
        max_tokens: int | None = None,
    ) -> tuple[Ticket, asyncio.Task[None]]:
        ticket = self.admission.queue(
            (model, ""), key_id=key, priority=priority, deadline=deadline, told=told, max_tokens=max_tokens
        )
        task = self.loop.create_task(self._wait(ticket))
        self.tasks.append(task)
        self.tickets.append(ticket)
        return ticket, task

    async def _wait(self, ticket: Ticket) -> None:
        if await ticket.turn():
            self.rooms[ticket.lane[0]] = self.rooms.get(ticket.lane[0], 0) - 1
            self.served.append(ticket.key_id)

    async def open(self, room: int, model: str = "") -> None:
        self.rooms[model] = self.rooms.get(model, 0) + room
        self.admission.wake()
        await turns()


def on_a_desk(scenario: Callable[[Desk], Awaitable[None]], **settings: float) -> None:
    """Run a scenario; afterwards nobody waits, no turn is held, no timer is set."""

    async def main() -> None:
        desk = Desk(**settings)
        await scenario(desk)
        for ticket in desk.tickets:
            ticket.leave()
        await asyncio.gather(*desk.tasks, return_exceptions=True)
        assert (desk.admission.waiting, desk.admission.taken) == (0, 0)
        assert live_timers(desk.loop) == []

    virtual_time.run(main())


def test_whoever_finds_room_need_not_wait():
    async def scenario(desk: Desk) -> None:
        await desk.open(1)
        assert desk.admission.free(("", ""))
        desk.rooms[""] = 0
        assert not desk.admission.free(("", ""))

    on_a_desk(scenario)


def test_nobody_overtakes_those_who_wait():
    async def scenario(desk: Desk) -> None:
        desk.come("a")
        await turns()
        desk.rooms[""] = 1  # not told yet
        assert not desk.admission.free(("", ""))
        assert desk.admission.free(("other", "")) is False

    on_a_desk(scenario)


def test_a_lane_without_room_delays_nobody_in_another():
    async def scenario(desk: Desk) -> None:
        desk.come("a", model="busy")
        desk.come("b", model="idle")
        await desk.open(1, model="idle")
        assert desk.served == ["b"]

    on_a_desk(scenario)


def test_keys_take_turns_and_keep_their_own_order():
    async def scenario(desk: Desk) -> None:
        for key in "aaaabbc":
            desk.come(key)
        await turns()
        await desk.open(7)
        assert desk.served == ["a", "b", "c", "a", "b", "a", "a"]

    on_a_desk(scenario)


def test_batch_waits_for_interactive_but_not_for_ever():
    async def scenario(desk: Desk) -> None:
        desk.come("batch", priority="batch")
        for _ in range(INTERACTIVE_TURNS + 3):
            desk.come("chat")
        await turns()
        await desk.open(INTERACTIVE_TURNS + 4)
        assert desk.served.index("batch") == INTERACTIVE_TURNS

    on_a_desk(scenario)


def test_keys_take_turns_over_all_lanes_that_share_workers():
    """A key gains nothing by naming the same workers in more ways."""

    async def scenario(desk: Desk) -> None:
        shared = [0]
        desk.admission._has_room = lambda lane, taken: shared[0] > taken
        for model in ("", "named", "other"):
            for _ in range(5):
                desk.come("greedy", model=model)
        for _ in range(5):
            desk.come("modest", model="named")
        await turns()
        for _ in range(10):
            shared[0] = 1
            desk.admission.wake()
            shared[0] = 0
            await turns()
        assert (desk.served.count("greedy"), desk.served.count("modest")) == (5, 5)

    on_a_desk(scenario)


def test_interactive_requests_go_first_whatever_they_need_and_batch_ones_still_go():
    async def scenario(desk: Desk) -> None:
        shared = [0]
        desk.admission._has_room = lambda lane, taken: shared[0] > taken
        for _ in range(40):
            desk.come("batch", model="a", priority="batch")
        for _ in range(2 * INTERACTIVE_TURNS):
            desk.come("chat", model="b")
        await turns()
        for _ in range(2 * INTERACTIVE_TURNS + 1):
            shared[0] = 1
            desk.admission.wake()
            shared[0] = 0
            await turns()
        assert desk.served == ["chat"] * INTERACTIVE_TURNS + ["batch"] + ["chat"] * INTERACTIVE_TURNS

    on_a_desk(scenario)


def test_whoever_waited_is_told_of_once():
    async def scenario(desk: Desk) -> None:
        told: list[tuple[float, str]] = []
        desk.admission._on_left = lambda seconds, outcome: told.append((seconds, outcome))
        served, leaving, late = (desk.come(key)[0] for key in "abc")
        with pytest.raises(QueueFullError):
            desk.come("d")
        await asyncio.sleep(2)
        await desk.open(1)
        leaving.leave()
        leaving.leave()
        await asyncio.sleep(10)
        assert told == [(0.0, "full"), (2.0, "turn"), (2.0, "left"), (5.0, "timeout")]
        assert (served.position, late.position) == (1, 1)

    on_a_desk(scenario, max_queue=3, queue_timeout_s=5)


def test_no_more_turns_than_room_even_before_the_turns_are_used():
    async def scenario(desk: Desk) -> None:
        for _ in range(5):
            desk.come("a")
        await turns()
        desk.rooms[""] = 2
        desk.admission.wake()
        desk.admission.wake()
        assert desk.admission.taken == 2
        await turns()
        assert len(desk.served) == 2

    on_a_desk(scenario)


def test_the_queue_is_bounded_for_each_priority():
    async def scenario(desk: Desk) -> None:
        for _ in range(2):
            desk.come("a")
        desk.come("b", priority="batch")
        with pytest.raises(QueueFullError, match="NEUROGATE_MAX_QUEUE") as refused:
            desk.come("a")
        assert refused.value.retry_after_s == 1.0
        with pytest.raises(QueueFullError, match="NEUROGATE_MAX_BATCH_QUEUE"):
            desk.come("b", priority="batch")

    on_a_desk(scenario, max_queue=2, max_batch_queue=1)


def test_retry_after_follows_the_pace_of_the_queue():
    async def scenario(desk: Desk) -> None:
        for _ in range(60):
            desk.come("a")
        await turns()
        for _ in range(30):
            await asyncio.sleep(4)
            await desk.open(1)
            desk.come("a")
        with pytest.raises(QueueFullError) as refused:
            desk.come("a")
        assert refused.value.retry_after_s == 60.0

    on_a_desk(scenario, max_queue=60, queue_timeout_s=1000)


def test_a_turn_that_does_not_come_in_time_is_refused():
    async def scenario(desk: Desk) -> None:
        _, task = desk.come("a")
        with pytest.raises(QueueTimeoutError, match=r"within 5\.0 s"):
            await task
        assert desk.loop.time() == pytest.approx(5)

    on_a_desk(scenario, queue_timeout_s=5)


def test_a_request_waits_no_longer_than_its_own_deadline():
    async def scenario(desk: Desk) -> None:
        _, task = desk.come("a", deadline=2)
        with pytest.raises(QueueTimeoutError):
            await task
        assert desk.loop.time() == pytest.approx(2)

    on_a_desk(scenario)


def test_whoever_leaves_makes_place_for_the_others():
    async def scenario(desk: Desk) -> None:
        ticket, task = desk.come("a")
        desk.come("b")
        await turns()
        ticket.leave()
        ticket.leave()
        await task
        assert (desk.served, desk.admission.waiting) == ([], 1)
        await desk.open(1)
        assert desk.served == ["b"]

    on_a_desk(scenario)


def test_a_turn_whose_task_is_cancelled_goes_to_the_next():
    async def scenario(desk: Desk) -> None:
        _, first = desk.come("a")
        desk.come("b")
        await turns()
        desk.rooms[""] = 1
        desk.admission.wake()  # the first one's turn has come
        first.cancel()  # and it never uses it
        await turns()
        assert desk.served == ["b"]

    on_a_desk(scenario)


def test_positions_count_everybody_who_comes_before():
    async def scenario(desk: Desk) -> None:
        for key in "aaabb":
            desk.come(key)
        last, _ = desk.come("b")
        batch, _ = desk.come("c", priority="batch")
        await turns()
        assert (last.position, batch.position) == (6, 7)
        await desk.open(4)
        assert (last.position, batch.position) == (2, 3)
        await desk.open(3)
        assert (last.position, batch.position) == (1, 1)

    on_a_desk(scenario)


def test_new_settings_hold_for_those_who_come_after():
    async def scenario(desk: Desk) -> None:
        desk.come("a")
        desk.admission.configure(AdmissionSettings(max_queue=1))
        with pytest.raises(QueueFullError):
            desk.come("a")

    on_a_desk(scenario)


def until_refused(desk: Desk, key: str, priority: Priority = "interactive") -> None:
    for _ in range(60):
        desk.come(key, priority=priority)


async def moving(desk: Desk, every_s: float, *, turns_had: int = 20) -> None:
    """A queue of one key that has had turns at that pace, and is empty but for one who waits."""
    desk.come("before")
    await turns()
    for _ in range(turns_had):
        desk.come("before")
        await asyncio.sleep(every_s)
        await desk.open(1)
    desk.served.clear()


def test_who_could_not_be_served_in_time_is_told_at_once_and_how_long_it_would_take():
    async def scenario(desk: Desk) -> None:
        await moving(desk, 1.0)
        with pytest.raises(QueueTooLongError, match=r"in about \d+\.\d s") as refused:
            until_refused(desk, "a")
        assert 9 <= desk.admission.waiting <= 12
        assert refused.value.retry_after_s == pytest.approx(11.0, rel=0.1)
        assert desk.loop.time() == 20

    on_a_desk(scenario, queue_timeout_s=10)


def test_the_same_queue_takes_another_key_in_whose_turn_comes_sooner():
    async def scenario(desk: Desk) -> None:
        await moving(desk, 1.0)
        with pytest.raises(QueueTooLongError):
            until_refused(desk, "greedy")
        ticket, _ = desk.come("modest")
        assert ticket.position < 5

    on_a_desk(scenario, queue_timeout_s=10)


def test_nobody_is_refused_for_a_pace_that_is_not_known():
    async def scenario(desk: Desk) -> None:
        for _ in range(100):
            desk.come("a")
        await asyncio.sleep(1)
        assert desk.admission.waiting == 100

    on_a_desk(scenario, queue_timeout_s=10)


def test_a_request_with_little_time_is_refused_where_others_wait():
    async def scenario(desk: Desk) -> None:
        await moving(desk, 1.0)
        for _ in range(5):
            desk.come("a")
        with pytest.raises(QueueTooLongError):
            desk.come("a", deadline=desk.loop.time() + 3)
        desk.come("a", deadline=desk.loop.time() + 30)

    on_a_desk(scenario, queue_timeout_s=60)


def test_batch_requests_wait_at_their_own_pace_and_for_their_own_time():
    async def scenario(desk: Desk) -> None:
        late = [desk.come("b", priority="batch")[1] for _ in range(10)]
        await turns()
        for _ in range(30):
            for _ in range(3):
                desk.come("chat")
            await asyncio.sleep(1)
            await desk.open(2)
        assert 5 <= desk.served.count("b") < 10
        with pytest.raises(QueueTooLongError):
            until_refused(desk, "b", "batch")
        assert 5 <= desk.admission._lines["batch"].length - (10 - desk.served.count("b")) <= 15
        assert sum(task.done() for task in late) == desk.served.count("b")

    on_a_desk(scenario, queue_timeout_s=1000, batch_queue_timeout_s=40)


def takes(desk: Desk, seconds: float, *, model: str = "", max_tokens: int | None = None, times: int = 8) -> None:
    """As if so many requests like this had taken so long."""
    for _ in range(times):
        desk.admission._needs.of((model, ""), max_tokens).answered(seconds)


def test_what_cannot_be_finished_in_time_is_not_begun_and_the_turn_is_the_next_ones():
    async def scenario(desk: Desk) -> None:
        takes(desk, 4.0)
        first, first_task = desk.come("a", deadline=20)
        desk.come("b", deadline=100)
        await turns()
        first.give_up_at = 100  # as if it were learned only now how long requests take
        await asyncio.sleep(0.5)
        takes(desk, 60.0, times=200)
        await desk.open(1)
        assert desk.served == ["b"]
        with pytest.raises(QueueTimeoutError):
            await first_task

    on_a_desk(scenario)


def test_a_request_waits_only_as_long_as_there_is_time_left_to_answer_it():
    async def scenario(desk: Desk) -> None:
        takes(desk, 4.0)
        _, task = desk.come("a", deadline=10)
        with pytest.raises(QueueTimeoutError):
            await task
        assert desk.loop.time() == pytest.approx(10 - 1.1 * 4)

    on_a_desk(scenario)


def test_a_short_request_is_not_refused_for_what_long_ones_and_those_for_other_models_take():
    async def scenario(desk: Desk) -> None:
        await moving(desk, 1.0)
        takes(desk, 60.0)
        takes(desk, 60.0, max_tokens=2048)
        takes(desk, 60.0, model="large", max_tokens=16)
        with pytest.raises(QueueTooLongError):
            desk.come("a", deadline=desk.loop.time() + 5)
        ticket, _ = desk.come("a", deadline=desk.loop.time() + 5, max_tokens=16)
        await desk.open(2)
        assert "a" in desk.served
        assert ticket.turn_at

    on_a_desk(scenario)


async def leave_one_after_the_other(desk: Desk, key: str, count: int, *, waited_s: float, took_s: float) -> None:
    """Clients who wait for that long, get their turn, and leave so long after it."""
    for _ in range(count):
        ticket, task = desk.come(key)
        await asyncio.sleep(waited_s)
        await desk.open(1)
        await task
        await asyncio.sleep(took_s)
        desk.admission.wasted(ticket, client_left=True)


def test_clients_of_one_key_who_leave_delay_nobody_elses_and_no_batch_request():
    """An editor cancels its completions; a batch job of the same key, and another key's chats, wait as long as ever."""

    async def scenario(desk: Desk) -> None:
        await leave_one_after_the_other(desk, "ide", 40, waited_s=2, took_s=0.3)
        await moving(desk, 1.0)
        with pytest.raises(QueueTooLongError):
            until_refused(desk, "ide")
        assert desk.admission._lines["interactive"].length < 5
        for _ in range(30):
            desk.come("chat")
        for key in ("ide", "docs"):
            for _ in range(30):
                desk.come(key, priority="batch")
        assert desk.admission.waiting > 90

    on_a_desk(scenario, queue_timeout_s=100, batch_queue_timeout_s=3600)


def test_clients_who_cancel_now_and_then_are_not_refused_what_comes_within_five_seconds():
    async def scenario(desk: Desk) -> None:
        for count in range(60):
            await leave_one_after_the_other(desk, "ide", 1, waited_s=1 + count % 3, took_s=0.3 + count % 7)
        await moving(desk, 1.0)
        for _ in range(3):
            desk.come("ide")

    on_a_desk(scenario)


def test_batch_clients_who_leave_teach_nothing():
    async def scenario(desk: Desk) -> None:
        for _ in range(40):
            ticket, task = desk.come("docs", priority="batch")
            await asyncio.sleep(2)
            await desk.open(1)
            await task
            desk.admission.wasted(ticket, client_left=True)
        await moving(desk, 1.0)
        for _ in range(20):
            desk.come("docs")

    on_a_desk(scenario)


def test_who_says_how_long_it_waits_is_believed():
    async def scenario(desk: Desk) -> None:
        await leave_one_after_the_other(desk, "a", 16, waited_s=2, took_s=0.3)
        await moving(desk, 1.0)
        for _ in range(4):
            desk.come("b")
        for _ in range(2):
            desk.come("a", told=True, deadline=desk.loop.time() + 30)
        with pytest.raises(QueueTooLongError):
            desk.come("a")

    on_a_desk(scenario)


def test_who_waited_before_it_was_known_that_their_clients_leave_is_not_begun_for_nothing():
    async def scenario(desk: Desk) -> None:
        takes(desk, 1.0)
        tickets = [desk.come("a") for _ in range(16)]
        await asyncio.sleep(2.5)
        _, waits = desk.come("a")
        await desk.open(16)
        await asyncio.sleep(0.5)
        _, waits_less = desk.come("a")
        for ticket, _ in tickets:
            desk.admission.wasted(ticket, client_left=True)
        await asyncio.sleep(1.5)
        await desk.open(16)
        await waits_less
        with pytest.raises(QueueTimeoutError):
            await waits

    on_a_desk(scenario)


def test_an_answer_to_one_who_waited_longer_has_others_wait_as_long_again():
    async def scenario(desk: Desk) -> None:
        await leave_one_after_the_other(desk, "a", 16, waited_s=2, took_s=0.3)
        now = desk.loop.time()
        assert desk.admission._patience.limit_s("a", now) < 2.0
        ticket, task = desk.come("a")
        await asyncio.sleep(3)
        await desk.open(1)
        await task
        desk.admission.answered(ticket)
        assert desk.admission._patience.limit_s("a", now) == math.inf

    on_a_desk(scenario)


def test_after_a_short_rest_clients_may_have_more_patience():
    async def scenario(desk: Desk) -> None:
        await leave_one_after_the_other(desk, "a", 16, waited_s=2, took_s=0.3)
        desk.come("a")
        assert desk.admission._patience.limit_s("a", desk.loop.time()) < 2.0
        await desk.open(1)
        await asyncio.sleep(11)
        desk.come("a")
        assert desk.admission._patience.limit_s("a", desk.loop.time()) == math.inf

    on_a_desk(scenario)

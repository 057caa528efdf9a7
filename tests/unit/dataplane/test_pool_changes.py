"""A fleet that is changed while it works: workers that leave, are cordoned, and are judged by other bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from dataplane_support import Rig, endpoint, rig, turns
from neurogate import virtual_time
from neurogate.balancing.round_robin import RoundRobin
from neurogate.channel import EndCode
from neurogate.dataplane.dispatch import DispatchLimits
from neurogate.endpoint import Endpoint
from neurogate.errors import NoWorkerError, WorkerNotFoundError
from neurogate.resilience.breaker import BreakerSettings
from neurogate.testing.workers import answers, ends


@asynccontextmanager
async def patient(workers: int, leave_s: float = 10.0) -> AsyncIterator[Rig]:
    """A rig whose removed workers may finish."""
    async with rig(workers) as made:
        made.pool.leave_s = leave_s
        yield made


def test_a_removed_worker_finishes_what_it_holds_and_gets_nothing_new():
    async def main() -> None:
        async with patient(2) as made:
            exchange, receiver = made.send()
            assert exchange.worker_id == "worker-0"
            old, channel = made.member(0), made.worker(0)
            await made.name(endpoint(1))

            assert made.pool.leaving == (old,)
            assert [made.send()[0].worker_id for _ in range(3)] == ["worker-1"] * 3
            channel.calls[0].chunk(b"all of it")
            channel.calls[0].end()
            assert await receiver.last_word() == "complete"
            assert receiver.body == b"all of it"
            await turns()
            assert made.pool.leaving == ()
            assert not channel.served
            assert made.observer.retries == []
            assert made.observer.workers[-2:] == [("worker-0", "draining", "removed"), ("worker-0", "removed", "")]
            for call in made.worker(1).calls:
                call.end()

    virtual_time.run(main())


def test_a_removed_worker_that_takes_too_long_is_cut_and_its_requests_move():
    async def main() -> None:
        async with patient(2, leave_s=5.0) as made:
            made.worker(1).script = answers(b"from 1")
            _, receiver = made.send()
            await made.name(endpoint(1))
            await asyncio.sleep(4.9)
            assert receiver.last_words == []
            await asyncio.sleep(0.2)

            assert (await receiver.last_word(), receiver.body) == ("complete", b"from 1")
            assert made.pool.leaving == ()

    virtual_time.run(main())


def test_a_removed_worker_that_dies_hands_its_requests_on():
    async def main() -> None:
        async with patient(2) as made:
            made.worker(1).script = answers(b"from 1")
            _, receiver = made.send()
            channel = made.worker(0)
            await made.name(endpoint(1))
            channel.die()

            assert (await receiver.last_word(), receiver.body) == ("complete", b"from 1")
            await turns()
            assert made.pool.leaving == ()

    virtual_time.run(main())


def test_a_worker_that_leaves_makes_room_for_one_of_its_name():
    """Metrics of the name are the new worker's: nobody hears that the old one is gone."""

    async def main() -> None:
        async with patient(1) as made:
            _, receiver = made.send()
            channel = made.worker(0)
            await made.name(endpoint(0, port=50052))
            channel.calls[0].end()

            assert await receiver.last_word() == "complete"
            await turns()
            assert made.pool.leaving == ()
            assert [event for _, event, _ in made.observer.workers[-2:]] == ["draining", "added"]

    virtual_time.run(main())


def test_a_fleet_that_ends_does_not_wait_for_who_leaves():
    async def main() -> None:
        async with patient(1, leave_s=1000) as made:
            _, receiver = made.send(timeout_s=5)
            await made.name()
            assert len(made.pool.leaving) == 1
            await receiver.last_word()  # its own deadline

    virtual_time.run(main())


def test_a_cordoned_worker_gets_nothing_new_while_what_it_holds_goes_on():
    async def main() -> None:
        async with rig(2) as made:
            _, receiver = made.send()
            assert made.pool.cordon("worker-0") is made.member(0)
            made.pool.cordon("worker-0")  # once more is nothing
            assert [made.send()[0].worker_id for _ in range(2)] == ["worker-1"] * 2
            made.worker(0).calls[0].end()
            assert await receiver.last_word() == "complete"
            await made.name(endpoint(0), endpoint(1), endpoint(2))
            assert made.member(0).cordoned, "a changed list does not take a cordon back"

            made.pool.uncordon("worker-0")
            made.pool.uncordon("worker-0")
            assert "worker-0" in {made.send()[0].worker_id for _ in range(2)}
            assert [event for event in made.observer.workers if event[0] == "worker-0"][-2:] == [
                ("worker-0", "draining", "cordoned"),
                ("worker-0", "ready", "no longer cordoned"),
            ]
            for index in range(3):
                for call in made.worker(index).calls:
                    call.end()

    virtual_time.run(main())


def test_a_fleet_that_is_cordoned_refuses_and_says_why():
    async def main() -> None:
        async with rig(1, limits=DispatchLimits(failfast_s=0)) as made:
            made.pool.cordon("worker-0")
            _, receiver = made.send()

            assert isinstance(receiver.error, NoWorkerError)
            assert "worker-0: cordoned" in str(receiver.error)

    virtual_time.run(main())


def test_a_cordoned_worker_is_not_even_the_last_resort():
    async def main() -> None:
        async with rig(1, limits=DispatchLimits(failfast_s=0)) as made:
            await made.open_breaker()
            made.pool.cordon("worker-0")

            assert isinstance(made.send()[1].error, NoWorkerError)

    virtual_time.run(main())


@pytest.mark.parametrize("call", ["cordon", "uncordon", "reset_breaker"])
def test_a_worker_that_there_is_not_is_named_with_those_that_there_are(call: str):
    async def main() -> None:
        async with rig(2) as made:
            with pytest.raises(WorkerNotFoundError, match="no worker 'worker-7'; the workers are: worker-0, worker-1"):
                getattr(made.pool, call)("worker-7")

    virtual_time.run(main())


def test_a_breaker_that_is_reset_admits_at_once():
    async def main() -> None:
        async with rig(2) as made:
            await made.open_breaker(0)
            assert made.member(0).readmission is not None
            made.pool.reset_breaker("worker-0")

            member = made.member(0)
            assert (member.breaker.state, member.breaker.consecutive_failures, member.readmission) == (
                "closed",
                0,
                None,
            )
            assert len(made.pool.snapshot.admitting("")) == 2
            assert made.observer.breakers == [("worker-0", "open"), ("worker-0", "closed")]

    virtual_time.run(main())


def test_other_bounds_hold_for_the_breakers_that_there_are():
    async def main() -> None:
        async with rig(2) as made:
            made.member(0).breaker.record_failure()
            made.pool.configure(BreakerSettings(fail_max=2, reset_timeout_s=7.0))
            made.member(0).breaker.record_failure()

            assert made.member(0).breaker.state == "open"
            await asyncio.sleep(7.1)
            assert len(made.pool.snapshot.admitting("")) == 2

    virtual_time.run(main())


def test_an_open_breaker_admits_its_probe_by_the_new_time():
    async def main() -> None:
        async with rig(2) as made:
            await made.open_breaker(0)
            await asyncio.sleep(1)
            made.pool.configure(BreakerSettings(fail_max=3, reset_timeout_s=2.0))
            await asyncio.sleep(0.9)
            assert len(made.pool.snapshot.admitting("")) == 1
            await asyncio.sleep(0.2)
            assert len(made.pool.snapshot.admitting("")) == 2

    virtual_time.run(main())


def test_the_dispatcher_takes_other_bounds_and_another_policy():
    class Last:
        def pick(self, candidates, exclude):  # type: ignore[no-untyped-def]
            return next((each for each in reversed(candidates) if each.id not in exclude), None)

    async def main() -> None:
        async with rig(2, picker=RoundRobin()) as made:
            made.dispatcher.use(Last())
            made.dispatcher.configure(DispatchLimits(retries=0, failfast_s=0.5, max_waiting=1, max_answer_bytes=9))
            made.worker(1).script = ends(EndCode.UNAVAILABLE)
            exchange, receiver = made.send()
            await receiver.last_word()

            assert (exchange.worker_id, exchange.attempts) == ("worker-1", 1)
            assert made.dispatcher.failfast_s == 0.5
            assert made.dispatcher.max_answer_bytes == 9

    virtual_time.run(main())


def test_a_retry_budget_takes_another_ratio():
    async def main() -> None:
        async with rig(1) as made:
            before = made.budget.balance
            made.budget.configure(ratio=0.5)
            assert made.budget.balance == before
            made.budget.configure(ratio=0)
            assert made.budget.balance == 0
            made.budget.configure(ratio=1)
            made.budget.deposit()
            assert made.budget.balance == 1

    virtual_time.run(main())


def test_a_large_change_comes_in_steps_between_which_others_have_their_turn():
    async def main() -> None:
        async with rig(2) as made:
            sizes: list[int] = []

            async def look_on() -> None:
                while len(made.pool.snapshot.members) < 100:
                    await asyncio.sleep(0)
                    sizes.append(len(made.pool.snapshot.members))

            looking = asyncio.create_task(look_on())
            made.resolver.publish(*(endpoint(index) for index in range(100)))
            await looking

            steps = [after - before for before, after in pairwise(sizes)]
            assert 0 < max(steps) <= 16
            assert ids(made) == [f"worker-{index}" for index in range(100)]
            await made.name(endpoint(0))
            await turns(10)
            assert ids(made) == ["worker-0"]

    virtual_time.run(main())


def test_a_worker_that_moves_is_there_all_the_while():
    async def main() -> None:
        async with rig(1) as made:
            seen: set[int] = set()
            made.pool.on_publish(lambda: seen.add(len(made.pool.snapshot.members)))
            await made.name(Endpoint("worker-0", "elsewhere:1"))

            assert seen == {1}
            assert made.member(0).endpoint.address == "elsewhere:1"

    virtual_time.run(main())


def test_changes_of_one_turn_are_published_together():
    async def main() -> None:
        async with rig(20) as made:
            heard: list[int] = []
            made.pool.on_publish(lambda: heard.append(len(made.pool.snapshot.admitting(""))))
            before = made.pool.snapshot
            for index in range(20):
                made.pool.cordon(f"worker-{index}")
            assert before.generation == made.pool.snapshot.generation - 20
            assert len(before.admitting("")) == 20
            await turns()

            assert heard == [0]

    virtual_time.run(main())


def test_what_a_listener_publishes_is_heard_as_well():
    async def main() -> None:
        async with rig(2) as made:
            heard: list[int] = []

            def listen() -> None:
                heard.append(made.pool.snapshot.generation)
                if len(heard) == 1:
                    made.pool.cordon("worker-0")

            made.pool.on_publish(listen)
            made.pool.publish()
            await turns()

            assert heard == [heard[0], heard[0] + 1]

    virtual_time.run(main())


def ids(made: Rig) -> list[str]:
    return [member.id for member in made.pool.snapshot.members]


def test_a_large_fleet_that_moves_never_seems_to_lack_a_model() -> None:
    async def main() -> None:
        models = {f"worker-{number}": (("a",) if number < 32 else ("b",)) for number in range(64)}
        async with rig(64, models=models) as made:
            await turns(10)
            made.resolver.publish(*[endpoint(number, port=6000) for number in range(64)])
            asked = []
            for _ in range(14):
                await asyncio.sleep(0)
                snapshot = made.pool.snapshot
                assert len(snapshot.members) == 64
                assert "a" in snapshot.models or not snapshot.heard_of_all
                asked.append(made.send(model="a"))
            assert [receiver.error for _, receiver in asked] == [None] * 14
            for exchange, _ in asked:
                exchange.cancel()
            await turns(10)
            made._remember()

    virtual_time.run(main())

"""The pool: membership, link events, snapshots and those who wait for a better one."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from dataplane_support import Rig, endpoint, rig, turns
from neurogate import virtual_time
from neurogate.channel import EndCode
from neurogate.dataplane.pool import EndpointPool
from neurogate.endpoint import Endpoint
from neurogate.resilience.breaker import BreakerSettings, Outcome
from neurogate.testing.observers import RecordingFleetObserver
from neurogate.testing.resolver import ManualResolver
from neurogate.testing.workers import FakeFleet, answers


def ids(members: tuple) -> list[str]:
    return [member.id for member in members]


# Membership


def test_every_named_worker_becomes_a_member_with_a_running_link():
    async def main() -> None:
        async with rig(2, up=False) as made:
            assert ids(made.pool.snapshot.members) == ["worker-0", "worker-1"]
            assert [made.worker(index).served for index in range(2)] == [True, True]
            assert made.observer.workers == [
                ("worker-0", "added", "host-0:50051"),
                ("worker-1", "added", "host-1:50051"),
            ]
            assert made.pool.snapshot.admitting("") == ()

    virtual_time.run(main())


def test_a_member_that_stays_keeps_its_link_and_its_state():
    async def main() -> None:
        async with rig(2) as made:
            member, channel = made.member(0), made.worker(0)
            member.breaker.record_failure()
            await made.name(endpoint(0), endpoint(2))

            assert made.member(0) is member
            assert made.worker(0) is channel
            assert channel.up
            assert ids(made.pool.snapshot.members) == ["worker-0", "worker-2"]
            assert made.observer.workers[-2:] == [("worker-2", "added", "host-2:50051"), ("worker-1", "removed", "")]
            assert not made.worker(1).served

    virtual_time.run(main())


def test_a_worker_at_another_address_is_another_worker():
    async def main() -> None:
        async with rig(1) as made:
            old_member, old_channel = made.member(0), made.worker(0)
            await made.open_breaker(0)
            await made.name(endpoint(0, port=50052))
            await turns()

            assert made.member(0) is not old_member
            assert made.member(0).breaker.state == "closed"
            assert not old_channel.served
            assert made.worker(0) is not old_channel
            assert made.worker(0).endpoint.address == "host-0:50052"

    virtual_time.run(main())


def test_removal_ends_the_requests_the_worker_held_and_they_move():
    async def main() -> None:
        async with rig(2) as made:
            made.worker(1).script = answers(b"from 1")
            exchange, receiver = made.send()
            assert exchange.worker_id == "worker-0"
            gone = made.member(0)
            await made.name(endpoint(1))

            assert await receiver.last_word() == "complete"
            assert (receiver.body, exchange.worker_id) == (b"from 1", "worker-1")
            assert made.observer.retries == [("worker-0", "link_lost")]
            assert gone.in_flight == 0

    virtual_time.run(main())


def test_what_becomes_of_a_removed_workers_requests_is_not_told_of_its_successor():
    """Three lost requests open the old breaker; the worker of that name now is another one, with a closed breaker."""

    async def main() -> None:
        async with rig(1) as made:
            receivers = [made.send(timeout_s=1)[1] for _ in range(3)]
            old = made.member(0)
            await made.name(endpoint(0, port=50052))
            for receiver in receivers:
                await receiver.last_word()

            assert old.breaker.state == "open"
            assert made.observer.breakers == []
            assert made.member(0).breaker.state == "closed"

    virtual_time.run(main())


def test_a_removed_workers_last_words_are_not_heard():
    async def main() -> None:
        async with rig(2) as made:
            channel = made.worker(0)
            made.resolver.publish(endpoint(1))
            while len(made.pool.snapshot.members) == 2:
                await turns(1)
            assert channel.up  # its link is being closed: the worker talks on for a moment
            heard = list(made.observer.workers)
            channel.become_unready()
            channel.die()
            channel.refuse_connection()
            channel.come_up()

            assert made.observer.workers == heard
            assert ids(made.pool.snapshot.members) == ["worker-1"]

    virtual_time.run(main())


def test_an_empty_set_leaves_nobody():
    async def main() -> None:
        async with rig(2) as made:
            await made.name()

            assert made.pool.snapshot.members == ()

    virtual_time.run(main())


def test_a_resolver_that_ends_leaves_the_fleet_as_it_is():
    async def main() -> None:
        async with rig(1) as made:
            made.resolver.finish()
            await turns()

            assert made.worker(0).up
            assert (await made_answer(made)) == b"still here"

    async def made_answer(made: Rig) -> bytes:
        made.worker(0).script = answers(b"still here")
        return (await made.ask()).body

    virtual_time.run(main())


def test_resolved_waits_for_the_first_set_and_for_no_worker():
    async def main() -> None:
        loop = asyncio.get_running_loop()
        resolver = ManualResolver()
        fleet = FakeFleet(loop)
        pool = EndpointPool(fleet.connect, breaker=BreakerSettings(), loop=loop, observer=RecordingFleetObserver())
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(pool.run(resolver))
            waiting = tasks.create_task(pool.resolved())
            await turns()
            assert not waiting.done()

            resolver.publish(Endpoint("worker-0", "a:1"))
            await waiting
            await pool.resolved()
            running.cancel()
        assert not fleet["worker-0"].served

    virtual_time.run(main())


# Link events


def test_a_link_that_comes_up_makes_the_worker_pickable():
    async def main() -> None:
        async with rig(1, up=False, models={"worker-0": ("llama",)}) as made:
            made.worker().come_up()

            member = made.member()
            assert (member.linked, member.usable, member.reachable_once, member.last_error) == (True, True, True, "")
            assert made.pool.snapshot.admitting("") == (member,)
            assert made.pool.snapshot.admitting("llama") == (member,)
            assert made.observer.workers[1:] == [("worker-0", "linked", "worker-0"), ("worker-0", "ready", "")]

    virtual_time.run(main())


def test_ready_not_ready_and_draining_are_told_and_published():
    async def main() -> None:
        async with rig(1) as made:
            channel, told = made.worker(), made.observer.workers
            channel.become_unready("loading")
            assert (made.pool.snapshot.admitting(""), told[-1]) == ((), ("worker-0", "not_ready", "loading"))

            channel.become_ready()
            assert (made.pool.snapshot.admitting(""), told[-1]) == ((made.member(),), ("worker-0", "ready", ""))

            channel.drain()
            assert (made.pool.snapshot.admitting(""), told[-1]) == ((), ("worker-0", "draining", ""))

    virtual_time.run(main())


def test_other_models_are_published_without_an_event():
    async def main() -> None:
        async with rig(1, models={"worker-0": ("llama",)}) as made:
            events = len(made.observer.workers)
            made.worker().become_ready(models=("qwen",))

            assert made.pool.snapshot.admitting("llama") == ()
            assert made.pool.snapshot.admitting("qwen") == (made.member(),)
            assert made.pool.snapshot.models == {"qwen"}
            assert len(made.observer.workers) == events

    virtual_time.run(main())


def test_a_report_that_changes_nothing_makes_no_snapshot():
    async def main() -> None:
        async with rig(1) as made:
            snapshot = made.pool.snapshot
            made.worker().tell(replace(made.worker().present, running=5, seq=2))

            assert made.pool.snapshot is snapshot
            assert made.member().load == 5

    virtual_time.run(main())


def test_a_lost_link_counts_one_failure_and_makes_the_worker_unpickable():
    async def main() -> None:
        async with rig(1) as made:
            made.worker().die("connection reset")

            member = made.member()
            assert (member.linked, member.last_error) == (False, "connection reset")
            assert member.breaker.consecutive_failures == 1
            assert made.pool.snapshot.admitting("") == ()
            assert made.observer.workers[-1] == ("worker-0", "lost", "connection reset")

    virtual_time.run(main())


def test_a_worker_that_comes_back_is_pickable_with_the_report_it_had():
    async def main() -> None:
        async with rig(1) as made:
            made.worker().die()
            made.worker().come_up()

            assert made.pool.snapshot.admitting("") == (made.member(),)
            assert made.member().last_error == ""

    virtual_time.run(main())


def test_failed_connects_of_a_worker_that_was_there_count():
    async def main() -> None:
        async with rig(1) as made:
            made.worker().die()
            made.worker().refuse_connection("connection refused")
            assert made.member().breaker.state == "closed"

            made.worker().refuse_connection("connection refused")

            assert made.member().breaker.state == "open"
            assert made.member().last_error == "connection refused"
            assert made.observer.breakers == [("worker-0", "open")]

    virtual_time.run(main())


def test_failed_connects_of_a_worker_that_was_never_there_do_not_count():
    async def main() -> None:
        async with rig(1, up=False) as made:
            for _ in range(10):
                made.worker().refuse_connection("connection refused")

            assert made.member().breaker.consecutive_failures == 0
            assert made.member().last_error == "connection refused"

    virtual_time.run(main())


def test_a_planned_leave_does_not_count_nor_do_the_connects_that_fail_after_it():
    async def main() -> None:
        async with rig(1) as made:
            made.worker().drain()
            made.worker().leave("bye")
            for _ in range(10):
                made.worker().refuse_connection()

            assert made.member().breaker.consecutive_failures == 0
            assert made.observer.workers[-1] == ("worker-0", "left", "bye")

            made.worker().become_ready()
            made.worker().come_up()
            assert made.member().usable
            made.worker().die()
            made.worker().refuse_connection()
            assert made.member().breaker.consecutive_failures == 2

    virtual_time.run(main())


# Snapshots


def test_generations_rise_and_a_held_snapshot_stays_as_it_was():
    async def main() -> None:
        async with rig(2) as made:
            held = made.pool.snapshot
            made.worker(0).die()

            assert made.pool.snapshot.generation > held.generation
            assert ids(held.admitting("")) == ["worker-0", "worker-1"]
            assert ids(made.pool.snapshot.admitting("")) == ["worker-1"]

    virtual_time.run(main())


def test_each_model_has_its_own_candidates():
    async def main() -> None:
        models = {"worker-0": ("llama",), "worker-1": ("llama", "qwen"), "worker-2": ()}
        async with rig(3, models=models) as made:
            snapshot = made.pool.snapshot

            assert ids(snapshot.admitting("")) == ["worker-0", "worker-1", "worker-2"]
            assert ids(snapshot.admitting("llama")) == ["worker-0", "worker-1"]
            assert ids(snapshot.admitting("qwen")) == ["worker-1"]
            assert snapshot.admitting("phi") == ()
            assert snapshot.models == {"llama", "qwen"}

    virtual_time.run(main())


def test_a_down_workers_models_are_remembered():
    async def main() -> None:
        async with rig(1, models={"worker-0": ("llama",)}) as made:
            made.worker().die()

            assert made.pool.snapshot.models == {"llama"}
            assert made.pool.snapshot.suspended("llama") == ()

    virtual_time.run(main())


def test_an_open_breaker_suspends_its_worker():
    async def main() -> None:
        async with rig(2, models={"worker-0": ("llama",)}) as made:
            await made.open_breaker(0)

            snapshot = made.pool.snapshot
            assert ids(snapshot.admitting("")) == ["worker-1"]
            assert ids(snapshot.suspended("")) == ids(snapshot.suspended("llama")) == ["worker-0"]
            assert snapshot.suspended("qwen") == ()

    virtual_time.run(main())


def test_an_open_breakers_worker_is_a_candidate_again_when_its_time_is_over():
    async def main() -> None:
        async with rig(2) as made:
            await made.open_breaker(0)
            await asyncio.sleep(29.99)
            assert ids(made.pool.snapshot.admitting("")) == ["worker-1"]

            await asyncio.sleep(0.02)

            assert ids(made.pool.snapshot.admitting("")) == ["worker-0", "worker-1"]
            assert made.member(0).breaker.state == "open"  # its probe has not been sent

    virtual_time.run(main())


@pytest.mark.parametrize("reset_timeout_s", [30.0, 0.03, 0.7])
def test_the_worker_is_a_candidate_again_whichever_way_the_clock_rounds(reset_timeout_s: float):
    """A timer may fire a tick early, or be due at a moment that a float addition puts a tick later."""

    async def main() -> None:
        async with rig(2, breaker=BreakerSettings(3, reset_timeout_s)) as made:
            loop = asyncio.get_running_loop()
            for step in range(300):
                await asyncio.sleep(0.001 * (step % 7 + 1) / 3)
                await made.open_breaker(0)
                due = made.member(0).breaker.retry_at
                loop.call_at(due - 1e-12, lambda: None)  # something else that is due at about that moment
                await asyncio.sleep(reset_timeout_s + 0.002)

                assert ids(made.pool.snapshot.admitting("")) == ["worker-0", "worker-1"], (step, due)
                probe = made.member(0).breaker.try_acquire()
                assert probe is not None
                probe.settle(Outcome.SUCCESS)

    virtual_time.run(main())


# Waiting


def test_a_waiter_is_called_once_after_the_next_snapshot():
    async def main() -> None:
        async with rig(1) as made:
            called = []
            made.pool.wait(lambda: called.append(made.pool.snapshot.generation))
            assert made.pool.waiting == 1
            before = made.pool.snapshot.generation
            made.pool.publish()
            made.pool.publish()
            assert (called, made.pool.waiting) == ([], 0)  # not from within publish: it has callers of its own
            await turns()

            assert called == [before + 2]

    virtual_time.run(main())


def test_a_waiter_taken_back_is_not_called():
    async def main() -> None:
        async with rig(1) as made:
            called: list[int] = []

            def waiter() -> None:
                called.append(1)

            made.pool.wait(waiter)
            made.pool.unwait(waiter)
            made.pool.unwait(waiter)
            made.pool.publish()
            await turns()

            assert (called, made.pool.waiting) == ([], 0)

    virtual_time.run(main())


def test_repr_shows_workers_and_requests():
    async def main() -> None:
        async with rig(2) as made:
            made.worker(1).die()
            exchange, _ = made.send()
            made.pool.wait(lambda: None)

            assert repr(made.pool) == ("<EndpointPool [Workers: 1 linked, 2 known | Requests: 1 in flight, 1 waiting]>")
            exchange.cancel()
            made.pool.publish()

    virtual_time.run(main())


def test_stopping_the_pool_ends_the_requests_in_flight():
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with rig(1) as made:
            exchange, receiver = made.send(timeout_s=1)
            (running,) = [task for task in asyncio.all_tasks(loop) if task.get_name() == "pool"]
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

            assert await receiver.last_word() == "error"
            assert made.worker().calls[0].ended
            assert exchange.finished
            assert receiver.error is not None
            assert EndCode.LINK_LOST.name not in receiver.error.message

    virtual_time.run(main())

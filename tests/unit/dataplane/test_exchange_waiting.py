"""Requests without a worker: how long they wait, for whom, and what they are told."""

from __future__ import annotations

import asyncio

from dataplane_support import rig, turns
from neurogate import virtual_time
from neurogate.channel import EndCode
from neurogate.dataplane.dispatch import MOVES_MAX, DispatchLimits
from neurogate.errors import ModelNotFoundError, NoWorkerError
from neurogate.testing.workers import HANGS, answers, ends

TWO_MODELS = {"worker-0": ("llama",), "worker-1": ("qwen",)}


def test_a_request_without_a_worker_fails_after_the_failfast_time():
    async def main() -> None:
        async with rig(1, up=False) as made:
            receiver = await made.ask()

            assert type(receiver.error) is NoWorkerError
            assert receiver.ended_at == 2.0
            assert "worker-0: unreachable" in receiver.error.message
            assert receiver.error.retry_after_s == 1.0

    virtual_time.run(main())


def test_a_worker_that_comes_in_time_gets_the_request():
    async def main() -> None:
        async with rig(1, up=False) as made:
            exchange, receiver = made.send()
            made.worker().script = answers(b"x")
            await asyncio.sleep(1.9)
            assert (exchange.attempts, made.pool.waiting) == (0, 1)
            made.worker().come_up()

            assert await receiver.last_word() == "complete"
            assert receiver.ended_at == 1.9
            assert (exchange.attempts, exchange.worker_id) == (1, "worker-0")

    virtual_time.run(main())


def test_a_worker_that_comes_too_late_does_not():
    async def main() -> None:
        async with rig(1, up=False) as made:
            receiver = await made.ask()
            made.worker().come_up()
            await asyncio.sleep(1)

            assert (receiver.heard, len(made.worker().calls)) == (["error"], 0)

    virtual_time.run(main())


def test_news_that_bring_no_worker_do_not_prolong_the_wait():
    async def main() -> None:
        async with rig(2, up=False) as made:
            _, receiver = made.send()
            for _ in range(10):
                await asyncio.sleep(0.15)
                made.pool.publish()

            assert receiver.heard == []
            await receiver.last_word()
            assert receiver.ended_at == 2.0

    virtual_time.run(main())


def test_once_all_were_tried_the_request_waits_for_one_that_comes_back():
    async def main() -> None:
        async with rig(2) as made:
            made.worker(0).script = made.worker(1).script = HANGS
            exchange, receiver = made.send()
            made.worker(0).die()
            made.worker(1).die()
            await asyncio.sleep(1)
            assert (exchange.attempts, made.pool.waiting, receiver.heard) == (2, 1, [])
            made.worker(1).script = answers(b"back")
            made.worker(1).come_up()

            assert await receiver.last_word() == "complete"
            assert (exchange.attempts, exchange.worker_id) == (3, "worker-1")

    virtual_time.run(main())


def test_the_same_worker_may_come_back():
    async def main() -> None:
        async with rig(1) as made:
            exchange, receiver = made.send()
            made.worker().die()
            made.worker().script = answers(b"back")
            await asyncio.sleep(0.5)
            made.worker().come_up()
            await receiver.last_word()

            assert (receiver.body, exchange.attempts) == (b"back", 2)
            assert made.observer.retries == [("worker-0", "link_lost")]

    virtual_time.run(main())


def test_a_worker_that_hands_back_while_it_drains_is_not_asked_again_and_another_one_is_waited_for():
    async def main() -> None:
        async with rig(2) as made:
            made.worker(1).die()
            made.worker(0).script = ends(EndCode.CANCELLED)
            made.worker(1).script = answers(b"x")
            made.worker(0).drain()
            exchange, receiver = made.send()
            await asyncio.sleep(1)
            made.worker(1).come_up()
            await receiver.last_word()

            assert (receiver.body, exchange.worker_id, len(made.worker(0).calls)) == (b"x", "worker-1", 0)

    virtual_time.run(main())


def test_attempts_are_bounded_though_the_worker_comes_back_again_and_again():
    async def main() -> None:
        async with rig(1, limits=DispatchLimits(retries=2)) as made:
            exchange, receiver = made.send()
            for _ in range(MOVES_MAX + 1):
                made.worker().die()
                await asyncio.sleep(0.1)
                made.worker().come_up()
                await turns()

            assert await receiver.last_word() == "error"
            assert exchange.attempts == MOVES_MAX + 1
            assert type(receiver.error) is NoWorkerError

    virtual_time.run(main())


def test_each_wait_has_the_failfast_time_to_itself():
    """A request that found a worker, and lost it much later, waits for the next one no longer than any other."""

    async def main() -> None:
        async with rig(1, up=False) as made:
            _, receiver = made.send()
            await asyncio.sleep(1)
            made.worker().come_up()
            await asyncio.sleep(100)
            assert receiver.heard == []
            made.worker().die()
            await receiver.last_word()

            assert type(receiver.error) is NoWorkerError
            assert receiver.ended_at == 103.0

    virtual_time.run(main())


def test_a_lost_worker_just_before_the_first_waits_end_is_waited_for_all_the_same():
    async def main() -> None:
        async with rig(1, up=False) as made:
            _, receiver = made.send()
            await asyncio.sleep(1.0)
            made.worker().come_up()
            await asyncio.sleep(0.9)
            made.worker().die()
            await asyncio.sleep(1.5)
            assert receiver.heard == []
            made.worker().script = answers(b"back")
            made.worker().come_up()

            assert await receiver.last_word() == "complete"

    virtual_time.run(main())


def test_a_failfast_time_of_zero_refuses_before_dispatch_returns():
    async def main() -> None:
        async with rig(1, up=False, limits=DispatchLimits(failfast_s=0.0)) as made:
            exchange, receiver = made.send()

            assert exchange.finished
            assert type(receiver.error) is NoWorkerError
            assert made.dispatcher.in_flight == 0

    virtual_time.run(main())


def test_only_so_many_may_wait():
    async def main() -> None:
        async with rig(1, up=False, limits=DispatchLimits(max_waiting=3)) as made:
            sent = [made.send() for _ in range(5)]

            assert [receiver.heard for _, receiver in sent] == [[], [], [], ["error"], ["error"]]
            sent[0][0].cancel()
            _, receiver = made.send()
            assert receiver.heard == []
            made.worker().script = answers(b"x")
            made.worker().come_up()
            await asyncio.sleep(1)

            assert [receiver.last_words for _, receiver in sent[1:3]] == [["complete"]] * 2
            assert receiver.last_words == ["complete"]

    virtual_time.run(main())


def test_waiters_are_served_in_the_order_they_came():
    async def main() -> None:
        async with rig(1, up=False) as made:
            for index in range(5):
                made.send(request_id=str(index))
            made.worker().script = answers(b"x")
            made.worker().come_up()
            await turns()

            assert [call.call.request_id for call in made.worker().calls] == ["0", "1", "2", "3", "4"]

    virtual_time.run(main())


# Models


def test_an_unknown_model_is_refused_at_once_with_the_models_there_are():
    async def main() -> None:
        async with rig(2, models=TWO_MODELS) as made:
            exchange, receiver = made.send(model="phi")

            assert exchange.finished
            assert type(receiver.error) is ModelNotFoundError
            assert (receiver.error.status, receiver.error.param) == (404, "model")
            assert "'phi' not found, no worker has it; the models are: llama, qwen" in receiver.error.message

    virtual_time.run(main())


def test_a_model_that_only_a_down_worker_has_is_waited_for():
    async def main() -> None:
        async with rig(2, models=TWO_MODELS) as made:
            made.worker(1).die("connection reset")
            _, lucky = made.send(model="qwen")
            await asyncio.sleep(1)
            made.worker(1).script = answers(b"x")
            made.worker(1).come_up()
            assert await lucky.last_word() == "complete"

            made.worker(1).die("connection reset")
            receiver = await made.ask(model="qwen")
            assert type(receiver.error) is NoWorkerError
            assert "worker-0: has not the model qwen; worker-1: unreachable" in str(receiver.error)

    virtual_time.run(main())


def test_before_any_worker_told_its_models_any_model_is_waited_for():
    async def main() -> None:
        async with rig(1, up=False, models={"worker-0": ("llama",)}) as made:
            made.worker().script = answers(b"x")
            _, known = made.send(model="llama")
            _, unknown = made.send(model="phi")
            await asyncio.sleep(1)
            made.worker().come_up()

            assert await known.last_word() == "complete"
            assert await unknown.last_word() == "error"
            assert type(unknown.error) is ModelNotFoundError
            assert unknown.ended_at == 1.0

    virtual_time.run(main())


# What the client is told


def test_the_error_says_what_each_worker_lacks():
    async def main() -> None:
        models = {f"worker-{index}": ("llama",) for index in range(5)}
        async with rig(5, models=models, limits=DispatchLimits(failfast_s=0.0)) as made:
            made.worker(0).die("connection reset")
            made.worker(1).drain()
            made.worker(2).become_unready("loading")
            made.worker(3).become_ready(models=("qwen",))
            made.worker(4).die("gone")
            _, receiver = made.send(model="llama")

            assert type(receiver.error) is NoWorkerError
            assert receiver.error.message == (
                "no worker can take the request now (worker-0: unreachable; worker-1: draining; "
                "worker-2: not_ready (loading); worker-3: has not the model llama; worker-4: unreachable)"
            )

    virtual_time.run(main())


def test_of_a_large_fleet_the_error_names_five():
    async def main() -> None:
        async with rig(8, up=False, limits=DispatchLimits(failfast_s=0.0)) as made:
            _, receiver = made.send()

            assert receiver.error is not None
            assert "worker-4: " in receiver.error.message
            assert "worker-5: " not in receiver.error.message
            assert receiver.error.message.endswith("; and 3 more)")

    virtual_time.run(main())


def test_an_empty_fleet_is_a_setting_to_change():
    async def main() -> None:
        async with rig(0, limits=DispatchLimits(failfast_s=0.0)) as made:
            _, receiver = made.send()

            assert receiver.error is not None
            assert receiver.error.message.endswith("no worker is known; see WORKER_ADDRESSES and NEUROGATE_DISCOVERY)")

    virtual_time.run(main())


def test_a_refusal_for_want_of_a_worker_says_when_to_come_back():
    """Soon: the moment a worker is back it is used, even with its breaker open, when nobody else is there."""

    async def main() -> None:
        async with rig(2, limits=DispatchLimits(failfast_s=0.0)) as made:
            await made.open_breaker(0)
            made.worker(0).die()
            made.worker(1).die()
            _, receiver = made.send()

            assert receiver.error is not None
            assert receiver.error.retry_after_s == 1.0

    virtual_time.run(main())


def test_a_half_open_worker_stays_a_candidate_when_its_probe_says_nothing():
    """Another change of the fleet while the probe is out must not leave it out for ever."""

    async def main() -> None:
        async with rig(2) as made:
            await made.open_breaker(0)
            await asyncio.sleep(31)
            made.worker(0).script = made.worker(1).script = answers(b"x")
            made.worker(0).then(HANGS)
            while not made.worker(0).calls:
                probe, _ = made.send()
            made.worker(1).become_ready(models=("another",))
            probe.cancel()
            for _ in range(4):
                await made.ask()

            assert len(made.worker(0).calls) > 1
            assert made.member(0).breaker.state == "closed"

    virtual_time.run(main())


def test_a_model_is_not_unknown_before_every_worker_has_been_heard():
    """At a gateway's start 404 would be final for a client, while the worker that has the model is a moment away."""

    async def main() -> None:
        async with rig(2, up=False, models={"worker-0": ("one",), "worker-1": ("two",)}) as made:
            made.worker(1).script = answers(b"x")
            made.worker(0).come_up()
            _, receiver = made.send(model="two")
            await asyncio.sleep(1)
            made.worker(1).come_up()

            assert await receiver.last_word() == "complete"

    virtual_time.run(main())


def test_a_model_nobody_had_in_time_is_unknown():
    async def main() -> None:
        async with rig(2, up=False, models={"worker-0": ("one",)}) as made:
            made.worker(0).come_up()
            receiver = await made.ask(model="two")

            assert type(receiver.error) is ModelNotFoundError

    virtual_time.run(main())


def test_a_worker_that_leaves_as_announced_hands_its_requests_back_and_is_not_blamed():
    async def main() -> None:
        async with rig(2) as made:
            made.worker(1).script = answers(b"x")
            sent = [made.send(stream=False)[1] for _ in range(8)]
            made.worker(0).drain()
            made.worker(0).leave()

            assert [await receiver.last_word() for receiver in sent] == ["answer"] * 8
            assert made.member(0).breaker.consecutive_failures == 0

    virtual_time.run(main())

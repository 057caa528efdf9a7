"""Before the first byte, a request moves to another worker: when, how often, and at whose expense."""

from __future__ import annotations

import asyncio

import pytest

from dataplane_support import rig
from neurogate import virtual_time
from neurogate.channel import End, EndCode
from neurogate.dataplane.dispatch import DispatchLimits
from neurogate.errors import (
    BusyError,
    DeadlineError,
    EngineFailedError,
    GatewayError,
    NoWorkerError,
    UnsupportedError,
)
from neurogate.resilience.retry import RetryBudget
from neurogate.testing.workers import Script, answers, ends, refuses

FREE = [ends(code) for code in (EndCode.UNAVAILABLE, EndCode.CANCELLED, EndCode.LINK_LOST)]
CHARGED = [
    ends(EndCode.BROKEN),
    ends(EndCode.BUSY),
    ends(EndCode.INTERNAL),
    refuses(429),
    refuses(429, retry_after_s=1.0),
    refuses(500),
    refuses(502),
    refuses(503),
    refuses(503, retry_after_s=1.0),
    refuses(504),
]
NEUTRAL = [
    ends(EndCode.CANCELLED),
    ends(EndCode.BUSY),
    refuses(429),
    refuses(429, retry_after_s=1.0),
    refuses(503, retry_after_s=1.0),
]


def name(script: Script) -> str:
    end = script.steps[-1][1]
    assert isinstance(end, End)
    return end.code.name if end.code is not EndCode.ANSWERED else f"{end.http_status}-{end.retry_after_s}"


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("failure", FREE + CHARGED, ids=name)
def test_a_request_that_fails_before_its_first_byte_is_answered_by_another_worker(failure: Script, stream: bool):
    async def main() -> None:
        async with rig(2) as made:
            made.worker(0).script = failure
            made.worker(1).script = answers(b"an ", b"answer", every_s=0.1)
            exchange, receiver = made.send(stream=stream)

            assert await receiver.last_word() == ("complete" if stream else "answer")
            assert receiver.body == b"an answer"
            assert (exchange.attempts, exchange.worker_id) == (2, "worker-1")
            assert made.member(0).breaker.consecutive_failures == (0 if failure in NEUTRAL else 1)
            assert made.budget.balance == (10.0 if failure in FREE else 9.0)
            ((left, reason),) = made.observer.retries
            assert left == "worker-0"
            assert reason == failure.steps[0][1].code.name.lower()

    virtual_time.run(main())


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 301])
def test_the_engines_own_refusal_is_the_answer(status: int, stream: bool):
    async def main() -> None:
        async with rig(2) as made:
            made.worker(0).script = refuses(status, body=b'{"error":"yours"}')
            receiver = await made.ask(stream=stream)

            assert receiver.heard == ["answer"]
            assert receiver.answer is not None
            assert (receiver.answer[0].http_status, receiver.answer[1]) == (status, b'{"error":"yours"}')
            assert len(made.worker(1).calls) == 0
            assert made.member(0).breaker.consecutive_failures == 0

    virtual_time.run(main())


def test_an_end_that_no_other_worker_could_better_is_final():
    async def main() -> None:
        async with rig(2) as made:
            made.worker(0).script = ends(EndCode.DEADLINE, message="told")
            receiver = await made.ask()

            assert type(receiver.error) is DeadlineError
            assert "told" in receiver.error.message
            assert len(made.worker(1).calls) == 0
            assert made.observer.retries == []
            assert made.member(0).breaker.consecutive_failures == 1

    virtual_time.run(main())


@pytest.mark.parametrize("script", [ends(EndCode.UNSUPPORTED, message="no tea"), refuses(501, body=b"no tea")])
def test_what_an_engine_cannot_do_another_one_may_without_a_charge(script: Script):
    async def main() -> None:
        async with rig(2, budget=RetryBudget(ratio=0.0)) as made:
            made.worker(0).script = script
            made.worker(1).script = answers(b"tea")
            receiver = await made.ask()

            assert receiver.heard[-1] == "complete"
            assert made.member(0).breaker.consecutive_failures == 0

    virtual_time.run(main())


def test_a_worker_that_cannot_is_no_retry():
    async def main() -> None:
        async with rig(3, limits=DispatchLimits(retries=1)) as made:
            made.worker(0).script = ends(EndCode.UNSUPPORTED, message="no tea")
            made.worker(1).script = ends(EndCode.UNAVAILABLE)
            made.worker(2).script = answers(b"tea")
            exchange, receiver = made.send()
            await receiver.last_word()

            assert receiver.heard[-1] == "complete"
            assert (exchange.attempts, exchange.unable) == (3, 1)

    virtual_time.run(main())


@pytest.mark.parametrize(("workers", "asked"), [(8, 8), (20, 16)])
def test_one_of_many_that_can_is_found_within_reason(workers: int, asked: int):
    """It costs those that cannot nothing, so the bound is not that of retries."""

    async def main() -> None:
        async with rig(workers) as made:
            for index in range(workers - 1):
                made.worker(index).script = ends(EndCode.UNSUPPORTED, message="no tea")
            made.worker(workers - 1).script = answers(b"tea")
            exchange, receiver = made.send()
            await receiver.last_word()

            assert receiver.heard[-1] == ("complete" if workers == asked else "error")
            assert exchange.attempts == asked

    virtual_time.run(main())


@pytest.mark.parametrize("script", [ends(EndCode.UNSUPPORTED, message="no tea"), refuses(501, body=b"no tea")])
def test_what_no_engine_can_do_is_said_at_once(script: Script):
    """Nobody is waited for: an engine does not learn within the failfast time."""

    async def main() -> None:
        async with rig(2) as made:
            made.worker(0).script = made.worker(1).script = script
            began_at = asyncio.get_running_loop().time()
            receiver = await made.ask()

            assert type(receiver.error) is UnsupportedError
            assert receiver.error.message == "no tea (worker-1)"
            assert asyncio.get_running_loop().time() - began_at < 0.1
            assert [made.member(index).breaker.consecutive_failures for index in (0, 1)] == [0, 0]

    virtual_time.run(main())


@pytest.mark.parametrize("retries", [0, 1, 2, 4])
@pytest.mark.parametrize("failure", [ends(EndCode.UNAVAILABLE), refuses(500)], ids=name)
def test_so_many_other_workers_are_asked_and_each_once(failure: Script, retries: int):
    async def main() -> None:
        async with rig(6, limits=DispatchLimits(retries=retries)) as made:
            for channel in made.fleet.channels.values():
                channel.script = failure
            exchange, receiver = made.send()
            await receiver.last_word()

            asked = [len(channel.calls) for channel in made.fleet.channels.values()]
            assert asked == [1] * (retries + 1) + [0] * (5 - retries)
            assert exchange.attempts == retries + 1
            assert len(made.observer.retries) == retries
            assert receiver.error is not None
            assert f"worker-{retries}" in receiver.error.message  # the last one's failure is told

    virtual_time.run(main())


@pytest.mark.parametrize(
    ("last", "kind"),
    [
        (ends(EndCode.BUSY, retry_after_s=7.0), BusyError),
        (refuses(429, retry_after_s=7.0), BusyError),
        (refuses(503, retry_after_s=7.0), BusyError),
        (refuses(503), EngineFailedError),
        (refuses(500), EngineFailedError),
        (ends(EndCode.BROKEN), EngineFailedError),
    ],
    ids=["BUSY", "429", "503-retry-after", "503", "500", "BROKEN"],
)
def test_what_the_last_worker_said_decides_the_error(last: Script, kind: type[GatewayError]):
    async def main() -> None:
        async with rig(2) as made:
            made.worker(0).script = refuses(500)
            made.worker(1).script = last
            receiver = await made.ask()

            assert type(receiver.error) is kind
            assert receiver.error.retry_after_s == (7.0 if kind is BusyError else None)

    virtual_time.run(main())


def test_a_charged_retry_needs_the_budget():
    async def main() -> None:
        async with rig(3, budget=RetryBudget(ratio=0.5, reserve=1.0)) as made:
            for index in range(3):
                made.worker(index).script = refuses(500)
            exchange, receiver = made.send()
            await receiver.last_word()

            assert exchange.attempts == 2  # the second retry found the account empty
            assert type(receiver.error) is EngineFailedError
            assert made.budget.balance == 0.0
            assert made.observer.retries == [("worker-0", "answered")]

    virtual_time.run(main())


def test_moving_away_from_a_worker_that_is_gone_costs_nothing():
    async def main() -> None:
        async with rig(2, budget=RetryBudget(ratio=0.0)) as made:
            made.worker(0).script = ends(EndCode.UNAVAILABLE)
            made.worker(1).script = answers(b"moved")

            assert (await made.ask()).body == b"moved"

    virtual_time.run(main())


def test_a_fleet_that_fails_everywhere_is_asked_at_most_one_and_a_fifth_times_as_often():
    async def main() -> None:
        async with rig(4, budget=RetryBudget(ratio=0.2, reserve=10.0)) as made:
            for channel in made.fleet.channels.values():
                channel.script = refuses(429)  # never opens a breaker
            for _ in range(500):
                await made.ask()

            asked = sum(len(channel.calls) for channel in made.fleet.channels.values())
            assert 500 + 100 <= asked <= 500 + 100 + 10

    virtual_time.run(main())


def test_without_another_worker_there_is_no_retry_and_none_is_charged_or_counted():
    async def main() -> None:
        async with rig(1) as made:
            made.worker(0).script = refuses(500, body=b"CUDA error")
            receiver = await made.ask()

            assert type(receiver.error) is EngineFailedError
            assert "CUDA error" in receiver.error.message
            assert len(made.worker(0).calls) == 1
            assert made.budget.balance == 10.0
            assert made.observer.retries == []

    virtual_time.run(main())


def test_a_charged_failure_does_not_wait_for_a_worker():
    async def main() -> None:
        async with rig(2) as made:
            made.worker(1).die()
            made.worker(0).script = ends(EndCode.BUSY)
            receiver = await made.ask()

            assert type(receiver.error) is BusyError
            assert receiver.ended_at == 0.0

    virtual_time.run(main())


def test_a_worker_without_the_model_is_not_asked():
    async def main() -> None:
        models = {"worker-0": ("llama",), "worker-1": ("qwen",), "worker-2": ("llama",)}
        async with rig(3, models=models) as made:
            for channel in made.fleet.channels.values():
                channel.script = refuses(500)
            await made.ask(model="llama")

            assert [len(channel.calls) for channel in made.fleet.channels.values()] == [1, 0, 1]

    virtual_time.run(main())


def test_a_worker_that_dies_before_the_first_byte_goes_unnoticed():
    async def main() -> None:
        async with rig(2) as made:
            made.worker(1).script = answers(b"whole", first_s=1.0)
            _, receiver = made.send()
            made.worker(0).die()

            assert await receiver.last_word() == "complete"
            assert receiver.body == b"whole"
            assert made.observer.retries == [("worker-0", "link_lost")]

    virtual_time.run(main())


def test_one_death_moves_every_request_and_opens_the_breaker_once():
    async def main() -> None:
        async with rig(2) as made:
            made.worker(1).script = answers(b"moved")
            receivers = [made.send()[1] for _ in range(10)]
            made.worker(0).die()
            for receiver in receivers:
                await receiver.last_word()

            assert [receiver.last_words for receiver in receivers] == [["complete"]] * 10
            assert made.observer.breakers == [("worker-0", "open")]

    virtual_time.run(main())


def test_the_call_goes_out_as_it_came_each_time():
    async def main() -> None:
        async with rig(2) as made:
            made.worker(0).script = ends(EndCode.BROKEN, after_s=0.5)
            made.worker(1).script = answers(b"x")
            exchange, receiver = made.send(model="", request_id="r1")
            await receiver.last_word()

            assert made.worker(0).calls[0].call is made.worker(1).calls[0].call is exchange.call
            assert [made.worker(index).calls[0].at for index in range(2)] == [0.0, 0.5]

    virtual_time.run(main())


def test_nobody_left_after_free_moves_is_an_unavailable_fleet():
    async def main() -> None:
        async with rig(2, limits=DispatchLimits(failfast_s=0.0)) as made:
            for index in range(2):
                made.worker(index).script = ends(EndCode.UNAVAILABLE)
            receiver = await made.ask()

            assert type(receiver.error) is NoWorkerError

    virtual_time.run(main())

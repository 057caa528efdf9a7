"""Who gets a request: the picker's choice, the breaker's leave, and the last resort."""

from __future__ import annotations

import asyncio
import random

from dataplane_support import Rig, rig, turns
from neurogate import virtual_time
from neurogate.balancing.least_requests import LeastRequests
from neurogate.channel import End, EndCode
from neurogate.dataplane.dispatch import DispatchLimits
from neurogate.errors import EngineFailedError, NoWorkerError
from neurogate.testing.workers import HANGS, answers, ends, refuses


def asked(made: Rig) -> list[int]:
    return [len(channel.calls) for channel in made.fleet.channels.values()]


def test_the_picker_chooses_among_those_that_admit():
    async def main() -> None:
        async with rig(4) as made:
            for channel in made.fleet.channels.values():
                channel.script = answers(b"x")
            made.worker(1).drain()
            made.worker(2).become_unready()
            for _ in range(4):
                await made.ask()

            assert asked(made) == [2, 0, 0, 2]

    virtual_time.run(main())


def test_another_picker_is_only_another_argument():
    async def main() -> None:
        async with rig(2, picker=LeastRequests(random.Random(1))) as made:
            exchanges = [made.send()[0] for _ in range(10)]

            assert asked(made) == [5, 5]
            for exchange in exchanges:
                exchange.cancel()

    virtual_time.run(main())


def test_three_failed_requests_open_the_breaker_and_the_others_get_the_traffic():
    async def main() -> None:
        async with rig(2) as made:
            made.worker(0).script = ends(EndCode.BROKEN)
            made.worker(1).script = answers(b"x")
            words = [(await made.ask()).last_words for _ in range(20)]

            assert words == [["complete"]] * 20
            assert asked(made)[0] == 3
            assert made.observer.breakers == [("worker-0", "open")]

    virtual_time.run(main())


def test_after_thirty_seconds_exactly_one_request_is_the_probe():
    async def main() -> None:
        async with rig(2) as made:
            await made.open_breaker(0)
            await asyncio.sleep(29.9)
            early = [made.send()[0] for _ in range(5)]
            assert asked(made) == [0, 5]
            await asyncio.sleep(0.2)
            late = [made.send()[0] for _ in range(10)]

            assert asked(made) == [1, 14]
            made.worker(0).calls[0].chunk(b"it is well")
            assert made.member(0).breaker.state == "closed"
            more = [made.send()[0] for _ in range(4)]
            assert asked(made) == [3, 16]
            for exchange in early + late + more:
                exchange.cancel()

    virtual_time.run(main())


def test_a_probe_that_fails_is_answered_elsewhere_and_keeps_the_worker_out_for_thirty_more_seconds():
    async def main() -> None:
        async with rig(2) as made:
            await made.open_breaker(0)
            made.worker(0).script = refuses(500)
            made.worker(1).script = answers(b"x")
            await asyncio.sleep(31)
            words = [(await made.ask()).last_words for _ in range(10)]

            assert words == [["complete"]] * 10
            assert asked(made) == [1, 10]
            await asyncio.sleep(29)
            await made.ask()
            assert asked(made)[0] == 1

    virtual_time.run(main())


def test_the_only_worker_is_tried_although_its_breaker_is_open():
    async def main() -> None:
        async with rig(1) as made:
            made.worker().script = answers(b"still alive")
            await made.open_breaker()
            receiver = await made.ask()

            assert receiver.body == b"still alive"
            assert made.observer.breakers == [("worker-0", state) for state in ("open", "half-open", "closed")]

    virtual_time.run(main())


def test_with_every_breaker_open_the_least_bad_worker_is_tried_first_and_then_the_next():
    async def main() -> None:
        async with rig(3) as made:
            for index in (1, 2, 0):
                made.worker(index).script = refuses(500)
                await made.open_breaker(index)
                await asyncio.sleep(1)
            exchange, receiver = made.send()
            await receiver.last_word()

            assert [retry[0] for retry in made.observer.retries] == ["worker-1", "worker-2"]
            assert exchange.worker_id == "worker-0"
            assert type(receiver.error) is EngineFailedError

    virtual_time.run(main())


def test_a_last_resort_that_failed_is_not_tried_again_for_the_same_request():
    async def main() -> None:
        async with rig(1) as made:
            await made.open_breaker()
            made.worker().script = refuses(500)
            receiver = await made.ask()

            assert type(receiver.error) is EngineFailedError
            assert asked(made) == [1]

    virtual_time.run(main())


def test_a_worker_that_the_snapshot_still_takes_for_usable_is_passed_over():
    async def main() -> None:
        async with rig(2) as made:
            for index in range(2):
                made.worker(index).script = answers(b"x")
            made.member(0).linked = False
            await made.ask()
            await made.ask()
            assert asked(made) == [0, 2]

            made.member(0).linked = True
            await made.open_breaker(0)
            await made.open_breaker(1)
            made.member(0).linked = False
            await made.ask()
            assert asked(made) == [0, 3]

    virtual_time.run(main())


def test_while_a_probe_is_out_and_nobody_is_closed_others_are_tried_all_the_same():
    async def main() -> None:
        async with rig(1) as made:
            await made.open_breaker()
            sent = [made.send() for _ in range(5)]
            assert asked(made) == [5]
            made.worker().calls[2].chunk(b"x")

            assert made.member().breaker.state == "closed"
            for exchange, _ in sent:
                exchange.cancel()

    virtual_time.run(main())


def test_with_every_breaker_open_requests_spread_over_all_workers():
    async def main() -> None:
        async with rig(4) as made:
            for index in range(4):
                await made.open_breaker(index)
                await asyncio.sleep(0.01)
            sent = [made.send() for _ in range(12)]

            assert asked(made) == [3, 3, 3, 3]
            for exchange, _ in sent:
                exchange.cancel()

    virtual_time.run(main())


def test_no_open_breaker_is_forced_while_a_closed_one_is_usable():
    """Not even when the closed one has just failed this request."""

    async def main() -> None:
        async with rig(2) as made:
            await made.open_breaker(1)
            made.worker(0).script = refuses(500)
            receiver = await made.ask()

            assert type(receiver.error) is EngineFailedError
            assert asked(made) == [1, 0]
            assert made.member(1).breaker.state == "open"

    virtual_time.run(main())


def test_a_closed_breaker_of_a_worker_that_is_gone_does_not_stop_the_last_resort():
    async def main() -> None:
        async with rig(2) as made:
            made.worker(0).die()
            await made.open_breaker(1)
            made.worker(1).script = answers(b"last resort")

            assert (await made.ask()).body == b"last resort"

    virtual_time.run(main())


def test_the_last_resort_has_the_model():
    async def main() -> None:
        models = {"worker-0": ("llama",), "worker-1": ("qwen",), "worker-2": ("llama",)}
        async with rig(3, models=models) as made:
            for index in range(3):
                made.worker(index).script = answers(b"x")
            await made.open_breaker(1)
            await made.open_breaker(2)
            made.worker(0).drain()
            await made.ask(model="llama")

            assert asked(made) == [0, 0, 1]

    virtual_time.run(main())


def test_a_worker_that_is_not_usable_is_nobodys_last_resort():
    async def main() -> None:
        async with rig(2, limits=DispatchLimits(failfast_s=0.0)) as made:
            await made.open_breaker(0)
            await made.open_breaker(1)
            made.worker(0).drain()
            made.worker(1).die()
            _, receiver = made.send()

            assert type(receiver.error) is NoWorkerError
            assert asked(made) == [0, 0]

    virtual_time.run(main())


def test_a_breaker_that_opened_while_requests_were_out_takes_no_verdict_from_them():
    async def main() -> None:
        async with rig(2) as made:
            sent = [made.send() for _ in range(8)]
            late, *early = made.worker(0).calls
            for call in early:
                call.end(End(EndCode.BROKEN))
            assert made.member(0).breaker.state == "open"
            due = made.member(0).breaker.retry_at
            await asyncio.sleep(5)
            late.chunk(b"x")
            late.end(End(EndCode.BROKEN))

            assert (made.member(0).breaker.state, made.member(0).breaker.retry_at) == ("open", due)
            for exchange, _ in sent:
                exchange.cancel()
            await turns()

    virtual_time.run(main())


def test_every_first_attempt_feeds_the_retry_budget():
    async def main() -> None:
        async with rig(1) as made:
            while made.budget.withdraw():
                pass
            made.worker().script = HANGS
            for _ in range(5):
                made.send()[0].cancel()

            assert made.budget.balance >= 0.999

    virtual_time.run(main())

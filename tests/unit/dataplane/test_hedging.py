"""A second attempt for a late first token: rare, first come first served, and nothing of the loser is left."""

from __future__ import annotations

import asyncio

from dataplane_support import Rig, rig, turns
from neurogate import virtual_time
from neurogate.channel import EndCode
from neurogate.dataplane.dispatch import DispatchLimits
from neurogate.testing.workers import HANGS, answers, ends, refuses

HEDGED = DispatchLimits(hedge_after_s=1.0)


def asked(made: Rig) -> list[int]:
    return [len(channel.calls) for channel in made.fleet.channels.values()]


def test_a_late_first_token_has_a_second_worker_asked_and_the_loser_is_freed():
    async def main() -> None:
        async with rig(2, limits=HEDGED) as made:
            made.worker(1).script = answers(b"quick", first_s=0.5)
            exchange, receiver = made.send()
            await receiver.last_word()

            assert receiver.body == b"quick"
            assert receiver.ended_at == 1.5
            assert made.worker(0).calls[0].cancelled
            assert exchange.worker_id == "worker-1"
            assert exchange.attempts == 2
            assert made.observer.hedges == [("worker-0", False), ("worker-0", True)]
            assert made.member(0).breaker.consecutive_failures == 0

    virtual_time.run(main())


def test_the_first_worker_keeps_its_request_when_it_speaks_first():
    async def main() -> None:
        async with rig(2, limits=HEDGED) as made:
            made.worker(0).script = answers(b"a", b"b", first_s=1.2, every_s=1.0)
            exchange, receiver = made.send()
            await receiver.last_word()

            assert receiver.chunks == [b"a", b"b"]
            assert exchange.worker_id == "worker-0"
            assert made.worker(1).calls[0].cancelled
            assert made.member(1).in_flight == 0

    virtual_time.run(main())


def test_an_answer_in_time_is_not_hedged():
    async def main() -> None:
        async with rig(2, limits=HEDGED) as made:
            made.worker(0).script = made.worker(1).script = answers(b"a", b"b", first_s=0.9, every_s=5.0)
            await made.ask()

            assert sorted(asked(made)) == [0, 1]

    virtual_time.run(main())


def test_an_unstreamed_answer_is_hedged_as_well():
    async def main() -> None:
        async with rig(2, limits=HEDGED) as made:
            made.worker(1).script = answers(b"who", b"le", first_s=0.5)
            receiver = await made.ask(stream=False)

            assert receiver.body == b"whole"
            assert made.worker(0).calls[0].cancelled

    virtual_time.run(main())


def test_a_first_worker_that_fails_leaves_the_request_to_the_hedge():
    async def main() -> None:
        async with rig(3, limits=HEDGED) as made:
            made.worker(0).script = ends(EndCode.BROKEN, after_s=1.5)
            made.worker(1).script = made.worker(2).script = answers(b"x", first_s=2.0)
            receiver = await made.ask()

            assert receiver.last_words == ["complete"]
            assert sum(asked(made)) == 2
            assert made.member(0).breaker.consecutive_failures == 1

    virtual_time.run(main())


def test_a_hedge_that_fails_is_forgotten_and_not_asked_again():
    async def main() -> None:
        async with rig(2, limits=HEDGED) as made:
            made.worker(0).script = answers(b"late", first_s=3.0)
            made.worker(1).script = ends(EndCode.BROKEN)
            receiver = await made.ask()

            assert receiver.body == b"late"
            assert made.member(1).breaker.consecutive_failures == 1
            assert asked(made) == [1, 1]

    virtual_time.run(main())


def test_when_both_fail_a_third_is_asked():
    async def main() -> None:
        async with rig(3, limits=HEDGED) as made:
            made.worker(0).then(ends(EndCode.BROKEN, after_s=2.0))
            hedge, third = made.worker(2), made.worker(1)
            hedge.script = ends(EndCode.BROKEN, after_s=1.5)
            third.script = answers(b"x")
            receiver = await made.ask()

            assert receiver.last_words == ["complete"]
            assert asked(made) == [1, 1, 1]

    virtual_time.run(main())


def test_a_refusal_of_the_first_is_the_answer_and_the_hedge_is_dropped():
    async def main() -> None:
        async with rig(2, limits=HEDGED) as made:
            made.worker(0).script = refuses(400, after_s=1.5, body=b"no")
            receiver = await made.ask()

            assert receiver.body == b"no"
            assert made.worker(1).calls[0].cancelled

    virtual_time.run(main())


def test_a_client_that_leaves_takes_both_attempts_back():
    async def main() -> None:
        async with rig(2, limits=HEDGED) as made:
            exchange, _ = made.send()
            await asyncio.sleep(2)
            exchange.cancel()
            await turns()

            assert [call.cancelled for worker in (0, 1) for call in made.worker(worker).calls] == [True, True]

    virtual_time.run(main())


def test_hedges_are_at_most_their_share_of_the_requests():
    """Beyond the two that a burst may have: of 200 late requests not more than 5 in a hundred are asked twice."""

    async def main() -> None:
        async with rig(2, limits=HEDGED) as made:
            made.worker(0).script = made.worker(1).script = answers(b"x", first_s=1.1)
            for _ in range(200):
                await made.ask()

            assert sum(asked(made)) - 200 <= 2 + 0.05 * 200

    virtual_time.run(main())


def test_nobody_to_spare_means_no_hedge():
    """A full, a suspended or a lone worker is not asked a second time."""

    async def main() -> None:
        async with rig(2, limits=HEDGED) as made:
            busy, _ = made.send()
            other, _ = made.send()
            late, _ = made.send()
            await asyncio.sleep(2)

            assert sum(asked(made)) == 3
            for exchange in (busy, other, late):
                exchange.cancel()

    virtual_time.run(main())


def test_a_hedged_worker_lost_with_its_link_is_a_failed_hedge():
    async def main() -> None:
        async with rig(2, limits=HEDGED) as made:
            made.worker(0).script = answers(b"x", first_s=5.0)
            made.worker(1).script = HANGS
            _, receiver = made.send()
            await asyncio.sleep(2)
            made.worker(1).die()
            await receiver.last_word()

            assert receiver.body == b"x"

    virtual_time.run(main())

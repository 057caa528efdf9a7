"""A fleet in trouble is not asked much more than a fleet that is well: retries have a budget, resumes a bound."""

from __future__ import annotations

import asyncio

import pytest

from dataplane_support import BREAKER, RESUMES, Rig, rig, turns
from neurogate import virtual_time
from neurogate.channel import End, EndCode
from neurogate.dataplane.dispatch import DispatchLimits
from neurogate.resilience.breaker import BreakerSettings
from neurogate.resilience.retry import RetryBudget
from neurogate.testing.recovery import PlainRecovery
from neurogate.testing.workers import Script, ends, refuses

REQUESTS = 1000
RESERVE = 10.0
STURDY = BreakerSettings(fail_max=1_000_000, reset_timeout_s=30.0, min_calls=1_000_000)
"""Never opens: the budget alone is what bounds the load."""


def asked(made: Rig) -> int:
    return sum(len(channel.calls) for channel in made.fleet.channels.values())


@pytest.mark.parametrize("breaker", [STURDY, BREAKER], ids=["no breaker", "breakers"])
@pytest.mark.parametrize("ratio", [0.0, 0.2, 1.0])
@pytest.mark.parametrize(
    "failure",
    [ends(EndCode.BROKEN, after_s=0.2), refuses(500, after_s=0.2), refuses(429)],
    ids=["broken", "500", "429"],
)
def test_with_every_engine_failing_the_fleet_gets_a_share_more_and_the_reserve(
    failure: Script, ratio: float, breaker: BreakerSettings
):
    async def main() -> None:
        async with rig(5, budget=RetryBudget(ratio=ratio, reserve=RESERVE), breaker=breaker) as made:
            for channel in made.fleet.channels.values():
                channel.script = failure
            receivers = []
            for _ in range(REQUESTS):
                receivers.append(made.send()[1])
                await asyncio.sleep(0.01)
            for receiver in receivers:
                await receiver.last_word()

            first = REQUESTS if breaker is STURDY else min(REQUESTS, asked(made))
            assert asked(made) <= first + ratio * REQUESTS + RESERVE
            assert len(made.observer.retries) <= ratio * REQUESTS + RESERVE
            if breaker is STURDY and ratio:
                assert asked(made) > REQUESTS  # it is used
            assert made.budget.balance <= RESERVE

    virtual_time.run(main())


def test_a_storm_of_resumes_is_bounded_by_the_attempts_of_each_stream():
    """Every worker breaks every stream at its first token: each stream is continued so often, and no more."""
    attempts = 3
    breaks = Script(((0.1, b"token "), (0.1, End(EndCode.BROKEN))))

    async def main() -> None:
        resumes = {f"worker-{number}": RESUMES for number in range(5)}
        limits = DispatchLimits(resume_attempts=attempts)
        async with rig(5, resumes=resumes, recovery=PlainRecovery(), limits=limits, breaker=STURDY) as made:
            for channel in made.fleet.channels.values():
                channel.script = breaks
            receivers = [made.send(resumable=True)[1] for _ in range(100)]
            for receiver in receivers:
                await receiver.last_word()

            assert asked(made) == 100 * (1 + attempts)
            assert [receiver.last_words for receiver in receivers] == [["error"]] * 100
            assert made.observer.retries == []

    virtual_time.run(main())


def test_when_workers_die_their_requests_move_and_cost_no_budget():
    async def main() -> None:
        async with rig(5) as made:
            receivers = [made.send()[1] for _ in range(100)]
            for index in range(2):
                made.worker(index).die()
            rest = [made.worker(index) for index in (2, 3, 4)]
            assert sum(len(worker.running) for worker in rest) == 100
            assert made.budget.balance == RESERVE
            assert asked(made) == 100 + len(made.observer.retries)
            assert 40 <= len(made.observer.retries) <= 50  # those of the second had some of the first
            for worker in rest:
                for call in tuple(worker.running.values()):
                    call.chunk(b"x")
                    call.end()
            assert [await receiver.last_word() for receiver in receivers] == ["complete"] * 100

    virtual_time.run(main())


def test_workers_that_die_one_after_the_other_take_no_request_with_them():
    """However many of them a request meets: it is not its doing, and the last one has them all."""

    async def main() -> None:
        async with rig(5) as made:
            sent = [made.send() for _ in range(100)]
            for index in range(4):
                made.worker(index).die()
                await asyncio.sleep(0.1)
            for call in tuple(made.worker(4).running.values()):
                call.chunk(b"x")
                call.end()
            await turns()

            assert {tuple(receiver.last_words) for _, receiver in sent} == {("complete",)}

    virtual_time.run(main())

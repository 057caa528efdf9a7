"""Slots, prefill and decode steps of the simulated engine."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurogate.engines.sim.scheduler import Job, QueueFullError, Scheduler, StoppedError
from neurogate.virtual_time import VirtualTimeLoop, run


@dataclass
class Seen:
    """What one consumer saw: (time, tokens said) at each wakeup."""

    wakeups: list[tuple[float, int]] = field(default_factory=list)

    @property
    def times(self) -> list[float]:
        return [round(at, 6) for at, _ in self.wakeups]


async def consume(scheduler: Scheduler, prompt_tokens: int, length: int) -> Seen:
    seen, said = Seen(), 0
    with scheduler.submit(prompt_tokens, length) as job:
        while (now_said := await job.more_than(said)) > said:
            said = now_said
            seen.wakeups.append((asyncio.get_running_loop().time(), said))
    assert said == length
    return seen


async def consume_all(scheduler: Scheduler, *asked: tuple[int, int]) -> list[Seen]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(consume(scheduler, *each)) for each in asked]
    assert_idle(scheduler)
    return [task.result() for task in tasks]


def assert_idle(scheduler: Scheduler) -> None:
    assert repr(scheduler) == f"<Scheduler 0/{len(scheduler.jobs)} busy, 0 queued>"
    assert scheduler.jobs == [None] * len(scheduler.jobs)
    assert scheduler.tokens_held == 0


def test_a_request_takes_prefill_and_then_a_step_for_each_token() -> None:
    async def main() -> None:
        [seen] = await consume_all(Scheduler(slots=1, prefill_tps=1000, decode_tps=10), (500, 3))
        assert seen.times == [0.6, 0.7, 0.8]

    run(main())


def test_requests_decode_in_lockstep() -> None:
    """A request that joins while others decode gets its tokens at the same moments."""

    async def main() -> None:
        first, second = await consume_all(Scheduler(slots=2, prefill_tps=1000, decode_tps=10), (0, 6), (250, 3))
        assert first.times == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
        assert second.times == [0.3, 0.4, 0.5]

    run(main())


def test_a_batch_is_as_fast_as_one_request() -> None:
    async def main() -> None:
        seen = await consume_all(Scheduler(slots=50, prefill_tps=0, decode_tps=20), *[(10, 20)] * 50)
        assert {one.times[-1] for one in seen} == {1.0}

    run(main())


def test_requests_beyond_the_slots_wait_first_in_first_out() -> None:
    async def main() -> None:
        scheduler = Scheduler(slots=1, prefill_tps=0, decode_tps=10)
        seen = await consume_all(scheduler, (0, 2), (0, 2), (0, 2))
        assert [one.times[-1] for one in seen] == [0.2, 0.4, 0.6]

    run(main())


def test_a_slot_handed_on_joins_the_running_rhythm() -> None:
    async def main() -> None:
        scheduler = Scheduler(slots=2, prefill_tps=0, decode_tps=10)
        long, _, third = await consume_all(scheduler, (0, 5), (0, 2), (0, 2))
        assert long.times == [0.1, 0.2, 0.3, 0.4, 0.5]
        assert third.times == [0.3, 0.4]

    run(main())


def test_instant_speed_takes_no_time_and_gives_every_token_its_own_turn() -> None:
    async def main() -> None:
        scheduler = Scheduler(slots=2, prefill_tps=0, decode_tps=0)
        seen = await consume_all(scheduler, (1000, 40), (1000, 40))
        for one in seen:
            assert one.times == [0.0] * 40
            assert [said for _, said in one.wakeups] == list(range(1, 41))

    run(main())


def test_an_instant_request_does_not_starve_the_others() -> None:
    """Timers and other tasks run between the steps of an endless instant answer."""

    async def main() -> None:
        scheduler = Scheduler(slots=1, prefill_tps=0, decode_tps=0)
        turns = 0
        with scheduler.submit(0, 10**9) as job:
            for _ in range(100):
                await asyncio.sleep(0)
                turns += 1
            assert 50 <= job.said <= 200
        assert turns == 100
        assert_idle(scheduler)

    asyncio.run(main())


def test_a_consumer_that_lags_gets_several_tokens_at_once() -> None:
    async def main() -> None:
        scheduler = Scheduler(slots=1, prefill_tps=0, decode_tps=10)
        with scheduler.submit(0, 10) as job:
            assert await job.more_than(0) == 1
            await asyncio.sleep(0.55)
            assert await job.more_than(1) == 6
            assert await job.more_than(6) == 7
        assert_idle(scheduler)

    run(main())


def test_a_loop_that_was_held_up_catches_up() -> None:
    """The decode rate holds when the process was busy for a while, as it would on the engine's own hardware."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        scheduler = Scheduler(slots=1, prefill_tps=0, decode_tps=10)
        with scheduler.submit(0, 20) as job:
            await job.more_than(0)
            loop.advance(0.5)
            await job.more_than(5)
            assert loop.time() == pytest.approx(0.6)
            await job.more_than(19)
            assert loop.time() == pytest.approx(2.0)
        assert_idle(scheduler)

    run(main())


def test_a_process_that_was_stopped_does_not_make_up_for_it() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        scheduler = Scheduler(slots=1, prefill_tps=0, decode_tps=10)
        with scheduler.submit(0, 100) as job:
            await job.more_than(0)
            loop.advance(3600)
            await job.more_than(99)
            assert loop.time() == pytest.approx(3600 + 0.1 + 8.7, abs=0.3)
        assert_idle(scheduler)

    run(main())


def test_cancelling_frees_the_slot_at_once_and_starts_the_next() -> None:
    async def main() -> None:
        scheduler = Scheduler(slots=1, prefill_tps=0, decode_tps=10)
        with scheduler.submit(0, 100) as first, scheduler.submit(0, 1) as second:
            await first.more_than(2)
            scheduler.release(first)
            assert (second.slot, scheduler.queued) == (0, 0)
            assert await second.more_than(0) == 1
            assert asyncio.get_running_loop().time() == pytest.approx(0.4)
        assert_idle(scheduler)

    run(main())


def test_work_on_a_prompt_shows_in_whole_steps() -> None:
    """As in llama.cpp, also when its client leaves: what was computed stays so."""

    async def main() -> None:
        scheduler = Scheduler(slots=1, prefill_tps=100, decode_tps=10)
        done = []
        with scheduler.submit(1300, 1) as job:
            for _ in range(13):
                done.append(scheduler.work_done)
                await asyncio.sleep(1)
            await job.more_than(0)
        assert done == [0] * 6 + [512] * 5 + [1024] * 2
        assert scheduler.work_done == 1301
        with scheduler.submit(1300, 1):
            await asyncio.sleep(6)
        assert scheduler.work_done == 1301 + 512
        assert_idle(scheduler)

    run(main())


def test_cancelling_works_in_the_queue_and_in_prefill() -> None:
    async def main() -> None:
        scheduler = Scheduler(slots=1, prefill_tps=1, decode_tps=10)
        with scheduler.submit(1000, 5) as prefilling, scheduler.submit(1, 1) as waiting:
            scheduler.release(waiting)
            assert scheduler.queued == 0
            scheduler.release(prefilling)
            assert_idle(scheduler)
        assert scheduler.totals.prompt_tokens == 0

    run(main())


def test_releasing_twice_is_releasing_once() -> None:
    async def main() -> None:
        scheduler = Scheduler(slots=2, prefill_tps=0, decode_tps=10)
        with scheduler.submit(0, 5) as job:
            scheduler.release(job)
            scheduler.release(job)
        assert scheduler.busy == 0
        assert_idle(scheduler)

    run(main())


def test_a_job_that_stays_keeps_its_slot_until_it_is_released() -> None:
    async def main() -> None:
        scheduler = Scheduler(slots=2, prefill_tps=0, decode_tps=10)
        with scheduler.submit(7, 2, stays=True) as job:
            assert await job.more_than(1) == 2
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(3600):
                    await job.more_than(2)
            assert (scheduler.busy, job.ended, scheduler.tokens_held) == (1, False, 9)
            [other] = [await consume(scheduler, 0, 3)]
            assert len(other.wakeups) == 3
        assert_idle(scheduler)

    run(main())


def test_an_answer_of_no_tokens_ends_after_its_prefill() -> None:
    async def main() -> None:
        scheduler = Scheduler(slots=1, prefill_tps=10, decode_tps=10)
        with scheduler.submit(5, 0) as job:
            assert await job.more_than(0) == 0
            assert asyncio.get_running_loop().time() == pytest.approx(0.5)
        assert_idle(scheduler)

    run(main())


def test_a_full_queue_refuses() -> None:
    async def main() -> None:
        scheduler = Scheduler(slots=1, prefill_tps=0, decode_tps=10, queue_max=1)
        with scheduler.submit(0, 1), scheduler.submit(0, 1), pytest.raises(QueueFullError, match="1 requests"):
            scheduler.submit(0, 1)
        assert_idle(scheduler)

    run(main())


def test_closing_tells_every_consumer_that_the_engine_stopped() -> None:
    async def main() -> None:
        scheduler = Scheduler(slots=1, prefill_tps=0, decode_tps=10)

        async def expect_stop(job: Job) -> None:
            with pytest.raises(StoppedError):
                await job.more_than(50)

        with scheduler.submit(0, 100) as running, scheduler.submit(0, 100) as waiting:
            async with asyncio.TaskGroup() as group:
                group.create_task(expect_stop(running))
                group.create_task(expect_stop(waiting))
                await asyncio.sleep(0.25)
                scheduler.close()
            assert running.said == 2
        scheduler.close()
        assert_idle(scheduler)

    run(main())


def test_the_totals_add_up() -> None:
    async def main() -> None:
        scheduler = Scheduler(slots=2, prefill_tps=100, decode_tps=10)
        await consume_all(scheduler, (100, 5), (100, 3))
        totals = scheduler.totals
        assert (totals.prompt_tokens, totals.decoded_tokens, totals.steps) == (200, 8, 5)
        assert totals.prompt_s == pytest.approx(2.0)
        assert totals.decoded_s == pytest.approx(0.8)
        assert totals.sequence_tokens_max == 105

    run(main())


def test_a_job_shows_its_state() -> None:
    async def main() -> None:
        scheduler = Scheduler(slots=1, prefill_tps=0, decode_tps=10)
        with scheduler.submit(0, 4) as job:
            await job.more_than(1)
            assert repr(job) == "<Job slot=0 said=2/4 ended=False>"

    run(main())


requests = st.lists(
    st.tuples(
        st.integers(0, 300),  # prompt tokens
        st.integers(0, 30),  # tokens to say
        st.floats(0, 3),  # when it comes
        st.none() | st.floats(0, 3),  # how long its client waits
    ),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(
    requests,
    st.integers(1, 4),
    st.sampled_from([0.0, 100.0]),
    st.sampled_from([0.0, 10.0, 33.0]),
)
def test_slots_never_leak(
    asked: list[tuple[int, int, float, float | None]], slots: int, prefill_tps: float, decode_tps: float
) -> None:
    """Whoever comes and goes when, slots are never shared, and all are free at the end; who waits gets everything."""

    async def client(scheduler: Scheduler, prompt: int, length: int, comes: float, patience: float | None) -> bool:
        await asyncio.sleep(comes)
        try:
            async with asyncio.timeout(patience):
                await consume(scheduler, prompt, length)
        except TimeoutError:
            return False
        finally:
            running = [job for job in scheduler.jobs if job is not None]
            assert len(running) == scheduler.busy <= slots
            assert not (scheduler.queued and scheduler.busy < slots)
            assert all(job.slot == number for number, job in enumerate(scheduler.jobs) if job is not None)
        return True

    async def main() -> None:
        scheduler = Scheduler(slots=slots, prefill_tps=prefill_tps, decode_tps=decode_tps)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(client(scheduler, *each)) for each in asked]
        for task, (_, _, _, patience) in zip(tasks, asked, strict=True):
            assert task.result() or patience is not None
        assert_idle(scheduler)
        steps = scheduler.totals.steps
        await asyncio.sleep(10)
        assert scheduler.totals.steps == steps

    run(main())

"""A stream that breaks after its first byte is continued by another worker, or ends with an error that says why not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from dataplane_support import PATH, RESUMES, Rig, endpoint, rig, turns
from neurogate import virtual_time
from neurogate.balancing.round_robin import RoundRobin
from neurogate.channel import End, EndCode, Resume
from neurogate.dataplane.dispatch import DispatchLimits
from neurogate.dataplane.exchange import Exchange
from neurogate.dataplane.member import Member
from neurogate.errors import DeadlineError, StreamBrokenError
from neurogate.inference import Usage
from neurogate.testing.receivers import RecordingReceiver
from neurogate.testing.recovery import END_MARK, NO_TEXT, PlainRecovery
from neurogate.testing.workers import FakeCall, answers, ends, refuses

GOOD = End(http_status=200, usage=Usage(3, 4), finish_reason="stop")
LOST = EndCode.LINK_LOST


class InOrder:
    """A `Picker`: the first that may be picked."""

    def pick(self, candidates: Sequence[Member], exclude: Collection[str]) -> Member | None:
        return next((member for member in candidates if member.id not in exclude), None)


@asynccontextmanager
async def fleet(count: int = 2, *, able: str | None = None, **options: Any) -> AsyncIterator[Rig]:
    """Workers of which those numbered in `able`, by default all, continue answers."""
    numbers = range(count) if able is None else map(int, able)
    resumes = {f"worker-{number}": RESUMES for number in numbers}
    async with rig(count, resumes=resumes, recovery=PlainRecovery(), **{"picker": InOrder(), **options}) as made:
        yield made


def begin(made: Rig, *chunks: bytes, **options: Any) -> tuple[Exchange, RecordingReceiver]:
    """A stream that worker 0 has begun."""
    exchange, receiver = made.send(resumable=True, **options)
    assert exchange.worker_id == "worker-0"
    for chunk in chunks or (b"one ", b"two "):
        made.worker(0).calls[-1].chunk(chunk)
    return exchange, receiver


def asked(made: Rig) -> list[int]:
    return [len(channel.calls) for channel in made.fleet.channels.values()]


def last(made: Rig, index: int) -> FakeCall:
    return made.worker(index).calls[-1]


def broken(receiver: RecordingReceiver) -> str:
    """The message of the error that ended a broken stream."""
    assert receiver.last_words == ["error"]
    assert type(receiver.error) is StreamBrokenError
    return receiver.error.message


def test_a_stream_whose_worker_dies_is_continued_where_it_stopped() -> None:
    async def main() -> None:
        async with fleet() as made:
            exchange, receiver = begin(made, request_id="r-7")
            made.worker(0).die()
            resumed = last(made, 1)

            assert resumed.call.resume == Resume("one two ", 2)
            assert (resumed.call.body, resumed.call.path) == (exchange.call.body, PATH)
            assert resumed.call.deadline == exchange.call.deadline
            assert (receiver.resumes, exchange.resumes, exchange.attempts) == (1, 1, 2)
            resumed.chunk(b"three")
            resumed.end(GOOD)
            assert receiver.last_words == ["complete"]
            assert receiver.body == b"one two three"
            assert (exchange.usage, exchange.worker_id) == (Usage(3, 4), "worker-1")
            assert made.observer.resumes == [("worker-0", "link_lost", "r-7")]
            assert made.observer.not_resumes == made.observer.retries == []

    virtual_time.run(main())


@pytest.mark.parametrize(
    "end",
    [
        *(End(code) for code in (EndCode.BROKEN, EndCode.UNAVAILABLE, EndCode.INTERNAL, EndCode.CANCELLED)),
        *(End(http_status=status) for status in (500, 503, 429)),
        End(EndCode.BUSY, retry_after_s=1.0),
    ],
    ids=str,
)
def test_whatever_a_worker_does_wrong_is_reason_enough(end: End) -> None:
    async def main() -> None:
        async with fleet() as made:
            _, receiver = begin(made)
            made.worker(1).script = answers(b"three", end=GOOD)
            last(made, 0).end(end)

            assert await receiver.last_word() == "complete"
            assert receiver.body == b"one two three"

    virtual_time.run(main())


def test_a_worker_that_drains_away_hands_its_streams_on() -> None:
    async def main() -> None:
        async with fleet() as made:
            _, receiver = begin(made)
            made.worker(1).script = answers(b"three", end=GOOD)
            made.worker(0).drain()
            assert asked(made) == [1, 0]  # it may finish what it holds
            made.worker(0).leave()
            await receiver.last_word()

            assert receiver.body == b"one two three"
            assert made.observer.resumes == [("worker-0", "cancelled", "")]
            assert made.member(0).breaker.state == "closed"

    virtual_time.run(main())


def test_a_stalled_stream_is_continued_and_its_slot_freed() -> None:
    async def main() -> None:
        async with fleet(limits=DispatchLimits(stall_s=4.0)) as made:
            _, receiver = begin(made)
            made.worker(1).script = answers(b"three", end=GOOD)
            await receiver.last_word()

            assert receiver.body == b"one two three"
            assert last(made, 0).cancelled
            assert 4.0 <= (receiver.ended_at or 0.0) <= 6.0

    virtual_time.run(main())


def test_only_workers_that_continue_such_answers_are_asked() -> None:
    async def main() -> None:
        async with fleet(3, able="2") as made:
            begin(made)
            made.worker(0).die()

            assert asked(made) == [1, 0, 1]
            last(made, 2).end(GOOD)

    virtual_time.run(main())


def test_only_workers_with_the_same_default_model_are_asked() -> None:
    models = {"worker-0": ("llama", "qwen"), "worker-1": ("qwen", "llama"), "worker-2": ("llama",)}

    async def main() -> None:
        async with fleet(3, models=models) as made:
            begin(made)
            made.worker(0).die()

            assert asked(made) == [1, 0, 1]
            last(made, 2).end(GOOD)

    virtual_time.run(main())


def test_a_named_model_may_be_any_of_a_workers_models() -> None:
    models = {"worker-0": ("llama",), "worker-1": ("phi",), "worker-2": ("qwen", "llama")}

    async def main() -> None:
        async with fleet(3, models=models) as made:
            begin(made, model="llama")
            made.worker(0).die()

            assert asked(made) == [1, 0, 1]
            last(made, 2).end(GOOD)

    virtual_time.run(main())


def test_a_worker_that_comes_back_with_another_default_model_is_not_taken_for_itself() -> None:
    async def main() -> None:
        async with fleet(1, models={"worker-0": ("llama",)}) as made:
            _, receiver = begin(made)
            made.worker(0).die()
            made.worker(0).become_ready(models=("qwen",))
            made.worker(0).come_up()
            await receiver.last_word()

            assert asked(made) == [1]
            assert "worker-0 is gone: connection reset" in broken(receiver)

    virtual_time.run(main())


def test_a_worker_that_takes_another_default_model_meanwhile_leaves_its_streams_to_the_old_one() -> None:
    models = {"worker-0": ("llama", "qwen"), "worker-1": ("qwen", "llama"), "worker-2": ("llama",)}

    async def main() -> None:
        async with fleet(3, models=models) as made:
            begin(made)
            made.worker(0).become_ready(models=("qwen", "llama"))
            made.worker(0).die()

            assert asked(made) == [1, 0, 1]
            last(made, 2).end(GOOD)

    virtual_time.run(main())


def test_a_stream_may_break_more_than_once() -> None:
    async def main() -> None:
        async with fleet(3) as made:
            exchange, receiver = begin(made)
            made.worker(0).die()
            last(made, 1).chunk(b"three ")
            made.worker(1).die()

            assert last(made, 2).call.resume == Resume("one two three ", 3)
            last(made, 2).chunk(b"four")
            last(made, 2).end(GOOD)
            assert receiver.body == b"one two three four"
            assert (exchange.attempts, exchange.resumes, receiver.resumes) == (3, 2, 2)
            assert [worker for worker, _, _ in made.observer.resumes] == ["worker-0", "worker-1"]

    virtual_time.run(main())


def test_a_worker_that_dies_before_it_goes_on_costs_an_attempt_and_no_text() -> None:
    async def main() -> None:
        async with fleet(3) as made:
            _, receiver = begin(made)
            made.worker(0).die()
            made.worker(1).die()

            assert last(made, 2).call.resume == Resume("one two ", 2)
            last(made, 2).end(GOOD)
            assert (receiver.body, receiver.last_words) == (b"one two ", ["complete"])

    virtual_time.run(main())


def test_after_as_many_attempts_as_may_be_the_stream_stays_broken() -> None:
    async def main() -> None:
        async with fleet(4, limits=DispatchLimits(resume_attempts=2)) as made:
            _, receiver = begin(made)
            last(made, 0).end(End(EndCode.BROKEN, message="it crashed"))
            last(made, 1).chunk(b"three")
            last(made, 1).end(End(EndCode.BROKEN, message="it crashed"))
            last(made, 2).end(End(EndCode.BROKEN, message="it crashed"))

            assert asked(made) == [1, 1, 1, 0]
            assert broken(receiver) == (
                "the answer broke off: the engine of worker-2 failed: it crashed; "
                "it was not continued: that was tried 2 times (NEUROGATE_RESUME_ATTEMPTS)"
            )
            assert receiver.body == b"one two three"
            assert made.observer.not_resumes[0][0] == "worker-2"

    virtual_time.run(main())


def test_workers_that_are_lost_before_they_say_anything_are_attempts_in_vain() -> None:
    async def main() -> None:
        async with fleet(6, limits=DispatchLimits(resume_attempts=2)) as made:
            _, receiver = begin(made)
            for index in range(4):
                made.worker(index).die()
            assert receiver.last_words == []

            made.worker(4).die()

            assert asked(made) == [1, 1, 1, 1, 1, 0]
            assert "that was tried 4 times" in broken(receiver)

    virtual_time.run(main())


def test_a_stream_that_gets_on_outlives_more_workers_than_attempts() -> None:
    """It is not its doing that they are lost; but ten times as many are enough."""

    async def main() -> None:
        async with fleet(12, limits=DispatchLimits(resume_attempts=1)) as made:
            _, receiver = begin(made)
            for index in range(1, 12):
                made.worker(index - 1).die()
                if index < 11:
                    last(made, index).chunk(b"x")

            assert receiver.body == b"one two " + b"x" * 10
            assert "that was tried 10 times" in broken(receiver)
            assert asked(made) == [1] * 11 + [0]

    virtual_time.run(main())


def test_a_worker_whose_engine_broke_the_stream_may_continue_it_when_it_is_the_only_one() -> None:
    async def main() -> None:
        async with fleet(1) as made:
            _, receiver = begin(made)
            made.worker(0).script = answers(b"three", end=GOOD)
            last(made, 0).end(End(EndCode.BROKEN))
            await receiver.last_word()

            assert (receiver.body, receiver.ended_at, asked(made)) == (b"one two three", 0.0, [2])

    virtual_time.run(main())


@pytest.mark.parametrize(("end", "pause_s"), [(End(EndCode.BROKEN), 1.0), (End(EndCode.BUSY, retry_after_s=2.5), 2.5)])
def test_the_only_worker_is_asked_again_after_a_pause_when_it_did_not_go_on(end: End, pause_s: float) -> None:
    """Asked again at once it would do the same: the attempts would be gone in a moment."""

    async def main() -> None:
        async with fleet(2) as made:
            _, receiver = begin(made)
            made.worker(0).die()
            made.worker(1).script = answers(b"three", end=GOOD)
            last(made, 1).end(end)
            assert asked(made) == [1, 1]
            await receiver.last_word()

            assert (receiver.body, asked(made)) == (b"one two three", [1, 2])
            assert receiver.ended_at == pytest.approx(pause_s, abs=0.01)

    virtual_time.run(main())


def test_a_worker_that_comes_meanwhile_is_asked_before_the_pause_is_over() -> None:
    async def main() -> None:
        async with fleet(2) as made:
            _, receiver = begin(made)
            made.worker(0).die()
            last(made, 1).end(End(EndCode.BUSY, retry_after_s=10.0))
            await asyncio.sleep(0.5)
            made.worker(1).become_unready()
            await turns()
            made.worker(0).script = answers(b"three", end=GOOD)
            made.worker(0).come_up()
            await receiver.last_word()

            assert (receiver.body, receiver.ended_at, asked(made)) == (b"one two three", 0.5, [2, 1])

    virtual_time.run(main())


def test_with_nobody_there_a_stream_waits_and_then_says_that_it_broke() -> None:
    async def main() -> None:
        async with fleet(1, limits=DispatchLimits(resume_wait_s=15.0)) as made:
            exchange, receiver = begin(made)
            made.worker(0).die()
            assert (made.pool.waiting, receiver.last_words) == (1, [])
            await receiver.last_word()

            assert receiver.ended_at == 15.0
            assert broken(receiver).startswith(
                "the answer broke off: worker-0 is gone: connection reset; no worker can take the request now (worker-0"
            )
            assert (exchange.resumes, receiver.resumes, made.observer.resumes) == (0, 0, [])
            assert [worker for worker, _, _ in made.observer.not_resumes] == ["worker-0"]

    virtual_time.run(main())


def test_the_worker_that_died_may_come_back_and_go_on() -> None:
    async def main() -> None:
        async with fleet(1) as made:
            exchange, receiver = begin(made)
            made.worker(0).die()
            made.worker(0).script = answers(b"three", end=GOOD)
            await asyncio.sleep(14.9)
            made.worker(0).come_up()
            await receiver.last_word()

            assert (receiver.body, exchange.attempts, exchange.resumes) == (b"one two three", 2, 1)

    virtual_time.run(main())


def test_a_worker_that_learns_to_continue_answers_is_asked() -> None:
    async def main() -> None:
        async with fleet(2, able="0") as made:
            _, receiver = begin(made)
            made.worker(0).die()
            made.worker(1).script = answers(b"three", end=GOOD)
            await asyncio.sleep(1)
            assert asked(made) == [1, 0]
            made.worker(1).tell(replace(made.worker(1).present, resumes=RESUMES))
            await receiver.last_word()

            assert (receiver.body, receiver.ended_at) == (b"one two three", 1.0)

    virtual_time.run(main())


def test_no_more_streams_wait_than_may() -> None:
    async def main() -> None:
        async with fleet(1, limits=DispatchLimits(max_waiting=1)) as made:
            receivers = [begin(made)[1] for _ in range(3)]
            made.worker(0).die()
            await turns()

            failed = [receiver for receiver in receivers if receiver.last_words]
            assert (len(failed), made.pool.waiting) == (2, 1)
            for receiver in failed:
                assert "no worker can take the request now" in broken(receiver)
            for receiver in receivers:
                await receiver.last_word()

    virtual_time.run(main())


def test_without_the_time_to_wait_a_stream_is_broken_at_once() -> None:
    async def main() -> None:
        async with fleet(1, limits=DispatchLimits(resume_wait_s=0)) as made:
            _, receiver = begin(made)
            made.worker(0).die()
            await receiver.last_word()

            assert receiver.ended_at == 0.0
            assert "worker-0 is gone" in broken(receiver)

    virtual_time.run(main())


@pytest.mark.parametrize("resumed", [False, True])
def test_the_deadline_is_that_of_the_whole_request(resumed: bool) -> None:
    async def main() -> None:
        async with fleet(2 if resumed else 1) as made:
            _, receiver = begin(made, timeout_s=5.0)
            made.worker(0).die()
            await receiver.last_word()

            assert receiver.ended_at == 5.0
            assert type(receiver.error) is DeadlineError
            assert not resumed or last(made, 1).cancelled

    virtual_time.run(main())


def test_the_deadline_of_a_resumed_stream_may_be_told_by_its_worker() -> None:
    async def main() -> None:
        async with fleet(2) as made:
            _, receiver = begin(made)
            made.worker(0).die()
            last(made, 1).end(End(EndCode.DEADLINE))

            assert type(receiver.error) is DeadlineError

    virtual_time.run(main())


@pytest.mark.parametrize("when", ["waiting", "pausing", "resumed", "going on"])
def test_a_client_may_leave_at_any_moment(when: str) -> None:
    async def main() -> None:
        async with fleet(1 if when == "waiting" else 2) as made:
            exchange, receiver = begin(made)
            made.worker(0).die()
            if when == "pausing":
                last(made, 1).end(End(EndCode.BUSY))
            if when == "going on":
                last(made, 1).chunk(b"three")
            exchange.cancel()

            assert receiver.last_words == []
            assert exchange.finished
            made.assert_nothing_held()
            if when in {"resumed", "going on"}:
                assert last(made, 1).cancelled

    virtual_time.run(main())


@pytest.mark.parametrize("status", [400, 404, 413])
def test_a_refusal_of_the_second_worker_is_said_aloud(status: int) -> None:
    async def main() -> None:
        async with fleet(3) as made:
            _, receiver = begin(made)
            made.worker(1).script = refuses(status, body=b"the context is full")
            made.worker(0).die()
            await receiver.last_word()

            assert asked(made) == [1, 1, 0]
            assert broken(receiver) == (
                f"the answer broke off: the engine of worker-1 answered {status}: the context is full; "
                "it was not continued: the worker that was asked to refused it"
            )
            assert receiver.answer is None

    virtual_time.run(main())


@pytest.mark.parametrize("script", [ends(EndCode.UNSUPPORTED), refuses(501)])
def test_a_worker_that_cannot_continue_the_answer_leaves_it_to_a_third(script: Any) -> None:
    async def main() -> None:
        async with fleet(3) as made:
            _, receiver = begin(made)
            made.worker(1).script = script
            made.worker(2).script = answers(b"three", end=GOOD)
            made.worker(0).die()
            await receiver.last_word()

            assert (receiver.body, asked(made)) == (b"one two three", [1, 1, 1])
            assert made.member(1).breaker.state == "closed"

    virtual_time.run(main())


def test_a_request_that_cannot_be_continued_is_told_why() -> None:
    async def main() -> None:
        async with fleet() as made:
            _, receiver = begin(made, body=b'{"tools":[1]}', request_id="r-1")
            made.worker(0).die()

            assert asked(made) == [1, 0]
            assert broken(receiver) == (
                "the answer broke off: worker-0 is gone: connection reset; "
                "it was not continued: the request asks for tools"
            )
            assert made.observer.not_resumes == [("worker-0", "the request asks for tools", "r-1")]
            assert (made.observer.resumes, receiver.resumes) == ([], 0)

    virtual_time.run(main())


def test_an_answer_that_is_not_understood_is_not_continued() -> None:
    async def main() -> None:
        async with fleet() as made:
            _, receiver = begin(made, b"one ", NO_TEXT, b"two ")
            made.worker(0).die()

            assert asked(made) == [1, 0]
            assert broken(receiver).endswith("it was not continued: it is not understood")

    virtual_time.run(main())


def test_of_more_bytes_than_the_buffer_only_the_text_is_kept() -> None:
    async def main() -> None:
        limits = DispatchLimits(resume_buffer_bytes=1024)
        recovery = PlainRecovery()
        async with rig(2, resumes={"worker-1": RESUMES}, recovery=recovery, limits=limits) as made:
            _, receiver = begin(made, *[b"x" * 100] * 50)
            (transcript,) = recovery.transcripts
            assert transcript.takes == [1100] * 4
            made.worker(0).die()

            assert transcript.takes == [*[1100] * 4, 600]
            assert last(made, 1).call.resume == Resume("x" * 5000, 50)
            last(made, 1).chunk(b"y")
            last(made, 1).end(GOOD)
            assert receiver.body == b"x" * 5000 + b"y"

    virtual_time.run(main())


def test_a_request_that_cannot_be_continued_is_not_held_past_the_buffer() -> None:
    async def main() -> None:
        async with fleet(2, limits=DispatchLimits(resume_buffer_bytes=1024)) as made:
            exchange, receiver = begin(made, *[b"x" * 100] * 50, body=b"tools")
            assert exchange._sent is not None
            assert exchange._sent.size == 0
            made.worker(0).die()

            assert broken(receiver).endswith("it was not continued: the request asks for tools")

    virtual_time.run(main())


@pytest.mark.parametrize("end", [End(LOST), End(EndCode.BROKEN), End(http_status=400)], ids=str)
def test_a_stream_whose_end_mark_came_is_complete_whatever_becomes_of_its_worker(end: End) -> None:
    async def main() -> None:
        async with fleet(limits=DispatchLimits(resume_attempts=0)) as made:
            _, receiver = begin(made, b"one", END_MARK)
            last(made, 0).end(end)

            assert receiver.last_words == ["complete"]
            assert asked(made) == [1, 0]
            assert made.observer.resumes == made.observer.not_resumes == []

    virtual_time.run(main())


def test_a_stream_whose_end_mark_came_is_complete_also_where_nobody_continues_any() -> None:
    async def main() -> None:
        async with fleet(able="") as made:
            _, receiver = begin(made, b"one", END_MARK)
            made.worker(0).die()

            assert receiver.last_words == ["complete"]

    virtual_time.run(main())


def test_where_resume_is_off_a_stream_breaks_as_before() -> None:
    async def main() -> None:
        async with fleet() as made:
            _, receiver = made.send()
            last(made, 0).chunk(b"one")
            made.worker(0).die()

            assert broken(receiver) == "the answer broke off: worker-0 is gone: connection reset"
            assert asked(made) == [1, 0]
            assert made.observer.resumes == made.observer.not_resumes == []

    virtual_time.run(main())


def test_without_a_recovery_nothing_is_continued() -> None:
    async def main() -> None:
        async with rig(2, resumes={"worker-1": RESUMES}) as made:
            _, receiver = begin(made)
            made.worker(0).die()

            assert broken(receiver).endswith(f"this gateway does not continue answers of {PATH}")

    virtual_time.run(main())


def test_before_the_first_byte_and_for_whole_answers_a_worker_that_continues_nothing_is_as_good() -> None:
    async def main() -> None:
        async with fleet(2, able="") as made:
            for stream in (True, False):
                exchange, receiver = made.send(stream=stream, resumable=stream)
                first, second = (0, 1) if exchange.worker_id == "worker-0" else (1, 0)
                if not stream:
                    last(made, first).chunk(b"half an ")
                made.worker(second).script = answers(b"answer", end=GOOD)
                made.worker(first).die()
                await receiver.last_word()

                assert receiver.body == b"answer"
                assert last(made, second).call.resume is None
                assert (receiver.resumes, exchange.resumes) == (0, 0)
                made.worker(first).come_up()
            assert made.observer.resumes == []

    virtual_time.run(main())


def test_where_every_breaker_is_open_the_least_bad_worker_that_can_continues() -> None:
    async def main() -> None:
        async with fleet(3, able="1") as made:
            begin(made)
            await made.open_breaker(1)
            await made.open_breaker(2)
            made.worker(0).die()

            assert asked(made) == [1, 1, 0]
            last(made, 1).end(GOOD)

    virtual_time.run(main())


def test_a_hundred_streams_of_one_worker_go_on_elsewhere() -> None:
    async def main() -> None:
        async with fleet(3, picker=RoundRobin()) as made:
            made.worker(1).drain()
            made.worker(2).drain()
            streams = [begin(made, b"%d " % number) for number in range(100)]
            for index in (1, 2):
                made.worker(index).become_ready()
                made.worker(index).script = lambda call: answers(call.resume.text.encode() * 2, end=GOOD)
            made.worker(0).die()
            for number, (_, receiver) in enumerate(streams):
                assert await receiver.last_word() == "complete"
                assert receiver.body == (b"%d " % number) * 3

            assert asked(made) == [100, 50, 50]

    virtual_time.run(main())


def test_nobody_waits_for_a_worker_that_continues_when_none_ever_will() -> None:
    """A fleet whose engines cannot do it tells so at once, and not after NEUROGATE_RESUME_WAIT_S."""

    async def main() -> None:
        async with fleet(2, able="") as made:
            _, receiver = begin(made)
            last(made, 0).end(End(EndCode.BROKEN))
            await receiver.last_word()

            assert receiver.ended_at == 0
            assert receiver.error is not None
            assert "the engine of no worker that has the model continues answers of" in receiver.error.message

    virtual_time.run(main())


def test_the_last_worker_may_be_replaced_by_another_one() -> None:
    """A fleet of one whose worker is removed and comes back under another address has nobody for a moment."""

    async def main() -> None:
        async with fleet(1) as made:
            _, receiver = begin(made)
            await made.name()
            assert receiver.last_words == []
            await made.name(endpoint(1))
            made.worker(1).tell(replace(made.worker(1).present, resumes=RESUMES))
            made.worker(1).script = answers(b"three", end=GOOD)
            made.worker(1).come_up()
            await receiver.last_word()

            assert receiver.body == b"one two three"

    virtual_time.run(main())


def test_a_stream_waits_for_a_model_that_is_being_loaded_again() -> None:
    """Longer than for a worker of which nobody knows: a large model may take a minute, and tells so."""

    async def main() -> None:
        async with fleet(1) as made:
            _, receiver = begin(made)
            worker = made.worker()
            well = worker.present
            worker.tell(replace(well, ready=False, loading=True, resumes=frozenset(), detail="loading its model"))
            last(made, 0).end(End(EndCode.UNAVAILABLE, message="the engine died"))
            await asyncio.sleep(40)
            assert receiver.last_words == []
            worker.script = answers(b"three", end=GOOD)
            worker.tell(well)
            await receiver.last_word()

            assert receiver.body == b"one two three"

    virtual_time.run(main())


def test_an_engine_that_is_away_and_does_not_load_is_not_waited_for_longer() -> None:
    async def main() -> None:
        async with fleet(1) as made:
            _, receiver = begin(made)
            worker = made.worker()
            worker.tell(replace(worker.present, ready=False, resumes=frozenset(), detail="the engine does not answer"))
            last(made, 0).end(End(EndCode.UNAVAILABLE, message="the engine died"))
            await receiver.last_word()

            assert receiver.ended_at == DispatchLimits().resume_wait_s
            assert "the engine does not answer" in broken(receiver)

    virtual_time.run(main())

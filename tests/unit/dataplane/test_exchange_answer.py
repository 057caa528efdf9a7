"""Answers on their way to the client: streamed and whole, complete and broken."""

from __future__ import annotations

import asyncio

import pytest

from dataplane_support import rig, turns
from neurogate import virtual_time
from neurogate.channel import End, EndCode
from neurogate.dataplane.dispatch import DispatchLimits
from neurogate.errors import DeadlineError, EngineFailedError, StreamBrokenError
from neurogate.inference import Usage
from neurogate.resilience.breaker import Outcome
from neurogate.testing.receivers import RecordingReceiver
from neurogate.testing.workers import GOOD_END, answers, ends

BAD_ENDS = [End(code, message="told") for code in EndCode if code is not EndCode.ANSWERED]
BAD_ENDS += [End(http_status=status) for status in (400, 404, 429, 500, 501, 503)]
NEUTRAL = {EndCode.CANCELLED, EndCode.BUSY, EndCode.UNSUPPORTED}


def name(end: End) -> str:
    return end.code.name if end.code is not EndCode.ANSWERED else str(end.http_status)


# Streamed


def test_chunks_go_through_as_they_come():
    async def main() -> None:
        async with rig(1) as made:
            made.worker().script = answers(b"a", b"b", b"c", first_s=2.0, every_s=0.5)
            loop, times = asyncio.get_running_loop(), []
            exchange, receiver = made.send(receiver=RecordingReceiver(lambda word: times.append((word, loop.time()))))
            assert not exchange.started
            await receiver.last_word()

            assert receiver.chunks == [b"a", b"b", b"c"]
            assert times == [("chunk", 2.0), ("chunk", 2.5), ("chunk", 3.0), ("complete", 3.5)]
            assert (exchange.started, exchange.finished, exchange.attempts) == (True, True, 1)

    virtual_time.run(main())


def test_usage_of_a_good_end_is_kept_for_the_metrics():
    async def main() -> None:
        async with rig(1) as made:
            made.worker().script = answers(b"a", end=End(http_status=200, usage=Usage(3, 4)))
            exchange, receiver = made.send()
            await receiver.last_word()

            assert exchange.usage == Usage(3, 4)

    virtual_time.run(main())


def test_a_stream_without_a_chunk_is_complete_when_the_worker_says_so():
    async def main() -> None:
        async with rig(1) as made:
            made.worker().script = answers()

            assert (await made.ask()).heard == ["complete"]

    virtual_time.run(main())


@pytest.mark.parametrize("end", [end for end in BAD_ENDS if end.code is not EndCode.DEADLINE], ids=name)
def test_a_stream_that_ends_badly_after_its_first_byte_says_so_and_is_never_complete(end: End):
    async def main() -> None:
        async with rig(2) as made:
            made.worker(0).script = answers(b"half an ", every_s=1.0, end=end)
            exchange, receiver = made.send()
            await receiver.last_word()

            assert receiver.heard == ["chunk", "error"]
            assert type(receiver.error) is StreamBrokenError
            assert receiver.error.message.startswith("the answer broke off: ")
            assert len(made.worker(1).calls) == 0
            assert exchange.attempts == 1
            assert made.observer.retries == []

    virtual_time.run(main())


def test_a_stream_whose_deadline_the_worker_sees_first_ends_like_any_late_one():
    async def main() -> None:
        async with rig(1) as made:
            made.worker(0).script = answers(b"half an ", end=End(EndCode.DEADLINE))
            _, receiver = made.send()
            await receiver.last_word()

            assert receiver.heard == ["chunk", "error"]
            assert type(receiver.error) is DeadlineError
            assert made.member().breaker.consecutive_failures == 0

    virtual_time.run(main())


def test_a_worker_that_breaks_every_stream_after_its_first_token_opens_its_breaker():
    async def main() -> None:
        async with rig(1) as made:
            for _ in range(3):
                made.worker().script = answers(b"half", end=End(EndCode.BROKEN))
                await made.ask()

            assert made.member().breaker.state == "open"

    virtual_time.run(main())


def test_a_probe_that_dies_after_its_first_token_is_a_failure_of_the_closed_breaker():
    async def main() -> None:
        async with rig(1) as made:
            await made.open_breaker()
            await asyncio.sleep(31)
            made.worker().script = answers(b"half", end=End(EndCode.BROKEN))
            await made.ask()

            assert made.member().breaker.state == "closed"
            assert made.member().breaker.consecutive_failures == 1

    virtual_time.run(main())


@pytest.mark.parametrize(
    "end", [end for end in BAD_ENDS if end.code not in {EndCode.ANSWERED, EndCode.DEADLINE}], ids=name
)
def test_a_worker_that_fails_after_the_first_byte_is_counted_once_more(end: End):
    async def main() -> None:
        async with rig(1) as made:
            made.worker().script = answers(b"half", end=end)
            await made.ask()

            assert made.member().breaker.consecutive_failures == (0 if end.code in NEUTRAL else 1)

    virtual_time.run(main())


def test_a_worker_that_dies_in_mid_stream_breaks_each_of_its_streams():
    async def main() -> None:
        async with rig(2) as made:
            made.worker(0).script = answers(b"a", b"b", every_s=1.0)
            _, broken = made.send()
            made.worker(1).script = answers(b"a", b"b", every_s=1.0)
            _, whole = made.send()
            await asyncio.sleep(0.5)
            made.worker(0).die("connection reset")

            assert await broken.last_word() == "error"
            assert type(broken.error) is StreamBrokenError
            assert "connection reset" in broken.error.message
            assert await whole.last_word() == "complete"

    virtual_time.run(main())


def test_the_first_token_is_a_success_for_the_breaker_while_the_stream_goes_on():
    """So a three-minute stream does not hold the half-open probe."""

    async def main() -> None:
        async with rig(1) as made:
            await made.open_breaker()
            await asyncio.sleep(31)
            _, receiver = made.send()
            call = made.worker().calls[0]
            assert made.member().breaker.state == "half-open"

            call.chunk(b"first")

            assert made.member().breaker.state == "closed"
            assert made.member().in_flight == 1
            call.end()
            assert receiver.last_words == ["complete"]

    virtual_time.run(main())


def test_the_size_of_a_stream_has_no_bound():
    async def main() -> None:
        async with rig(1, limits=DispatchLimits(max_answer_bytes=10)) as made:
            made.worker().script = answers(*[b"0123456789"] * 10)

            assert (await made.ask()).last_words == ["complete"]

    virtual_time.run(main())


# Whole


def test_a_whole_answer_arrives_in_one_piece_and_only_when_it_is_whole():
    async def main() -> None:
        async with rig(1) as made:
            end = End(http_status=200, content_type="application/json", usage=Usage(1, 2))
            made.worker().script = answers(b'{"a":', b"1}", every_s=1.0, end=end)
            exchange, receiver = made.send(stream=False)
            await asyncio.sleep(1.5)
            assert (receiver.heard, exchange.started) == ([], False)
            await receiver.last_word()

            assert receiver.heard == ["answer"]
            assert receiver.answer == (end, b'{"a":1}')
            assert exchange.usage == Usage(1, 2)

    virtual_time.run(main())


def test_a_body_in_the_end_is_the_answer():
    async def main() -> None:
        async with rig(1) as made:
            made.worker().script = answers(end=End(http_status=200, body=b"at the end"))

            assert (await made.ask(stream=False)).body == b"at the end"

    virtual_time.run(main())


@pytest.mark.parametrize("code", [EndCode.LINK_LOST, EndCode.BROKEN, EndCode.UNAVAILABLE, EndCode.INTERNAL])
def test_a_worker_that_dies_in_the_middle_of_a_whole_answer_goes_unnoticed(code: EndCode):
    async def main() -> None:
        async with rig(2) as made:
            made.worker(0).script = answers(b"half an ", b"ans", every_s=0.1, end=End(code))
            made.worker(1).script = answers(b"a whole ", b"one")
            exchange, receiver = made.send(stream=False)
            await receiver.last_word()

            assert receiver.heard == ["answer"]
            assert receiver.body == b"a whole one"
            assert exchange.attempts == 2

    virtual_time.run(main())


def test_an_answer_may_have_just_the_size_that_is_allowed():
    async def main() -> None:
        async with rig(1, limits=DispatchLimits(max_answer_bytes=10)) as made:
            made.worker().script = answers(b"01234", b"56789")

            assert (await made.ask(stream=False)).body == b"0123456789"

    virtual_time.run(main())


def test_a_larger_answer_is_given_up_and_the_worker_is_stopped_and_not_blamed():
    async def main() -> None:
        async with rig(2, limits=DispatchLimits(max_answer_bytes=10)) as made:
            made.worker(0).script = answers(b"01234", b"567890", b"more", every_s=1.0)
            receiver = await made.ask(stream=False)

            assert type(receiver.error) is EngineFailedError
            assert "NEUROGATE_MAX_ANSWER_BYTES (10)" in receiver.error.message
            assert receiver.ended_at == 1.0
            assert made.worker(0).calls[0].cancelled
            assert len(made.worker(1).calls) == 0
            assert made.member(0).breaker.consecutive_failures == 0
            await asyncio.sleep(5)
            assert receiver.heard == ["error"]

    virtual_time.run(main())


def test_the_bound_is_on_one_attempt_not_on_all_together():
    async def main() -> None:
        async with rig(2, limits=DispatchLimits(max_answer_bytes=10)) as made:
            made.worker(0).script = answers(b"12345678", end=End(EndCode.BROKEN))
            made.worker(1).script = answers(b"abcdefgh")

            assert (await made.ask(stream=False)).body == b"abcdefgh"

    virtual_time.run(main())


def test_a_whole_answer_is_judged_at_its_end():
    async def main() -> None:
        async with rig(1) as made:
            await made.open_breaker()
            await asyncio.sleep(31)
            made.send(stream=False)
            call = made.worker().calls[0]
            call.chunk(b"{")
            assert made.member().breaker.state == "half-open"
            call.end()

            assert made.member().breaker.state == "closed"

    virtual_time.run(main())


# Either


def test_in_flight_counts_from_the_dispatch_to_the_end():
    async def main() -> None:
        async with rig(2) as made:
            for _ in range(3):
                made.send()
            assert (made.dispatcher.in_flight, made.member(0).in_flight, made.member(1).in_flight) == (3, 2, 1)
            made.worker(0).calls[0].end()
            assert (made.dispatcher.in_flight, made.member(0).in_flight) == (2, 1)
            made.worker(0).calls[1].end()
            made.worker(1).calls[0].end()

            assert made.dispatcher.in_flight == 0

    virtual_time.run(main())


def test_repr_says_where_the_request_is():
    async def main() -> None:
        async with rig(1) as made:
            exchange, _ = made.send(request_id="r7")
            assert repr(exchange) == "<Exchange r7 waiting worker='worker-0' attempts=1>"
            made.worker().calls[0].chunk(b"x")
            assert repr(exchange) == "<Exchange r7 started worker='worker-0' attempts=1>"
            made.worker().calls[0].end(GOOD_END)
            assert repr(exchange) == "<Exchange r7 finished worker='worker-0' attempts=1>"

    virtual_time.run(main())


def test_a_probe_that_the_engine_refuses_for_load_is_no_verdict_and_makes_room_for_the_next():
    async def main() -> None:
        async with rig(1) as made:
            await made.open_breaker()
            await asyncio.sleep(31)
            made.worker().script = ends(EndCode.BUSY)
            await made.ask()
            assert made.member().breaker.state == "open"

            permit = made.member().breaker.try_acquire()
            assert permit is not None
            permit.settle(Outcome.SUCCESS)
            await turns()

    virtual_time.run(main())

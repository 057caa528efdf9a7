"""Deadlines and clients that leave: whenever it happens, the worker is freed and nothing is heard twice."""

from __future__ import annotations

import asyncio

import pytest

from dataplane_support import rig, turns
from neurogate import virtual_time
from neurogate.channel import End, EndCode
from neurogate.dataplane.exchange import Exchange
from neurogate.errors import DeadlineError
from neurogate.testing.receivers import RecordingReceiver
from neurogate.testing.workers import Script, answers, ends

# Deadline


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_deadline_before_the_first_byte_ends_the_request_and_counts_against_the_worker(stream: bool):
    async def main() -> None:
        async with rig(2) as made:
            receiver = await made.ask(stream=stream, timeout_s=5.0)

            assert receiver.heard == ["error"]
            assert type(receiver.error) is DeadlineError
            assert "time ran out on worker-0" in receiver.error.message
            assert receiver.ended_at == 5.0
            assert made.worker(0).calls[0].cancelled
            assert made.member(0).breaker.consecutive_failures == 1
            assert len(made.worker(1).calls) == 0

    virtual_time.run(main())


def test_a_deadline_after_the_first_byte_ends_the_stream_and_says_nothing_of_the_worker():
    async def main() -> None:
        async with rig(1) as made:
            made.worker().script = answers(*[b"x"] * 100, every_s=1.0)
            receiver = await made.ask(timeout_s=5.5)

            assert receiver.heard == ["chunk"] * 6 + ["error"]
            assert type(receiver.error) is DeadlineError
            assert receiver.ended_at == 5.5
            assert made.worker().calls[0].cancelled
            assert made.member().breaker.consecutive_failures == 0
            await asyncio.sleep(100)
            assert receiver.last_words == ["error"]

    virtual_time.run(main())


def test_a_deadline_in_the_middle_of_a_whole_answer_hands_no_part_of_it_out():
    async def main() -> None:
        async with rig(1) as made:
            made.worker().script = answers(*[b"x"] * 100, every_s=1.0)
            receiver = await made.ask(stream=False, timeout_s=5.5)

            assert (receiver.heard, receiver.body) == (["error"], b"")

    virtual_time.run(main())


def test_a_deadline_counts_all_attempts_together():
    async def main() -> None:
        async with rig(2) as made:
            made.worker(0).script = ends(EndCode.BROKEN, after_s=3.0)
            receiver = await made.ask(timeout_s=5.0)

            assert receiver.ended_at == 5.0
            assert receiver.error is not None
            assert "worker-1" in receiver.error.message

    virtual_time.run(main())


def test_a_deadline_while_waiting_for_a_worker_names_none():
    async def main() -> None:
        async with rig(1, up=False) as made:
            receiver = await made.ask(timeout_s=0.5)

            assert type(receiver.error) is DeadlineError
            assert receiver.error.message.startswith("the request's time ran out; ")
            assert (receiver.ended_at, made.pool.waiting) == (0.5, 0)

    virtual_time.run(main())


def test_an_answer_in_time_is_not_followed_by_its_deadline():
    async def main() -> None:
        async with rig(1) as made:
            made.worker().script = answers(b"x", every_s=1.0)
            receiver = await made.ask(timeout_s=5.0)
            await asyncio.sleep(10)

            assert receiver.heard == ["chunk", "complete"]

    virtual_time.run(main())


def test_a_probe_that_runs_out_of_time_opens_the_breaker_again():
    async def main() -> None:
        async with rig(1) as made:
            await made.open_breaker()
            await asyncio.sleep(31)
            await made.ask(timeout_s=2.0)

            assert made.observer.breakers == [("worker-0", state) for state in ("open", "half-open", "open")]

    virtual_time.run(main())


# The client leaves


def leave_after_first(word: str) -> tuple[RecordingReceiver, list[Exchange]]:
    """A client that cancels from within a callback."""
    exchanges: list[Exchange] = []

    def hear(heard: str) -> None:
        if heard == word and exchanges:
            exchanges[0].cancel()

    return RecordingReceiver(hear), exchanges


def test_cancel_frees_the_worker_and_tells_nobody():
    async def main() -> None:
        async with rig(1) as made:
            exchange, receiver = made.send()
            call = made.worker().calls[0]
            exchange.cancel()

            assert call.cancelled
            assert (exchange.finished, made.member().in_flight) == (True, 0)
            assert made.member().breaker.consecutive_failures == 0
            exchange.cancel()
            await asyncio.sleep(1000)
            assert receiver.heard == []

    virtual_time.run(main())


def test_cancel_from_within_a_chunk_ends_it_there():
    async def main() -> None:
        async with rig(1) as made:
            receiver, exchanges = leave_after_first("chunk")
            made.worker().script = answers(b"a", b"b")
            exchange, _ = made.send(receiver=receiver)
            exchanges.append(exchange)
            await asyncio.sleep(1)

            assert receiver.heard == ["chunk"]
            assert made.worker().calls[0].cancelled

    virtual_time.run(main())


@pytest.mark.parametrize("word", ["complete", "error", "answer"])
def test_cancel_from_within_the_last_word_does_nothing(word: str):
    async def main() -> None:
        async with rig(1) as made:
            receiver, exchanges = leave_after_first(word)
            made.worker().script = ends(EndCode.BROKEN) if word == "error" else answers(b"a")
            exchange, _ = made.send(receiver=receiver, stream=word != "answer")
            exchanges.append(exchange)
            await asyncio.sleep(1)

            assert receiver.last_words == [word]
            assert made.worker().calls[0].ended

    virtual_time.run(main())


def test_cancel_while_waiting_takes_the_waiter_back():
    async def main() -> None:
        async with rig(1, up=False) as made:
            exchange, receiver = made.send()
            assert made.pool.waiting == 1
            exchange.cancel()
            assert made.pool.waiting == 0
            made.worker().come_up()
            await asyncio.sleep(10)

            assert (receiver.heard, len(made.worker().calls)) == ([], 0)

    virtual_time.run(main())


def test_cancel_between_a_new_snapshot_and_the_second_look():
    async def main() -> None:
        async with rig(1, up=False) as made:
            exchange, receiver = made.send()
            made.worker().come_up()
            exchange.cancel()
            await asyncio.sleep(10)

            assert (receiver.heard, len(made.worker().calls)) == ([], 0)

    virtual_time.run(main())


@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_leaves_a_probe_does_not_leave_it_stuck(streamed: bool):
    async def main() -> None:
        async with rig(1) as made:
            await made.open_breaker()
            await asyncio.sleep(31)
            exchange, _ = made.send(stream=streamed)
            exchange.cancel()

            assert made.member().breaker.state == "open"
            assert made.member().breaker.admits
            made.worker().script = answers(b"x")
            assert (await made.ask()).last_words == ["complete"]
            assert made.member().breaker.state == "closed"

    virtual_time.run(main())


LIFE: dict[str, Script] = {
    "worker-0": ends(EndCode.UNAVAILABLE, after_s=1.0),
    "worker-1": answers(first_s=1.0, end=End(EndCode.BROKEN)),
    "worker-2": answers(b"a", b"b", b"c", first_s=1.0, every_s=1.0),
}


@pytest.mark.parametrize("how", ["cancel", "deadline"])
@pytest.mark.parametrize("half_seconds", range(14))
def test_at_whatever_moment_a_request_ends_early_nothing_is_left(how: str, half_seconds: int):
    """Three attempts, then three chunks, a second apart each: it ends in between, or just when something happens."""

    async def main() -> None:
        moment_s = half_seconds / 2
        async with rig(3) as made:
            for worker_id, script in LIFE.items():
                made.fleet[worker_id].script = script
            exchange, receiver = made.send(timeout_s=moment_s if how == "deadline" else 300.0)
            if moment_s:
                await asyncio.sleep(moment_s)
            if how == "cancel":
                exchange.cancel()
            await turns()
            heard = list(receiver.heard)
            await asyncio.sleep(20)

            assert exchange.finished
            assert receiver.heard == heard
            assert len(receiver.last_words) <= 1
            if how == "deadline":
                assert len(receiver.last_words) == 1
            assert sum(channel.calls[0].open for channel in made.fleet.channels.values() if channel.calls) == 0

    virtual_time.run(main())

"""The worker in memory keeps the contract of a channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from neurogate import virtual_time
from neurogate.channel import Call, End, EndCode
from neurogate.endpoint import Endpoint, ServedModel
from neurogate.testing.observers import RecordingLinkObserver
from neurogate.testing.receivers import RecordingSink
from neurogate.testing.workers import GOOD_END, FakeFleet, FakeWorkerChannel, Script, answers, ends, refuses

CALL = Call("/v1/chat/completions", b"{}", stream=True, deadline=1e9)
BROKEN = End(EndCode.BROKEN)


@asynccontextmanager
async def running(*, up: bool = True) -> AsyncIterator[tuple[FakeWorkerChannel, RecordingLinkObserver]]:
    observer = RecordingLinkObserver()
    loop = asyncio.get_running_loop()
    channel = FakeWorkerChannel(Endpoint("worker-0", "a:1"), observer, loop=loop, models=("llama",))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(channel.run())
        await asyncio.sleep(0)
        if up:
            channel.come_up()
        yield channel, observer
        task.cancel()
    assert channel.running == {}


def test_a_script_is_played_out_in_time():
    async def main() -> None:
        async with running() as (channel, _):
            channel.script = answers(b"a", b"b", first_s=1.0, every_s=0.5)
            sink, loop = RecordingSink(), asyncio.get_running_loop()
            channel.submit(CALL, sink)
            await asyncio.sleep(0.9)
            assert sink.chunks == []
            await asyncio.sleep(0.2)
            assert sink.chunks == [b"a"]
            await asyncio.sleep(0.5)
            assert (sink.chunks, sink.ends) == ([b"a", b"b"], [])
            await asyncio.sleep(0.5)
            assert (sink.chunks, sink.ends) == ([b"a", b"b"], [GOOD_END])
            assert loop.time() == pytest.approx(2.1)

    virtual_time.run(main())


@pytest.mark.parametrize("up", [True, False])
def test_a_sink_is_never_called_from_within_submit(up: bool):
    async def main() -> None:
        async with running(up=up) as (channel, _):
            channel.script = ends(EndCode.BROKEN)
            sink = RecordingSink()
            channel.submit(CALL, sink)
            assert sink.ends == []
            await asyncio.sleep(0.001)

            assert [end.code for end in sink.ends] == [EndCode.BROKEN if up else EndCode.LINK_LOST]
            assert len(channel.calls) == (1 if up else 0)

    virtual_time.run(main())


def test_scripts_of_the_next_calls_come_first():
    async def main() -> None:
        async with running() as (channel, _):
            channel.script = refuses(500)
            channel.then(answers(b"once"), ends(EndCode.BUSY, retry_after_s=1.0))
            sinks = [RecordingSink() for _ in range(3)]
            for sink in sinks:
                channel.submit(CALL, sink)
            await asyncio.sleep(1)

            assert [sink.ends[0].code for sink in sinks] == [EndCode.ANSWERED, EndCode.BUSY, EndCode.ANSWERED]
            assert [sink.ends[0].http_status for sink in sinks] == [200, 0, 500]

    virtual_time.run(main())


def test_a_script_may_depend_on_the_call():
    async def main() -> None:
        async with running() as (channel, _):
            channel.script = lambda call: answers(call.path.encode())
            sink = RecordingSink()
            channel.submit(CALL, sink)
            await asyncio.sleep(1)

            assert sink.chunks == [b"/v1/chat/completions"]

    virtual_time.run(main())


def test_a_call_is_recorded_and_can_be_answered_by_hand():
    async def main() -> None:
        async with running() as (channel, _):
            sink = RecordingSink()
            await asyncio.sleep(3)
            ticket = channel.submit(CALL, sink)
            call = channel.calls[0]
            assert (call.ticket, call.call, call.at, call.open) == (ticket, CALL, 3.0, True)
            assert repr(call) == f"<FakeCall {ticket} open>"
            call.chunk(b"a")
            call.end(BROKEN)
            call.chunk(b"late")
            call.end()

            assert (sink.chunks, sink.ends) == ([b"a"], [BROKEN])
            assert repr(call) == f"<FakeCall {ticket} ended>"

    virtual_time.run(main())


def test_after_a_cancel_the_sink_hears_nothing():
    async def main() -> None:
        async with running() as (channel, _):
            channel.script = answers(b"a", b"b", every_s=1.0)
            sink = RecordingSink()
            ticket = channel.submit(CALL, sink)
            await asyncio.sleep(0.5)
            channel.cancel(ticket)
            channel.cancel(ticket)
            channel.cancel(12345)
            await asyncio.sleep(10)
            channel.die()

            assert (sink.chunks, sink.ends) == ([b"a"], [])
            assert repr(channel.calls[0]) == f"<FakeCall {ticket} cancelled>"

    virtual_time.run(main())


def test_a_cancel_from_within_a_chunk_stops_the_script():
    async def main() -> None:
        async with running() as (channel, _):

            class Leaving(RecordingSink):
                def on_chunk(self, data: bytes) -> None:
                    super().on_chunk(data)
                    channel.cancel(1)

            channel.script = answers(b"a", b"b")
            sink = Leaving()
            channel.submit(CALL, sink)
            await asyncio.sleep(1)

            assert (sink.chunks, sink.ends) == ([b"a"], [])

    virtual_time.run(main())


@pytest.mark.parametrize(
    ("go", "heard", "code"), [("die", "lost", EndCode.LINK_LOST), ("leave", "left", EndCode.CANCELLED)]
)
def test_a_lost_link_is_told_before_its_calls_end(go: str, heard: str, code: EndCode):
    async def main() -> None:
        async with running() as (channel, observer):
            told: list[str] = []

            class Ending(RecordingSink):
                def on_end(self, end: End) -> None:
                    super().on_end(end)
                    told.extend(word for word, _ in observer.heard)

            sink = Ending()
            channel.submit(CALL, sink)
            getattr(channel, go)("reason")

            assert told == ["up", heard]
            assert observer.heard[-1] == (heard, "reason")
            assert sink.ends == [End(code, message="reason")]
            with pytest.raises(RuntimeError, match="no link to lose"):
                channel.die()

    virtual_time.run(main())


def test_what_it_says_of_itself_is_heard_while_it_is_up():
    async def main() -> None:
        async with running(up=False) as (channel, observer):
            channel.become_unready("loading")
            assert observer.heard == []
            channel.come_up()
            channel.become_ready(models=("qwen",))
            channel.drain()
            reports = [report for _, report in observer.heard]

            assert [word for word, _ in observer.heard] == ["up", "report", "report"]
            assert [(report.ready, report.draining, report.detail) for report in reports] == [
                (False, False, "loading"),
                (True, False, ""),
                (False, True, ""),
            ]
            assert [report.models for report in reports] == [
                (ServedModel("llama"),),
                (ServedModel("qwen"),),
                (ServedModel("qwen"),),
            ]

    virtual_time.run(main())


def test_a_connection_is_refused_only_while_there_is_none():
    async def main() -> None:
        async with running(up=False) as (channel, observer):
            channel.refuse_connection("connection refused")
            assert observer.heard == [("failed", "connection refused")]
            channel.come_up()
            with pytest.raises(RuntimeError, match="worker-0 up in_flight=0> is connected"):
                channel.refuse_connection()
            with pytest.raises(RuntimeError, match="cannot come up"):
                channel.come_up()

    virtual_time.run(main())


def test_stopping_ends_every_call_in_flight_and_tells_no_observer():
    async def main() -> None:
        sink = RecordingSink()
        async with running() as (channel, observer):
            channel.submit(CALL, sink)
        assert [end.code for end in sink.ends] == [EndCode.LINK_LOST]
        assert [word for word, _ in observer.heard] == ["up"]
        assert (channel.up, channel.served) == (False, False)
        with pytest.raises(RuntimeError, match="cannot come up"):
            channel.come_up()

    virtual_time.run(main())


def test_a_script_without_an_end_hangs():
    async def main() -> None:
        async with running() as (channel, _):
            channel.script = Script(((0.0, b"a"),))
            sink = RecordingSink()
            channel.submit(CALL, sink)
            await asyncio.sleep(3600)

            assert (sink.chunks, sink.ends) == ([b"a"], [])
            assert list(channel.running) == [1]
            channel.cancel(1)

    virtual_time.run(main())


def test_a_fleet_keeps_the_latest_channel_of_each_worker():
    async def main() -> None:
        fleet = FakeFleet(asyncio.get_running_loop(), models={"worker-0": ("llama",)})
        first = fleet.connect(Endpoint("worker-0", "a:1"), RecordingLinkObserver())
        other = fleet.connect(Endpoint("worker-1", "b:1"), RecordingLinkObserver())
        assert (fleet["worker-0"], fleet["worker-1"]) == (first, other)
        assert (first.present.models, other.present.models) == ((ServedModel("llama"),), ())

        second = fleet.connect(Endpoint("worker-0", "c:1"), RecordingLinkObserver())

        assert fleet["worker-0"] is second

    virtual_time.run(main())

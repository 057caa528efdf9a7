"""The link over real gRPC on loopback: a gateway's client and a worker's server, and everything that can part them."""

from __future__ import annotations

import asyncio
import gc
import random
from dataclasses import replace
from typing import Any

import grpc.aio
import msgspec
import pytest
from structlog.testing import capture_logs

from link_support import (
    READY,
    RecordingSink,
    ScriptedBackend,
    call,
    hang,
    linked,
    linking,
    lost,
    serving,
)
from neurogate.api.v1 import worker_pb2 as pb
from neurogate.api.v1 import worker_pb2_grpc
from neurogate.channel import End, EndCode, Resume
from neurogate.inference import Usage
from neurogate.rpc.backend import IncomingCall, Outlet
from neurogate.rpc.http2.client import ClientCall
from neurogate.rpc.outbox import FRAME_BYTES
from real_loop import eventually, run_real

MIB = 1 << 20
EVENT = b'data: {"choices":[{"delta":{"content":" token"}}]}\n\n'


def body(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def test_a_whole_answer_arrives_byte_for_byte() -> None:
    async def main() -> None:
        async with serving(ScriptedBackend()) as (_, address), linked(address) as client:
            sink = RecordingSink()
            client.submit(call(b'{"messages": []}', stream=False), sink)
            end = await sink.ended()
        assert sink.body == b'{"messages": []}'
        assert end == End(http_status=200, usage=Usage(1, 2, 0), finish_reason="stop")

    run_real(main())


def test_a_streamed_answer_arrives_while_it_is_said() -> None:
    """Every event before the next one is said, in order and unchanged."""

    async def main() -> None:
        said = [b'data: {"n": %d}\n\n' % number for number in range(20)]
        steps: asyncio.Queue[bytes | None] = asyncio.Queue()

        async def speak(_: IncomingCall, outlet: Outlet) -> End:
            while (event := await steps.get()) is not None:
                outlet.chunk(event)
            return End(http_status=200)

        async with serving(ScriptedBackend(speak)) as (_, address), linked(address) as client:
            sink = RecordingSink()
            client.submit(call(), sink)
            for number, event in enumerate(said, 1):
                steps.put_nowait(event)
                await sink.chunked.until(number.__eq__)
            assert sink.end.value is None
            steps.put_nowait(None)
            await sink.ended()
        assert sink.chunks == said

    run_real(main())


def test_three_hundred_requests_share_the_link() -> None:
    """Each gets its own tokens, all of them, in order."""

    async def main() -> None:
        async def speak(incoming: IncomingCall, outlet: Outlet) -> End:
            for number in range(30):
                outlet.chunk(b"data: %s %d\n\n" % (incoming.body, number))
                await asyncio.sleep(0)
            return End(http_status=200)

        async with serving(ScriptedBackend(speak)) as (server, address), linked(address) as client:
            sinks = [RecordingSink() for _ in range(300)]
            for number, sink in enumerate(sinks):
                client.submit(call(b"request-%d" % number), sink)
            assert client.in_flight == 300
            for sink in sinks:
                await sink.ended()
            assert client.in_flight == 0
            await eventually(lambda: server.servicer.active == 0)
        for number, sink in enumerate(sinks):
            assert sink.chunks == [b"data: request-%d %d\n\n" % (number, token) for token in range(30)]

    run_real(main())


def test_bodies_of_three_megabytes_go_both_ways_while_small_requests_pass() -> None:
    async def main() -> None:
        large = [body(3 * MIB, seed) for seed in range(3)]
        async with serving(ScriptedBackend()) as (_, address), linked(address) as client:
            sinks = [RecordingSink() for _ in range(6)]
            for sink, sent in zip(sinks, [*large, b"a", b"b", b"c"], strict=True):
                client.submit(call(sent, stream=False), sink)
            for sink in sinks:
                await sink.ended()
        assert [sink.body for sink in sinks] == [*large, b"a", b"b", b"c"]

    run_real(main())


def test_the_worker_learns_what_the_gateway_knows() -> None:
    """Path, request id, trace context, and the time that is left."""

    async def main() -> None:
        backend = ScriptedBackend()
        async with serving(backend) as (_, address), linked(address) as client:
            sink = RecordingSink()
            client.submit(call(b"x", request_id="req-9", timeout_s=12.5), sink)
            await sink.ended()
        [seen] = backend.calls
        assert (seen.path, seen.body, seen.request_id) == ("/v1/chat/completions", b"x", "req-9")
        assert seen.traceparent.startswith("00-aaaa")
        assert seen.timeout_s is not None
        assert 12 < seen.timeout_s <= 12.5

    run_real(main())


def test_a_submit_without_a_deadline_has_none() -> None:
    async def main() -> None:
        backend = ScriptedBackend()
        async with serving(backend) as (_, address), raw_link(address) as link:
            await link.write(pb.GatewayFrame(submits=[pb.Submit(id=1, path="/x", body=b"hi")]))
            await answer_of(link, 1)
        assert backend.calls[0].timeout_s is None

    run_real(main())


def test_cancelling_stops_the_engine_and_nothing_arrives_afterwards() -> None:
    async def main() -> None:
        spoken = asyncio.Event()

        async def speak_on(_: IncomingCall, outlet: Outlet) -> End:
            while True:
                outlet.chunk(EVENT)
                spoken.set()
                await asyncio.sleep(0)

        backend = ScriptedBackend(speak_on)
        async with serving(backend) as (server, address), linked(address) as client:
            sink = RecordingSink()
            ticket = client.submit(call(request_id="req-1"), sink)
            await sink.chunked.until(lambda chunks: chunks > 0)
            client.cancel(ticket)
            arrived = len(sink.chunks)
            await backend.cancelled.until(lambda cancelled: cancelled == ("req-1",))
            other = RecordingSink()
            ticket = client.submit(call(request_id="req-2"), other)
            await other.chunked.until(lambda chunks: chunks > 0)
            client.cancel(ticket)
            client.cancel(ticket)
            client.cancel(12345)
            await backend.active.until(lambda active: active == 0)
            await eventually(lambda: server.servicer.active == 0)
        assert len(sink.chunks) == arrived
        assert sink.end.value is None

    run_real(main())


def test_a_request_cancelled_while_its_body_is_under_way_never_starts() -> None:
    async def main() -> None:
        backend = ScriptedBackend()
        async with serving(backend) as (server, address), linked(address) as client:
            ticket = client.submit(call(body(8 * MIB)), RecordingSink())
            await eventually(lambda: server.servicer.active == 1)
            client.cancel(ticket)
            await eventually(lambda: server.servicer.active == 0)
            sink = RecordingSink()
            client.submit(call(b"next"), sink)
            await sink.ended()
        assert [seen.body for seen in backend.calls] == [b"next"]

    run_real(main())


def test_an_engine_waits_for_a_gateway_that_does_not_read() -> None:
    """What is queued for it is bounded, and goes on as soon as it reads."""

    async def main() -> None:
        total, piece = 64 * MIB, bytes(65536)
        produced = 0
        full = asyncio.Event()

        async def speak(_: IncomingCall, outlet: Outlet) -> End:
            nonlocal produced
            while produced < total:
                outlet.chunk(piece)
                produced += len(piece)
                if outlet.full:
                    full.set()
                    await outlet.room()
            return End(http_status=200)

        async with serving(ScriptedBackend(speak), outbox_bytes=MIB) as (_, address), raw_link(address) as link:
            await link.write(pb.GatewayFrame(submits=[pb.Submit(id=1, path="/x")]))
            await full.wait()
            before = -1
            while before != produced:
                before = produced
                await status_of(address, times=20)
            assert produced < total
            read = 0
            end = None
            while end is None:
                frame = await link.read()
                read += sum(map(len, frame.chunks))
                end = next(iter(frame.ends), None)
            assert read == total

    run_real(main())


def test_a_worker_that_falls_silent_is_lost() -> None:
    """Its connection still stands, so only the missing reports tell."""

    async def main() -> None:
        async with (
            serving(ScriptedBackend(hang), stats_interval_s=60) as (_, address),
            linking(address, silence_s=0.1) as (client, observer),
        ):
            await observer.hears("up")
            sink = RecordingSink()
            client.submit(call(), sink)
            end = await sink.ended()
            assert end == End(EndCode.LINK_LOST, message="nothing heard for 0.1 s")
            assert observer.heard.value == ("up", "down")
            await observer.hears("up", 2)

    run_real(main())


def test_a_link_that_was_lost_keeps_nothing_open() -> None:
    """Whoever silenced it, its connection would stand until the collector comes, which on an idle gateway is never."""

    def calls() -> int:
        return sum(isinstance(thing, ClientCall) for thing in gc.get_objects())

    async def main() -> None:
        async with (
            serving(ScriptedBackend(hang), stats_interval_s=60) as (_, address),
            linking(address, silence_s=0.1) as (_, observer),
        ):
            await observer.hears("up", 4)
            assert calls() - before <= 1

    gc.collect()
    before = calls()
    gc.disable()
    try:
        run_real(main())
    finally:
        gc.enable()


def test_any_frame_shows_that_a_worker_lives() -> None:
    """Reports every 50 ms keep a link with a patience of 200 ms up for as long as they come."""

    async def main() -> None:
        async with serving(ScriptedBackend()) as (_, address), linking(address, silence_s=0.2) as (_, observer):
            await observer.hears("report", 10)
        assert "down" not in observer.heard.value

    run_real(main())


def test_an_answer_that_lost_a_frame_does_not_end_as_a_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does an engine go on for whoever cannot be told, and the next link serves."""

    async def main() -> None:
        async def speak(_: IncomingCall, outlet: Outlet) -> End:
            for said in (b"<0>", b"<1>", b"<2>"):
                outlet.chunk(said)
                await sink.chunked.until(lambda chunks: chunks > 0)
            return End(http_status=200)

        well = pb.WorkerFrame

        class Breaking:
            FromString = staticmethod(well.FromString)
            SerializeToString = staticmethod(well.SerializeToString)

            def __call__(self, *, chunks: list[bytes], **said: Any) -> pb.WorkerFrame:
                if b"<1>" in chunks:
                    raise ValueError("a bug")
                return well(chunks=chunks, **said)

        monkeypatch.setattr(pb, "WorkerFrame", Breaking())
        sink, other = RecordingSink(), RecordingSink()
        with capture_logs() as logs:
            async with serving(ScriptedBackend(speak)) as (_, address), linking(address) as (client, observer):
                await observer.hears("up")
                client.submit(call(), sink)
                assert lost(await sink.ended())
                await observer.hears("up", 2)
                monkeypatch.undo()
                client.submit(call(), other)
                assert (await other.ended()).http_status == 200
        assert (sink.body, other.body) == (b"<0>", b"<0><1><2>")
        assert [log["log_level"] for log in logs if log["event"] == "link failed"] == ["error"]

    run_real(main())


def test_a_lost_worker_is_told_before_its_requests_end() -> None:
    """So that none of them is sent to it again."""

    async def main() -> None:
        backend = ScriptedBackend(hang)
        async with serving(backend) as (server, address), linking(address) as (client, observer):
            await observer.hears("up")
            heard_before_end: list[tuple[str, ...]] = []

            class Noting(RecordingSink):
                def on_end(self, end: End) -> None:
                    heard_before_end.append(observer.heard.value)
                    super().on_end(end)

            sinks = [Noting() for _ in range(3)]
            for sink in sinks:
                client.submit(call(), sink)
            await backend.active.until(lambda active: active == 3)
            await server.stop(0)
            assert all([lost(await sink.ended()) for sink in sinks])
        assert all("down" in heard for heard in heard_before_end)
        assert client.in_flight == 0

    run_real(main())


def test_a_request_for_a_lost_worker_is_lost_at_once() -> None:
    """Not in the middle of `submit`: its caller would not know the ticket yet."""

    async def main() -> None:
        async with linking("127.0.0.1:1") as (client, observer):
            await observer.hears("failed")
            sink = RecordingSink()
            client.submit(call(), sink)
            assert sink.end.value is None
            assert await sink.ended() == End(EndCode.LINK_LOST, message="the link is down")
            assert repr(client) == "<LinkClient 127.0.0.1:1 down in_flight=0>"

    run_real(main())


def test_a_request_cancelled_while_the_worker_is_lost_hears_nothing() -> None:
    async def main() -> None:
        async with linking("127.0.0.1:1") as (client, observer):
            await observer.hears("failed")
            sink = RecordingSink()
            client.cancel(client.submit(call(), sink))
            other = RecordingSink()
            client.submit(call(), other)
            await other.ended()
            assert sink.end.value is None

    run_real(main())


def test_a_worker_that_cannot_be_reached_is_told_with_the_reason() -> None:
    async def main() -> None:
        async with linking("127.0.0.1:1") as (_, observer):
            await observer.hears("failed", 3)
        assert "unavailable" in observer.reasons[0]
        assert "up" not in observer.heard.value

    run_real(main())


def test_the_link_comes_back_with_the_worker() -> None:
    async def main() -> None:
        async with serving(ScriptedBackend()) as (server, address), linking(address) as (client, observer):
            await observer.hears("up")
            await server.stop(0)
            await observer.hears("down")
            async with serving(ScriptedBackend(), address=address):
                await observer.hears("up", 2)
                sink = RecordingSink()
                client.submit(call(b"again"), sink)
                assert (await sink.ended()).code is EndCode.ANSWERED
                assert sink.body == b"again"

    run_real(main())


def test_a_worker_that_drains_leaves_as_planned() -> None:
    async def main() -> None:
        backend = ScriptedBackend()
        async with serving(backend, stats_interval_s=60) as (server, address), linking(address) as (_, observer):
            await observer.hears("up")
            backend.now = replace(READY, draining=True)
            server.servicer.refresh()
            await observer.hears("report")
            assert observer.reports[-1].draining
            await server.servicer.flushed()
            await server.stop(0)
            await observer.hears("left")
        assert "down" not in observer.heard.value

    run_real(main())


def test_reports_come_first_and_keep_coming() -> None:
    async def main() -> None:
        async with serving(ScriptedBackend()) as (_, address), linking(address) as (client, observer):
            await observer.hears("report", 3)
            assert repr(client) == f"<LinkClient {address} up in_flight=0>"
        assert observer.heard.value[0] == "up"
        assert replace(observer.reports[0], seq=0) == READY
        sequence = [report.seq for report in observer.reports]
        assert sequence == sorted(set(sequence))

    run_real(main())


def test_a_gateway_that_goes_takes_its_requests_with_it() -> None:
    async def main() -> None:
        backend = ScriptedBackend(hang)
        async with serving(backend) as (server, address):
            async with linked(address) as staying:
                async with linked(address) as client:
                    sinks = [RecordingSink() for _ in range(3)]
                    for sink in sinks:
                        client.submit(call(), sink)
                    kept = RecordingSink()
                    staying.submit(call(request_id="kept"), kept)
                    await backend.active.until(lambda active: active == 4)
                    assert server.servicer.sessions == 2
                    assert server.servicer.active == 4
                assert all([lost(await sink.ended()) for sink in sinks])
                await backend.active.until(lambda active: active == 1)
                assert "kept" not in backend.cancelled.value
                await eventually(lambda: server.servicer.sessions == 1)
            await eventually(lambda: server.servicer.sessions == 0)
            assert server.servicer.active == 0

    run_real(main())


def test_a_ping_is_echoed() -> None:
    async def main() -> None:
        async with serving(ScriptedBackend(), stats_interval_s=60) as (_, address), raw_link(address) as link:
            await link.write(pb.GatewayFrame(ping=4711))
            frame = await link.read()
            while not frame.pong:
                frame = await link.read()
            assert frame.pong == 4711

    run_real(main())


def test_where_an_answer_stopped_reaches_the_worker() -> None:
    """All of it, or the worker would begin anew and the gateway take that for a continued answer."""

    async def main() -> None:
        backend = ScriptedBackend()
        resume = Resume(
            text="so far \N{SNOWMAN}",
            tokens=3,
            completion_id="c-1",
            created=1_700_000_000,
            model="m",
            finish_reason="stop",
            usage_sent=True,
            lengths=b"\x02\x03\x03",
            system_fingerprint="b6000-abc",
        )
        async with serving(backend) as (_, address), linking(address) as (client, observer):
            await observer.hears("up")
            sink = RecordingSink()
            client.submit(msgspec.structs.replace(call(b"{}"), resume=resume), sink)
            await sink.ended()
        assert [found.resume for found in backend.calls] == [resume]

    run_real(main())


@pytest.mark.parametrize("size", [2 * MIB, 100_000], ids=["in parts", "in one frame"])
def test_a_body_over_the_workers_limit_is_refused_and_the_link_goes_on(size: int) -> None:
    async def main() -> None:
        backend = ScriptedBackend()
        async with serving(backend, max_body_bytes=50_000) as (server, address), linking(address) as (client, observer):
            await observer.hears("up")
            sink, fine = RecordingSink(), RecordingSink()
            client.submit(call(body(size)), sink)
            client.submit(call(b"small"), fine)
            end = await sink.ended()
            assert (end.code, end.http_status) == (EndCode.ANSWERED, 413)
            assert "NEUROGATE_MAX_BODY_BYTES, 50000" in end.message
            assert (await fine.ended()).http_status == 200
            await eventually(lambda: server.servicer.active == 0)
            assert "down" not in observer.heard.value
        assert [seen.body for seen in backend.calls] == [b"small"]

    run_real(main())


def test_a_full_frame_is_not_too_much_for_a_worker_with_a_small_limit() -> None:
    """The limit is on bodies: many small ones together make a large frame."""

    async def main() -> None:
        async with (
            serving(ScriptedBackend(), max_body_bytes=20_000) as (_, address),
            linking(address) as (client, observer),
        ):
            await observer.hears("up")
            sinks = [RecordingSink() for _ in range(40)]
            for sink in sinks:
                client.submit(call(body(19_000)), sink)
            for sink in sinks:
                await sink.ended()
            assert "down" not in observer.heard.value
        assert 2 * FRAME_BYTES < 40 * 19_000

    run_real(main())


def test_what_was_said_to_a_gateway_that_went_holds_nobody_up() -> None:
    """`flushed` ends with the session: a drain does not wait for a gateway that is gone."""

    async def main() -> None:
        async def flood(_: IncomingCall, outlet: Outlet) -> End:
            for __ in range(512):
                outlet.chunk(bytes(65536))
            return End(http_status=200)

        async with (
            serving(ScriptedBackend(flood), stats_interval_s=60) as (server, address),
            asyncio.TaskGroup() as tasks,
        ):
            async with raw_link(address) as link:
                await link.write(pb.GatewayFrame(submits=[pb.Submit(id=1, path="/x")]))
                await eventually(lambda: server.servicer.active == 1)
                await eventually(lambda: server.servicer.active == 0)
                flushed = tasks.create_task(server.servicer.flushed())
                await status_of(address)
                assert not flushed.done()
            await flushed

    run_real(main())


def test_flushing_waits_until_everything_is_written() -> None:
    async def main() -> None:
        async with serving(ScriptedBackend(), linger_s=0.01) as (server, address), linking(address) as (_, observer):
            await observer.hears("report")
            heard = len(observer.reports)
            server.servicer.refresh()
            await server.servicer.flushed()
            await observer.heard.until(lambda _: len(observer.reports) > heard)

    run_real(main())


def test_a_port_that_is_taken_is_told() -> None:
    """A second worker on the port fails instead of sharing it."""

    async def main() -> None:
        async with serving(ScriptedBackend()) as (_, address):
            with pytest.raises(OSError, match=f"cannot listen on {address}"):
                async with serving(ScriptedBackend(), address=address):
                    pass

    run_real(main())


# What follows speaks the protocol by hand, for what the gateway's client never does.


class RawLink:
    """One link, frame by frame."""

    def __init__(self, stream: grpc.aio.StreamStreamCall[pb.GatewayFrame, pb.WorkerFrame]) -> None:
        self._stream = stream

    async def write(self, frame: pb.GatewayFrame) -> None:
        await self._stream.write(frame)

    async def read(self) -> pb.WorkerFrame:
        frame = await self._stream.read()
        assert isinstance(frame, pb.WorkerFrame)
        return frame


class raw_link:  # noqa: N801 - reads as the function it stands for
    """Open a link by hand, and hang up at the end."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)

    async def __aenter__(self) -> RawLink:
        stub = worker_pb2_grpc.WorkerStub(self._channel)  # type: ignore[no-untyped-call]
        self._stream = stub.Link()
        return RawLink(self._stream)

    async def __aexit__(self, *_: object) -> None:
        self._stream.cancel()
        await self._channel.close(None)


async def answer_of(link: RawLink, ticket: int) -> tuple[bytes, pb.End]:
    """Bytes and end of one request."""
    said = b""
    while True:
        frame = await link.read()
        said += b"".join(data for owner, data in zip(frame.ids, frame.chunks, strict=True) if owner == ticket)
        for end in frame.ends:
            if end.id == ticket:
                return said, end


async def status_of(address: str, times: int = 1) -> pb.WorkerStatus:
    """Ask a worker how it is, so often, which gives everybody else time for as many round trips."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = worker_pb2_grpc.WorkerStub(channel)  # type: ignore[no-untyped-call]
        for _ in range(times):
            status: pb.WorkerStatus = await stub.GetStatus(pb.StatusRequest())
        return status

"""A gateway's end of the link against a channel in memory, for moments that real sockets cannot time."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from structlog.testing import capture_logs

from link_support import READY, RecordingLinkObserver, RecordingSink, call
from neurogate.api.v1 import worker_pb2 as pb
from neurogate.channel import EndCode
from neurogate.rpc.codec import report_to_wire
from neurogate.rpc.link_client import LinkClient, LinkSettings
from neurogate.virtual_time import VirtualTimeLoop, run


class FakeStream:
    """A link's RPC: what the worker says is put into `frames`; None closes it."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[pb.WorkerFrame | None] = asyncio.Queue()
        self.written: list[pb.GatewayFrame] = []
        self.blocks = False
        """`write` never ends."""
        self.on_write_cancelled: Callable[[], object] = lambda: None
        self.cancelled = False

    async def read(self) -> Any:
        frame = await self.frames.get()
        return grpc.aio.EOF if frame is None else frame  # type: ignore[attr-defined] # the stubs lack it

    async def write(self, frame: pb.GatewayFrame) -> None:
        self.written.append(frame)
        if self.blocks:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.on_write_cancelled()
                raise

    async def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK

    def cancel(self) -> bool:
        self.cancelled = True
        return True


class FakeChannels:
    """Makes a channel for every session, one stream each."""

    def __init__(self, *streams: FakeStream) -> None:
        self._streams = list(streams)
        self.opened = 0
        self.closed = 0

    def open(self, _: str, **__: object) -> FakeChannels:
        self.opened += 1
        return self

    def stream_stream(self, *_: object, **__: object) -> Callable[[], FakeStream]:
        return lambda: self._streams.pop(0)

    def unary_stream(self, *_: object, **__: object) -> None:
        """Not used by the link."""

    def unary_unary(self, *_: object, **__: object) -> None:
        """Not used by the link."""

    async def close(self, _: float | None) -> None:
        self.closed += 1


def client(observer: RecordingLinkObserver) -> LinkClient:
    return LinkClient(
        "worker:1",
        observer,
        gateway_id="gateway-1",
        version="1",
        settings=LinkSettings(silence_s=3),
        loop=asyncio.get_running_loop(),
        rng=random.Random(1),
    )


def report() -> pb.WorkerFrame:
    return pb.WorkerFrame(stats=report_to_wire(READY))


def test_stopping_while_the_worker_stops_too_ends_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancellation that comes while the lost session is wound up is not lost: the link does not reconnect."""

    async def main() -> None:
        stream = FakeStream()
        channels = FakeChannels(stream)
        monkeypatch.setattr(grpc.aio, "insecure_channel", channels.open)
        observer = RecordingLinkObserver()
        stream.blocks = True
        link = client(observer)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(link.run())
            stream.on_write_cancelled = running.cancel
            stream.frames.put_nowait(report())
            await observer.hears("up")
            stream.frames.put_nowait(None)
        assert running.cancelled()
        assert (channels.opened, channels.closed) == (1, 1)
        assert stream.cancelled

    run(main())


def test_stopping_ends_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        stream = FakeStream()
        channels = FakeChannels(stream)
        monkeypatch.setattr(grpc.aio, "insecure_channel", channels.open)
        observer = RecordingLinkObserver()
        link = client(observer)
        sink = RecordingSink()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(link.run())
            stream.frames.put_nowait(report())
            await observer.hears("up")
            link.submit(call(), sink)
            running.cancel()
        end = await sink.ended()
        assert (end.code, end.message) == (EndCode.LINK_LOST, "the gateway stops")
        assert (link.in_flight, channels.closed) == (0, 1)

    run(main())


def test_reconnecting_takes_longer_every_time_up_to_a_bound_until_the_worker_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        streams = [FakeStream() for _ in range(10)]
        for stream in streams[:8]:
            stream.frames.put_nowait(None)
        channels = FakeChannels(*streams)
        opened: list[float] = []

        def connect(_: str, **__: object) -> FakeChannels:
            opened.append(loop.time())
            return channels.open("")

        monkeypatch.setattr(grpc.aio, "insecure_channel", connect)
        observer = RecordingLinkObserver()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(client(observer).run())
            await observer.hears("failed", 8)
            streams[8].frames.put_nowait(report())
            await observer.hears("up")
            streams[8].frames.put_nowait(None)
            streams[9].frames.put_nowait(report())
            await observer.hears("up", 2)
            running.cancel()
        waits = [later - earlier for earlier, later in itertools.pairwise(opened)]
        limits = [0.1, 0.2, 0.4, 0.8, 1.6, 2, 2, 2]
        assert all(limit / 2 <= wait <= limit for wait, limit in zip(waits, limits, strict=False))
        assert waits[8] <= 0.1
        assert observer.reasons[0] == "the worker closed the link"

    run(main())


def test_an_idle_link_writes_at_once_and_a_busy_one_gathers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        stream = FakeStream()
        monkeypatch.setattr(grpc.aio, "insecure_channel", FakeChannels(stream).open)
        observer = RecordingLinkObserver()
        link = client(observer)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(link.run())
            stream.frames.put_nowait(report())
            await observer.hears("up")
            await asyncio.sleep(1)
            for _ in range(5):
                link.submit(call(), RecordingSink())
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            assert [len(frame.submits) for frame in stream.written] == [0, 1]
            before = loop.time()
            while len(stream.written) < 3:
                await asyncio.sleep(0.0001)
            assert len(stream.written[2].submits) == 4
            assert loop.time() - before == pytest.approx(0.001, abs=0.0002)
            running.cancel()

    run(main())


def test_silence_counts_from_the_last_frame_whatever_it_carries(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        stream = FakeStream()
        monkeypatch.setattr(grpc.aio, "insecure_channel", FakeChannels(stream, FakeStream()).open)
        observer = RecordingLinkObserver()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(client(observer).run())
            stream.frames.put_nowait(report())
            for _ in range(5):
                await asyncio.sleep(2.9)
                stream.frames.put_nowait(pb.WorkerFrame(pong=1))
            spoken_at = loop.time()
            await observer.hears("down")
            assert loop.time() - spoken_at == pytest.approx(3)
            assert observer.reasons == ["nothing heard for 3 s"]
            running.cancel()

    run(main())


class Rejecting(RecordingSink):
    """A sink with a bug."""

    def on_chunk(self, data: bytes) -> None:
        raise ZeroDivisionError("a bug")


def test_a_bug_or_a_strange_frame_costs_the_link_and_not_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls it carried move on, and it is opened anew."""

    async def main() -> None:
        strange, buggy, fine = FakeStream(), FakeStream(), FakeStream()
        monkeypatch.setattr(grpc.aio, "insecure_channel", FakeChannels(strange, buggy, fine).open)
        observer = RecordingLinkObserver()
        link = client(observer)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(link.run())
            strange.frames.put_nowait(report())
            await observer.hears("up")
            strange.frames.put_nowait(pb.WorkerFrame(ids=[1, 2], chunks=[b"x"]))
            buggy.frames.put_nowait(report())
            await observer.hears("up", 2)
            sinks = [RecordingSink(), Rejecting()]
            first, second = [link.submit(call(), sink) for sink in sinks]
            with capture_logs() as logs:
                buggy.frames.put_nowait(pb.WorkerFrame(ids=[first, second], chunks=[b"x", b"x"]))
                assert [(await sink.ended()).code for sink in sinks] == [EndCode.LINK_LOST] * 2
            fine.frames.put_nowait(report())
            await observer.hears("up", 3)
            running.cancel()
        assert observer.reasons == ["the worker sent 1 chunks for 2 ids", "a bug"]
        assert [log["event"] for log in logs if log["log_level"] == "error"] == ["link failed"]

    run(main())


def test_what_arrives_for_a_cancelled_call_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        stream = FakeStream()
        monkeypatch.setattr(grpc.aio, "insecure_channel", FakeChannels(stream).open)
        observer = RecordingLinkObserver()
        link = client(observer)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(link.run())
            stream.frames.put_nowait(report())
            await observer.hears("up")
            gone, kept = RecordingSink(), RecordingSink()
            first, second = link.submit(call(), gone), link.submit(call(), kept)
            link.cancel(first)
            frame = pb.WorkerFrame(ids=[first, second], chunks=[b"a", b"b"], ends=[pb.End(id=first), pb.End(id=second)])
            stream.frames.put_nowait(frame)
            await kept.ended()
            assert (gone.chunks, gone.end.value, kept.chunks) == ([], None, [b"b"])
            running.cancel()

    run(main())


def test_a_gateway_that_was_paused_does_not_blame_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they sent meanwhile waits in the socket."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        stream = FakeStream()
        monkeypatch.setattr(grpc.aio, "insecure_channel", FakeChannels(stream, FakeStream()).open)
        observer = RecordingLinkObserver()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(client(observer).run())
            stream.frames.put_nowait(report())
            await observer.hears("up")
            loop.advance(60)  # as a stopped process that goes on
            await asyncio.sleep(2.9)
            assert "down" not in observer.heard.value
            await observer.hears("down")
            running.cancel()

    run(main())

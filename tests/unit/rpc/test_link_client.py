"""A gateway's end of the link against a connection in memory, for moments that real sockets cannot time."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable

import msgspec
import pytest
from structlog.testing import capture_logs

from http2_support import HEADERS, SETTINGS, MemoryTransport, data, message, trailers
from link_support import READY, RecordingLinkObserver, RecordingSink, call
from neurogate.api.v1 import worker_pb2 as pb
from neurogate.channel import EndCode
from neurogate.rpc.codec import report_to_wire
from neurogate.rpc.http2 import frames
from neurogate.rpc.http2.call import CallOwner, GrpcCall
from neurogate.rpc.http2.client import ClientCall
from neurogate.rpc.http2.dialing import Dialer
from neurogate.rpc.http2.messages import MessageReader
from neurogate.rpc.link_client import LinkClient, LinkSettings
from neurogate.virtual_time import VirtualTimeLoop, run


class FakeWorker:
    """A worker's end of one connection, byte by byte. What it says before the gateway comes waits."""

    def __init__(self) -> None:
        self.transport: MemoryTransport | None = None
        self._said: list[bytes] = [SETTINGS, HEADERS]
        self._heard: list[pb.GatewayFrame] = []
        self._messages = MessageReader(1 << 20)
        self.on_abort: Callable[[], object] = lambda: None

    def say(self, frame: pb.WorkerFrame) -> None:
        self.say_bytes(data(message(frame.SerializeToString())))

    def end(self) -> None:
        self.say_bytes(trailers(0))

    def say_bytes(self, wire: bytes) -> None:
        self._said.append(wire)
        if self.transport is not None:
            self._tell()

    def connect(self, call: ClientCall) -> None:
        worker = self

        class Transport(MemoryTransport):
            def abort(self) -> None:
                worker.on_abort()
                super().abort()

        self.transport = Transport(call)
        call.connection_made(self.transport)
        self._tell()

    @property
    def written(self) -> list[pb.GatewayFrame]:
        """What the gateway wrote so far."""
        assert self.transport is not None
        for kind, _, _, payload in self.transport.frames():
            if kind == frames.DATA:
                self._heard += map(pb.GatewayFrame.FromString, self._messages.feed(payload))
        return self._heard

    def _tell(self) -> None:
        assert self.transport is not None
        while self._said:
            self.transport._protocol.data_received(self._said.pop(0))


class FakeWorkers:
    """A `Dialer` that reaches another worker for every session."""

    def __init__(self, *workers: FakeWorker) -> None:
        self._waiting = list(workers)
        self.reached: list[FakeWorker] = []
        self.opened: list[float] = []

    async def __call__(self, address: str, owner: CallOwner, *, timeout_s: float, max_message_bytes: int) -> GrpcCall:
        loop = asyncio.get_running_loop()
        self.opened.append(loop.time())
        call = ClientCall(
            owner, "/link", authority=address, secure=False, loop=loop, max_message_bytes=max_message_bytes
        )
        worker = self._waiting.pop(0)
        self.reached.append(worker)
        worker.connect(call)
        return call

    @property
    def closed(self) -> int:
        return sum(worker.transport is not None and worker.transport.closing for worker in self.reached)


def client(observer: RecordingLinkObserver, dialer: Dialer) -> LinkClient:
    return LinkClient(
        "worker:1",
        observer,
        dialer=dialer,
        gateway_id="gateway-1",
        version="1",
        settings=LinkSettings(silence_s=3),
        loop=asyncio.get_running_loop(),
        rng=random.Random(1),
    )


def report() -> pb.WorkerFrame:
    return pb.WorkerFrame(stats=report_to_wire(READY))


def test_stopping_while_the_worker_stops_too_ends_the_link() -> None:
    """A cancellation that comes while the lost session is wound up is not lost: the link does not reconnect."""

    async def main() -> None:
        stream = FakeWorker()
        workers = FakeWorkers(stream)
        observer = RecordingLinkObserver()
        link = client(observer, workers)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(link.run())
            stream.on_abort = running.cancel
            stream.say(report())
            await observer.hears("up")
            stream.end()
        assert running.cancelled()
        assert (len(workers.opened), workers.closed) == (1, 1)

    run(main())


def test_stopping_ends_every_request() -> None:
    async def main() -> None:
        stream = FakeWorker()
        workers = FakeWorkers(stream)
        observer = RecordingLinkObserver()
        link = client(observer, workers)
        sink = RecordingSink()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(link.run())
            stream.say(report())
            await observer.hears("up")
            link.submit(call(), sink)
            running.cancel()
        end = await sink.ended()
        assert (end.code, end.message) == (EndCode.LINK_LOST, "the gateway stops")
        assert (link.in_flight, workers.closed) == (0, 1)

    run(main())


def test_reconnecting_takes_longer_every_time_up_to_a_bound_until_the_worker_is_back() -> None:
    async def main() -> None:
        streams = [FakeWorker() for _ in range(10)]
        for stream in streams[:8]:
            stream.end()
        workers = FakeWorkers(*streams)
        observer = RecordingLinkObserver()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(client(observer, workers).run())
            await observer.hears("failed", 8)
            streams[8].say(report())
            await observer.hears("up")
            streams[8].end()
            streams[9].say(report())
            await observer.hears("up", 2)
            running.cancel()
        waits = [later - earlier for earlier, later in itertools.pairwise(workers.opened)]
        limits = [0.1, 0.2, 0.4, 0.8, 1.6, 2, 2, 2]
        assert all(limit / 2 <= wait <= limit for wait, limit in zip(waits, limits, strict=False))
        assert waits[8] <= 0.1
        assert observer.reasons[0] == "the worker closed the link"

    run(main())


def test_requests_go_in_their_turn_and_a_busy_link_gathers_what_can_wait() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        stream = FakeWorker()
        observer = RecordingLinkObserver()
        link = client(observer, FakeWorkers(stream))
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(link.run())
            stream.say(report())
            await observer.hears("up")
            await asyncio.sleep(1)
            tickets = [link.submit(call(), RecordingSink()) for _ in range(3)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            tickets.append(link.submit(call(), RecordingSink()))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert [len(frame.submits) for frame in stream.written] == [0, 3, 1]
            before = loop.time()
            for ticket in tickets:
                link.cancel(ticket)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            while len(stream.written) < 4:
                await asyncio.sleep(0.0001)
            assert list(stream.written[3].cancels) == tickets
            assert loop.time() - before == pytest.approx(0.001, abs=0.0002)
            running.cancel()

    run(main())


def test_silence_counts_from_the_last_frame_whatever_it_carries() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        stream = FakeWorker()
        observer = RecordingLinkObserver()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(client(observer, FakeWorkers(stream, FakeWorker())).run())
            stream.say(report())
            for _ in range(5):
                await asyncio.sleep(2.9)
                stream.say(pb.WorkerFrame(pong=1))
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


def test_a_bug_or_a_strange_frame_costs_the_link_and_not_the_gateway() -> None:
    """The calls it carried move on, and it is opened anew."""

    async def main() -> None:
        strange, buggy, fine = FakeWorker(), FakeWorker(), FakeWorker()
        observer = RecordingLinkObserver()
        link = client(observer, FakeWorkers(strange, buggy, fine))
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(link.run())
            strange.say(report())
            await observer.hears("up")
            strange.say(pb.WorkerFrame(ids=[1, 2], chunks=[b"x"]))
            buggy.say(report())
            await observer.hears("up", 2)
            sinks = [RecordingSink(), Rejecting()]
            first, second = [link.submit(call(), sink) for sink in sinks]
            with capture_logs() as logs:
                buggy.say(pb.WorkerFrame(ids=[first, second], chunks=[b"x", b"x"]))
                assert [(await sink.ended()).code for sink in sinks] == [EndCode.LINK_LOST] * 2
            fine.say(report())
            await observer.hears("up", 3)
            running.cancel()
        assert observer.reasons == ["the worker sent 1 chunks for 2 ids", "a bug"]
        assert [log["event"] for log in logs if log["log_level"] == "error"] == ["link failed"]

    run(main())


def test_what_arrives_for_a_cancelled_call_is_dropped() -> None:
    async def main() -> None:
        stream = FakeWorker()
        observer = RecordingLinkObserver()
        link = client(observer, FakeWorkers(stream))
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(link.run())
            stream.say(report())
            await observer.hears("up")
            gone, kept = RecordingSink(), RecordingSink()
            first, second = link.submit(call(), gone), link.submit(call(), kept)
            link.cancel(first)
            frame = pb.WorkerFrame(ids=[first, second], chunks=[b"a", b"b"], ends=[pb.End(id=first), pb.End(id=second)])
            stream.say(frame)
            await kept.ended()
            assert (gone.chunks, gone.end.value, kept.chunks) == ([], None, [b"b"])
            running.cancel()

    run(main())


def test_a_gateway_that_was_paused_does_not_blame_its_workers() -> None:
    """What they sent meanwhile waits in the socket."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        stream = FakeWorker()
        observer = RecordingLinkObserver()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(client(observer, FakeWorkers(stream, FakeWorker())).run())
            stream.say(report())
            await observer.hears("up")
            loop.advance(60)  # as a stopped process that goes on
            await asyncio.sleep(2.9)
            assert "down" not in observer.heard.value
            await observer.hears("down")
            running.cancel()

    run(main())


def test_a_worker_that_does_not_read_holds_the_link_back_and_loses_nothing() -> None:
    """Frames are made when they can go: what was cancelled meanwhile is not sent."""

    async def main() -> None:
        stream = FakeWorker()
        observer = RecordingLinkObserver()
        link = client(observer, FakeWorkers(stream))
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(link.run())
            stream.say_bytes(frames.settings({frames.INITIAL_WINDOW_SIZE: 500}))
            stream.say(report())
            await observer.hears("up")
            tickets = []
            for _ in range(50):
                tickets.append(link.submit(call(b"x" * 100), RecordingSink()))
                await asyncio.sleep(0.01)
            assert sum(len(frame.submits) for frame in stream.written) < 5
            link.cancel(tickets[-1])
            for _ in range(40):
                stream.say_bytes(frames.window_update(1, 500))
            assert [sent.id for frame in stream.written for sent in frame.submits] == tickets[:-1]
            assert [ticket for frame in stream.written for ticket in frame.cancels] == tickets[-1:]
            assert len(stream.written) < 8
            running.cancel()

    run(main())


def test_a_bug_in_dialing_or_writing_costs_the_link_and_not_the_gateway() -> None:
    async def main() -> None:
        workers = FakeWorkers(FakeWorker(), FakeWorker())
        first, second = workers._waiting

        async def dial(address: str, owner: CallOwner, *, timeout_s: float, max_message_bytes: int) -> GrpcCall:
            if not dialled:
                dialled.append(address)
                raise ZeroDivisionError("no dialer")
            return await workers(address, owner, timeout_s=timeout_s, max_message_bytes=max_message_bytes)

        dialled: list[str] = []
        observer = RecordingLinkObserver()
        link = client(observer, dial)
        sink = RecordingSink()
        with capture_logs() as logs:
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(link.run())
                first.say(report())
                await observer.hears("up")
                link.submit(msgspec.structs.replace(call(), path=None), sink)  # which no frame can hold
                assert (await sink.ended()).code is EndCode.LINK_LOST
                second.say(report())
                await observer.hears("up", 2)
                running.cancel()
        assert observer.heard.value == ("failed", "up", "down", "up")
        assert observer.reasons[0] == "no dialer"
        assert [log["event"] for log in logs if log["log_level"] == "error"] == ["link failed", "link failed"]

    run(main())


def test_bytes_that_are_no_frame_cost_the_link() -> None:
    async def main() -> None:
        garbled, fine = FakeWorker(), FakeWorker()
        garbled.say_bytes(data(message(b"\xff\xff\xff") + message(report().SerializeToString())))
        fine.say(report())
        observer = RecordingLinkObserver()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(client(observer, FakeWorkers(garbled, fine)).run())
            await observer.hears("up")
            running.cancel()
        assert observer.heard.value == ("failed", "up")

    run(main())


def test_reasons_are_those_of_the_worker() -> None:
    async def main() -> None:
        streams = [FakeWorker() for _ in range(3)]
        streams[0].say_bytes(trailers(12, "no such method"))
        streams[1]._said = [b"HTTP/1.1 400 Bad Request\r\n\r\n"]
        observer = RecordingLinkObserver()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(client(observer, FakeWorkers(*streams)).run())
            await observer.hears("failed", 3)
            running.cancel()
        assert observer.reasons[0] == "unimplemented: no such method"
        assert observer.reasons[1].startswith("internal: it does not speak HTTP/2: ")
        assert observer.reasons[2] == "nothing heard for 3 s"

    run(main())

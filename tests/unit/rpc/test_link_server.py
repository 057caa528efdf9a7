"""A worker's session on a wire in memory and virtual time: when frames leave, and what ends it."""

from __future__ import annotations

import asyncio

import pytest

from link_support import ScriptedBackend, hang
from neurogate.api.v1 import worker_pb2 as pb
from neurogate.channel import End
from neurogate.endpoint import WorkerReport
from neurogate.rpc.backend import IncomingCall, Outlet
from neurogate.rpc.link_server import LinkServerSettings, LinkSession
from neurogate.virtual_time import run

LINGER_S = 0.001


class Wire:
    """Keeps frames and when they came; takes `capacity` of them before it is not ready."""

    def __init__(self, capacity: int = 1 << 30) -> None:
        self.capacity = capacity
        self.frames: list[pb.WorkerFrame] = []
        self.at: list[float] = []

    @property
    def ready(self) -> bool:
        return len(self.frames) < self.capacity

    def send(self, frame: pb.WorkerFrame) -> None:
        assert self.ready
        self.frames.append(frame)
        self.at.append(asyncio.get_running_loop().time())


def session(wire: Wire, backend: ScriptedBackend, *, outbox_bytes: int = 1 << 20, stats_s: float = 60) -> LinkSession:
    return LinkSession(
        backend,
        LinkServerSettings(outbox_bytes, LINGER_S, stats_s, 1 << 20),
        wire,
        loop=asyncio.get_running_loop(),
        on_hello=lambda _: None,
    )


def submit(ticket: int, body: bytes = b"") -> pb.GatewayFrame:
    return pb.GatewayFrame(submits=[pb.Submit(id=ticket, path="/x", body=body, request_id=f"r-{ticket}")])


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def over(open_session: LinkSession) -> None:
    open_session.end()
    open_session.end()
    await open_session.ended()
    assert open_session.active == 0


def test_an_idle_session_writes_in_the_same_turn_and_a_busy_one_lingers() -> None:
    async def main() -> None:
        wire, begun = Wire(), asyncio.get_running_loop().time()
        link = session(wire, ScriptedBackend())
        await turns()
        assert (len(wire.frames), wire.at) == (1, [begun])
        assert wire.frames[0].HasField("stats")
        for ping in (1, 2):
            link.take(pb.GatewayFrame(ping=ping))
            await turns()
            assert len(wire.frames) == 1
        await asyncio.sleep(LINGER_S * 2)
        assert [frame.pong for frame in wire.frames] == [0, 2]
        assert wire.at[1] == pytest.approx(begun + LINGER_S)
        await asyncio.sleep(1)
        now = asyncio.get_running_loop().time()
        link.take(pb.GatewayFrame(ping=3))
        await turns()
        assert wire.at[2] == now
        await over(link)

    run(main())


def test_the_first_of_an_answer_does_not_wait_and_takes_along_what_does() -> None:
    async def main() -> None:
        tokens: asyncio.Queue[bytes] = asyncio.Queue()

        async def answer(call: IncomingCall, outlet: Outlet) -> End:
            if call.body:  # in one piece
                outlet.chunk(call.body)
                return End(http_status=200)
            while token := await tokens.get():
                outlet.chunk(token)
            return End(http_status=200)

        wire = Wire()
        link = session(wire, ScriptedBackend(answer))
        await turns()
        link.take(submit(1))
        tokens.put_nowait(b"first")
        await turns()
        assert [list(frame.chunks) for frame in wire.frames] == [[], [b"first"]]
        tokens.put_nowait(b"second")
        await turns()
        assert len(wire.frames) == 2  # it lingers
        link.take(submit(2, b"whole"))
        await turns()
        chunks = [list(frame.chunks) for frame in wire.frames[2:]]
        assert chunks == [[b"second", b"whole"]]
        assert [end.id for frame in wire.frames for end in frame.ends] == [2]
        tokens.put_nowait(b"")
        await turns()
        assert len(wire.frames) == 3  # a stream's end lingers as its tokens do
        await asyncio.sleep(LINGER_S)
        assert [end.id for end in wire.frames[3].ends] == [1]
        await over(link)

    run(main())


def test_reports_come_by_the_clock_until_the_end() -> None:
    async def main() -> None:
        wire = Wire()
        link = session(wire, ScriptedBackend(), stats_s=1)
        await asyncio.sleep(3.5)
        assert [frame.stats.seq for frame in wire.frames] == [1, 2, 3, 4]
        await over(link)
        link.refresh()
        await asyncio.sleep(5)
        assert len(wire.frames) == 4

    run(main())


def test_a_wire_that_is_not_ready_holds_producers_and_whoever_waits_for_the_flush() -> None:
    async def main() -> None:
        said = 0

        async def speak(_: IncomingCall, outlet: Outlet) -> End:
            nonlocal said
            for _number in range(6):
                outlet.chunk(bytes(60_000))
                said += 1
                if outlet.full:
                    await outlet.room()
            return End(http_status=200)

        wire = Wire(capacity=1)
        link = session(wire, ScriptedBackend(speak), outbox_bytes=100_000)
        await turns()
        link.take(submit(1))
        await asyncio.sleep(1)
        assert (said, len(wire.frames)) == (2, 1)
        flushed = asyncio.get_running_loop().create_task(link.flushed())
        await asyncio.sleep(1)
        assert not flushed.done()
        wire.capacity = 2
        link.resume()
        await asyncio.sleep(1)
        assert (said, len(wire.frames)) == (4, 2)
        assert not flushed.done()
        wire.capacity = 100
        link.resume()
        await asyncio.sleep(1)
        await flushed
        assert said == 6
        assert sum(len(chunk) for frame in wire.frames for chunk in frame.chunks) == 360_000
        assert [end.id for frame in wire.frames for end in frame.ends] == [1]
        await over(link)

    run(main())


def test_the_end_cancels_its_calls_and_says_nothing_more() -> None:
    async def main() -> None:
        wire, backend = Wire(), ScriptedBackend(hang)
        link = session(wire, backend)
        link.take(submit(1))
        link.take(pb.GatewayFrame(submits=[pb.Submit(id=2, path="/x", more=True)]))
        await turns()
        written = len(wire.frames)
        assert link.active == 2
        link.take(pb.GatewayFrame(ping=1))
        flushed = asyncio.get_running_loop().create_task(link.flushed())
        await turns()
        assert not flushed.done()
        await over(link)
        await flushed
        link.take(submit(3))
        await asyncio.sleep(1)
        assert backend.cancelled.value == ("r-1",)
        assert (len(wire.frames), len(backend.calls)) == (written, 1)

    run(main())


def test_what_a_call_raises_ends_the_session() -> None:
    async def main() -> None:
        async def fail(call: IncomingCall, _: Outlet) -> End:
            if call.request_id == "r-1":
                await asyncio.Event().wait()
            raise RuntimeError("a bug")

        backend = ScriptedBackend(fail)
        link = session(Wire(), backend)
        link.take(submit(1))
        await turns()
        link.take(submit(2))
        with pytest.raises(RuntimeError, match="a bug"):
            await link.ended()
        assert backend.cancelled.value == ("r-1",)

    run(main())


def test_a_frame_that_cannot_be_sent_ends_the_session() -> None:
    """What was in it is gone, so nothing may follow it."""

    class Breaking(Wire):
        def send(self, frame: pb.WorkerFrame) -> None:
            if b"second" in frame.chunks:
                raise RuntimeError("a bug")
            super().send(frame)

    async def main() -> None:
        async def speak(_: IncomingCall, outlet: Outlet) -> End:
            for said in (b"first", b"second", b"third"):
                outlet.chunk(said)
                await asyncio.sleep(1)
            return End(http_status=200)

        wire, backend = Breaking(), ScriptedBackend(speak)
        link = session(wire, backend)
        link.take(submit(1))
        waiting = asyncio.get_running_loop().create_task(link.flushed())
        with pytest.raises(RuntimeError, match="a bug"):
            await link.ended()
        await waiting
        await asyncio.sleep(120)
        assert backend.cancelled.value == ("r-1",)
        assert [bytes(chunk) for frame in wire.frames for chunk in frame.chunks] == [b"first"]
        assert not [end for frame in wire.frames for end in frame.ends]
        assert link.active == 0

    run(main())


@pytest.mark.parametrize("reports", [0, 1])
def test_a_report_that_cannot_be_made_ends_the_session(reports: int) -> None:
    class Broken(ScriptedBackend):
        def report(self) -> WorkerReport:
            if self._seq == reports:
                raise RuntimeError("a bug")
            return super().report()

    async def main() -> None:
        wire, backend = Wire(), Broken(hang)
        link = session(wire, backend, stats_s=1)
        link.take(submit(1))
        with pytest.raises(RuntimeError, match="a bug"):
            await link.ended()
        await asyncio.sleep(10)
        assert len(wire.frames) == reports
        assert link.active == 0

    run(main())

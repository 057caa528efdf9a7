"""Both ends of a link for tests: a worker's server with a backend written in the test, and a gateway's client."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from neurogate.channel import Call, End, EndCode
from neurogate.endpoint import ServedModel, WorkerReport
from neurogate.inference import Finished, GenerationEvent, Prompt, Token, Usage
from neurogate.rpc.backend import IncomingCall, Outlet
from neurogate.rpc.link_client import LinkClient, LinkSettings
from neurogate.rpc.link_server import LinkServerSettings
from neurogate.rpc.worker_service import GenerationLimits, WorkerServer
from neurogate.testing.watched import Watched
from real_loop import eventually

READY = WorkerReport(
    worker_id="w-1", version="1.2.3", ready=True, models=(ServedModel("tiny"),), slots_total=4, slots_busy=1, running=1
)

LIMITS = GenerationLimits()

Answering = Callable[[IncomingCall, Outlet], Awaitable[End]]


async def echo(call: IncomingCall, outlet: Outlet) -> End:
    """Give the body back."""
    outlet.chunk(call.body)
    return End(http_status=200, usage=Usage(1, 2, 0), finish_reason="stop")


async def hang(_: IncomingCall, __: Outlet) -> End:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError("an event nobody sets was set")


class ScriptedBackend:
    """A `WorkerBackend` that answers with a coroutine of the test's."""

    def __init__(self, answering: Answering = echo, *, report: WorkerReport = READY) -> None:
        self.now = report
        self.calls: list[IncomingCall] = []
        self.active = Watched(0)
        self.cancelled = Watched[tuple[str, ...]](())
        """Request ids of the calls that were cancelled."""
        self.prompts: list[Prompt] = []
        self.events: list[GenerationEvent | Exception | None] = [
            Token("Hel"),
            Token("lo"),
            Finished(Usage(3, 2), "stop", "tiny", 12),
        ]
        """What `generate` says; an exception is raised, None waits until it is closed."""
        self._answering = answering
        self._seq = 0

    def report(self) -> WorkerReport:
        self._seq += 1
        return replace(self.now, seq=self._seq)

    async def answer(self, call: IncomingCall, outlet: Outlet) -> End:
        self.calls.append(call)
        self.active.set(self.active.value + 1)
        try:
            return await self._answering(call, outlet)
        except asyncio.CancelledError:
            self.cancelled.set((*self.cancelled.value, call.request_id))
            raise
        finally:
            self.active.set(self.active.value - 1)

    async def generate(self, prompt: Prompt, request_id: str) -> AsyncGenerator[GenerationEvent, None]:
        self.prompts.append(prompt)
        self.active.set(self.active.value + 1)
        try:
            for event in self.events:
                if event is None:
                    await asyncio.Event().wait()
                elif isinstance(event, Exception):
                    raise event
                else:
                    yield event
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set((*self.cancelled.value, request_id))
            raise
        finally:
            self.active.set(self.active.value - 1)


class RecordingSink:
    """Keeps one call's answer."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.chunked = Watched(0)
        """Chunks so far."""
        self.end = Watched[End | None](None)

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def on_chunk(self, data: bytes) -> None:
        assert self.end.value is None, "a chunk came after the end"
        self.chunks.append(data)
        self.chunked.set(len(self.chunks))

    def on_end(self, end: End) -> None:
        assert self.end.value is None, "an end came twice"
        self.end.set(end)

    async def ended(self) -> End:
        end = await self.end.until(lambda end: end is not None)
        assert end is not None
        return end


class RecordingLinkObserver:
    """Keeps what a link tells of its worker: `up`, `report`, `down`, `left` and `failed`, in order."""

    def __init__(self) -> None:
        self.heard = Watched[tuple[str, ...]](())
        self.reports: list[WorkerReport] = []
        self.reasons: list[str] = []

    def link_up(self, report: WorkerReport) -> None:
        self.reports.append(report)
        self._hear("up")

    def link_report(self, report: WorkerReport) -> None:
        self.reports.append(report)
        self._hear("report")

    def link_down(self, reason: str, *, planned: bool) -> None:
        self.reasons.append(reason)
        self._hear("left" if planned else "down")

    def connect_failed(self, reason: str) -> None:
        self.reasons.append(reason)
        self._hear("failed")

    async def hears(self, event: str, times: int = 1) -> None:
        await self.heard.until(lambda heard: heard.count(event) >= times)

    def _hear(self, event: str) -> None:
        self.heard.set((*self.heard.value, event))


def call(body: bytes = b"{}", *, stream: bool = True, request_id: str = "r-1", timeout_s: float = 60) -> Call:
    deadline = asyncio.get_running_loop().time() + timeout_s
    return Call("/v1/chat/completions", body, stream, deadline, request_id, "00-" + "a" * 32 + "-" + "b" * 16 + "-01")


@asynccontextmanager
async def serving(
    backend: ScriptedBackend,
    *,
    address: str = "127.0.0.1:0",
    outbox_bytes: int = 8 << 20,
    linger_s: float = 0.0005,
    stats_interval_s: float = 0.05,
    max_body_bytes: int = 10 << 20,
    limits: GenerationLimits = LIMITS,
) -> AsyncIterator[tuple[WorkerServer, str]]:
    """A worker's server and its address. Afterwards no session and no call is left."""
    settings = LinkServerSettings(outbox_bytes, linger_s, stats_interval_s, max_body_bytes)
    server = WorkerServer(backend, settings, max_message_bytes=max_body_bytes + 65536, limits=limits)
    port = await server.start(address)
    try:
        yield server, f"127.0.0.1:{port}"
    finally:
        await server.stop(0)
        await eventually(lambda: not server.servicer.sessions)
        assert server.servicer.active == 0
        await backend.active.until(lambda active: active == 0)


@asynccontextmanager
async def linked(address: str, *, silence_s: float = 10, linger_s: float = 0.0005) -> AsyncIterator[LinkClient]:
    """A gateway's client whose link is up."""
    async with linking(address, silence_s=silence_s, linger_s=linger_s) as (client, observer):
        await observer.hears("up")
        yield client


@asynccontextmanager
async def linking(
    address: str, *, silence_s: float = 10, linger_s: float = 0.0005
) -> AsyncIterator[tuple[LinkClient, RecordingLinkObserver]]:
    """A gateway's client that connects, and what its observer hears. Afterwards it holds no call."""
    observer = RecordingLinkObserver()
    client = LinkClient(
        address,
        observer,
        gateway_id="gateway-1",
        version="1.2.3",
        settings=LinkSettings(silence_s=silence_s, linger_s=linger_s, backoff_min_s=0.001, backoff_max_s=0.01),
        loop=asyncio.get_running_loop(),
        rng=random.Random(1),
    )
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(client.run(), name="link")
        try:
            yield client, observer
        finally:
            running.cancel()
    assert client.in_flight == 0


def lost(end: End) -> bool:
    return end.code is EndCode.LINK_LOST

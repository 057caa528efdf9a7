"""A worker over a scripted engine, and an outlet that keeps what it is given."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from neurogate.channel import Resume
from neurogate.engines.engine import Observation
from neurogate.inference import Prompt
from neurogate.rpc.backend import IncomingCall
from neurogate.telemetry.tracing import Tracer
from neurogate.testing.engines import READY, ScriptedEngine
from neurogate.worker.backend import Worker, WorkerLimits
from neurogate.worker.meter import Meter
from neurogate.worker.metrics import WorkerMetrics
from neurogate.worker.progress import Progress

CHAT = "/v1/chat/completions"
NOW = 1_700_000_000.5
"""Unix seconds, as the worker reads them from its wall clock."""


class FakeOutlet:
    """An `Outlet` that keeps what it is given; `limit` chunks fill it until `read` takes them."""

    def __init__(self, limit: int = 1_000_000) -> None:
        self.chunks: list[bytes] = []
        self.waited = 0
        self._limit = limit
        self._unread = 0
        self._has_room = asyncio.Event()
        self._has_room.set()

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def full(self) -> bool:
        return not self._has_room.is_set()

    def chunk(self, data: bytes) -> bool:
        self.chunks.append(data)
        self._unread += 1
        if self._unread >= self._limit:
            self._has_room.clear()
        return not self.full

    async def room(self) -> None:
        self.waited += 1
        await self._has_room.wait()

    def read(self) -> None:
        """Take everything."""
        self._unread = 0
        self._has_room.set()


class Setup:
    """A worker that is ready, its engine and its metrics."""

    def __init__(
        self,
        engine: ScriptedEngine,
        *,
        max_requests: int = 100,
        observation: Observation | None = READY,
        tracer: Tracer | None = None,
    ) -> None:
        self.engine = engine
        self.metrics = WorkerMetrics()
        self.changes = 0
        self.worker = Worker(
            engine,
            name="w-1",
            limits=WorkerLimits(max_requests=max_requests),
            metrics=self.metrics,
            loop=asyncio.get_running_loop(),
            now=lambda: NOW,
            on_change=self._changed,
            tracer=tracer,
        )
        if observation is not None:
            self.worker.take_observation(observation)

    def value(self, name: str, **labels: str) -> float:
        """A metric's value; 0 when it was never touched."""
        return self.metrics.registry.get_sample_value(f"neurogate_worker_{name}", labels) or 0.0

    def assert_idle(self) -> None:
        """Nothing is held, neither by the worker nor in the engine."""
        assert self.worker.active == 0
        assert self.engine.active.value == 0
        assert self.worker.report().tokens_outstanding == 0

    def _changed(self) -> None:
        self.changes += 1


def incoming(
    body: object = b"{}", *, path: str = CHAT, timeout_s: float | None = 60, resume: Resume | None = None
) -> IncomingCall:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return IncomingCall(path, raw, "r-1", "", timeout_s, resume)


def prompt_call(query: str = "Why?", **fields: Any) -> IncomingCall:
    return incoming({"query": query, **fields}, path="/prompt")


def prompt(text: str = "Why?", **fields: Any) -> Prompt:
    return Prompt(text, **fields)


def progress(metrics: WorkerMetrics | None = None, meter: Meter | None = None) -> Progress:
    of_model = (metrics or WorkerMetrics()).of_model("tiny")
    return Progress((meter or Meter()).begin(None), of_model, loop=asyncio.get_running_loop())

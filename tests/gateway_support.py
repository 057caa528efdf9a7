"""The gateway's hot endpoints in front of a data plane on virtual time, asked by clients without sockets."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from config_support import gateway_config
from dataplane_support import Rig, rig, turns
from neurogate.dataplane.room import Room
from neurogate.edge.address_limits import AddressLimits
from neurogate.edge.admission import Admission
from neurogate.edge.key_source import KeySource
from neurogate.edge.limiter import build_limiter
from neurogate.gateway import edge as gateway_edge
from neurogate.gateway.dialects.table import dialects
from neurogate.gateway.explain import Explainer
from neurogate.gateway.generation import GenerationEndpoint
from neurogate.gateway.in_flight import Flight, InFlight
from neurogate.gateway.intake import BodyBudget, RequestIds
from neurogate.gateway.limit_log import LimitLog
from neurogate.gateway.metrics import GatewayMetrics
from neurogate.gateway.model_names import ModelNames
from neurogate.gateway.records import Recorder
from neurogate.gateway.settings import GatewayConfig
from neurogate.operations import OPERATIONS
from neurogate.telemetry.access_log import Entry
from neurogate.testing.connections import FakeClient
from neurogate.testing.workers import FakeCall
from trace_support import Spans, tracer_into

CHAT = "/v1/chat/completions"
DIALECTS = {path: dialects()[path] for path in ("/prompt", CHAT, "/v1/completions")}
"""One of each kind of words; the others have their own tests."""
MESSAGES = [{"role": "user", "content": "Why?"}]


def edge_for(data_plane: Rig, config: GatewayConfig, metrics: GatewayMetrics) -> tuple[Admission, gateway_edge.Edge]:
    """A gateway's edge before a data plane, and the queues of it."""
    loop = asyncio.get_running_loop()
    room = Room(data_plane.dispatcher, max_concurrent=config.admission.max_concurrent, factor=config.admission.factor)
    admission = Admission(config.admission, has_room=room.has_room, loop=loop, on_left=metrics.waited)
    data_plane.pool.on_publish(admission.wake)
    return admission, gateway_edge.Edge(
        KeySource(config.keys, now=lambda: 0.0).ring,
        addresses=AddressLimits(config.limits, loop=loop),
        names=ModelNames(config.models),
        models=lambda: data_plane.pool.snapshot.models,
        limits=config.limits,
        limiter=build_limiter(
            config.limits,
            loop=loop,
            wall=lambda: 1e9 + loop.time(),
            rng=random.Random(1),
            observer=LimitLog(metrics),
        ),
        admission=admission,
    )


class Edge:
    """Hot endpoints, their data plane and their metrics."""

    def __init__(
        self,
        data_plane: Rig,
        config: GatewayConfig,
        tasks: asyncio.TaskGroup,
        on_failure: Callable[[Flight], None] = lambda _: None,
        spans: Spans | None = None,
    ) -> None:
        self.data_plane = data_plane
        self.metrics = GatewayMetrics()
        self.bodies = BodyBudget(config.gateway.max_bodies_bytes)
        self._tasks = tasks
        loop = asyncio.get_running_loop()
        self.admission, edge_of_gateway = edge_for(data_plane, config, self.metrics)
        self.in_flight = InFlight(on_failure)
        self.explainer = Explainer(data_plane.dispatcher, loop=loop, wall=lambda: 1e9 + loop.time())
        self.entries: list[Entry] = []
        """What the access log would have."""
        recorder = Recorder(self.entries.append, edge_of_gateway, wall=lambda: 1e9, loop=loop)
        self.endpoints = {
            path: GenerationEndpoint(
                OPERATIONS[path],
                dialect,
                dispatcher=data_plane.dispatcher,
                edge=edge_of_gateway,
                record=recorder.served,
                request_ids=RequestIds(lambda: 42),
                bodies=self.bodies,
                metrics=self.metrics,
                settings=config.gateway,
                tracer=tracer_into(spans) if spans is not None else None,
                in_flight=self.in_flight,
                explainer=self.explainer,
                loop=loop,
            )
            for path, dialect in DIALECTS.items()
        }

    def ask(self, client: FakeClient) -> asyncio.Task[FakeClient]:
        """Serve one client in a task."""
        return self._tasks.create_task(client.ask(self.endpoints[client.scope["path"]]))

    async def asked(self, client: FakeClient) -> FakeCall:
        """Serve one client, and give what the worker got of it."""
        calls = self.data_plane.worker().calls
        before = len(calls)
        self.ask(client)
        await turns()
        assert len(calls) == before + 1
        return calls[-1]

    def value(self, name: str, **labels: str) -> float:
        """A metric's value; 0 when it was never touched."""
        return self.metrics.registry.get_sample_value(f"neurogate_gateway_{name}", labels) or 0.0

    def count(self, status: int, path: str = CHAT) -> float:
        """Requests that ended with this status."""
        return self.value("requests_total", method="POST", path=path, status=str(status))


@asynccontextmanager
async def edge(
    workers: int = 1,
    *,
    up: bool = True,
    on_failure: Callable[[Flight], None] = lambda _: None,
    spans: Spans | None = None,
    rigged: Mapping[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Edge]:
    """Hot endpoints; afterwards no request is held anywhere, and no task, timer or memory.

    With `spans` requests are traced into them; `rigged` are further words for the data plane.
    """
    async with rig(workers, up=up, **(rigged or {})) as data_plane, asyncio.TaskGroup() as tasks:
        made = Edge(data_plane, gateway_config(**settings), tasks, on_failure, spans)
        yield made
        await turns()
    assert made.bodies.held == 0
    assert len(made.in_flight) == 0
    assert (made.admission.waiting, made.admission.taken) == (0, 0)


def chat(*, stream: bool = True, headers: Iterable[tuple[str, str]] = (), **fields: Any) -> FakeClient:
    body = msgspec.json.encode({"messages": MESSAGES, "stream": stream, **fields})
    return FakeClient(CHAT, body, headers=[*headers, ("content-length", str(len(body)))])


def prompt(*, stream: bool = False, **fields: Any) -> FakeClient:
    body = msgspec.json.encode({"query": "Why?", "stream": stream, **fields})
    return FakeClient("/prompt", body, headers=[("content-length", str(len(body)))])

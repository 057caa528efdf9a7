"""A gateway and its workers in one process, over real gRPC and HTTP, with simulated engines that are listened to."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from msgspec.structs import replace

from config_support import gateway_config
from neurogate.channel import Resume
from neurogate.config import Source
from neurogate.engines.engine import Engine, EngineCall, EngineReply, Figures, Observation
from neurogate.engines.settings import SimSettings
from neurogate.engines.sim.engine import SimEngine
from neurogate.gateway.assembly import Gateway
from neurogate.gateway.listeners import api_limits
from neurogate.gateway.settings import GatewayConfig
from neurogate.httpd import HttpServer
from neurogate.inference import GenerationEvent, Prompt
from neurogate.worker.app import serve
from neurogate.worker.settings import WorkerSettings
from real_loop import eventually

KEY = "a-secret-key"
AUTH = {"Authorization": f"Bearer {KEY}"}


class OverheardEngine:
    """A simulated engine, unless it is another one, and every byte it said."""

    def __init__(self, settings: SimSettings, *, model: str, engine: Engine | None = None) -> None:
        self.calls: list[EngineCall] = []
        self.said: list[bytes] = []
        """The bytes of each call's reply so far."""
        self.resumed: list[Resume] = []
        """Where each answer stopped that it was to continue."""
        self._engine = engine or SimEngine(settings, model=model, rng=random.Random(1), now=lambda: 1_700_000_000.5)

    @property
    def kind(self) -> str:
        return self._engine.kind

    async def start(self) -> None:
        await self._engine.start()

    async def run(self) -> None:
        await self._engine.run()

    async def stop(self) -> None:
        await self._engine.stop()

    async def observe(self) -> Observation:
        return await self._engine.observe()

    async def figures(self) -> Figures:
        return await self._engine.figures()

    async def is_idle(self) -> bool:
        seen = await self.observe()
        return not (seen.slots_busy or seen.queued)

    @asynccontextmanager
    async def forward(self, call: EngineCall) -> AsyncIterator[EngineReply]:
        index = len(self.calls)
        self.calls.append(call)
        self.said.append(b"")
        async with self._engine.forward(call) as reply:
            yield replace(reply, body=self._overhear(reply.body, index))

    def resume(self, call: EngineCall, said: Resume) -> AsyncGenerator[GenerationEvent, None]:
        self.resumed.append(said)
        return self._engine.resume(call, said)

    async def heal(self, reason: str) -> bool:
        return await self._engine.heal(reason)

    def generate(self, prompt: Prompt) -> AsyncGenerator[GenerationEvent, None]:
        return self._engine.generate(prompt)

    async def _overhear(self, body: AsyncIterator[bytes], index: int) -> AsyncIterator[bytes]:
        async for piece in body:
            self.said[index] += piece
            yield piece


@dataclass
class Fleet:
    """What a test needs of it."""

    gateway: Gateway
    engines: list[OverheardEngine]
    url: str
    client: httpx.AsyncClient
    """With the right key."""
    http: HttpServer
    workers: list[asyncio.Task[None]]
    """Cancelled, one dies: its links break, and its engine stops."""
    ops_urls: list[str]
    """Of the workers' ops ports."""

    @property
    def calls(self) -> list[EngineCall]:
        return [call for engine in self.engines for call in engine.calls]

    @property
    def said(self) -> list[bytes]:
        return [said for engine in self.engines for said in engine.said]

    async def settled(self) -> None:
        """Nothing is in flight any more, neither in the gateway nor in an engine."""
        await eventually(lambda: self.gateway.dispatcher.in_flight == 0)
        for engine in self.engines:
            while not await engine.is_idle():
                await asyncio.sleep(0)

    def assert_nothing_held(self) -> None:
        assert repr(self.gateway.pool).endswith("Requests: 0 in flight, 0 waiting]>")
        assert self.gateway.dispatcher.in_flight == 0


@asynccontextmanager
async def fleet(
    workers: int = 1,
    *,
    models: tuple[str, ...] = ("tiny",),
    sim: SimSettings | None = None,
    config_file: Path | None = None,
    engines_of: Sequence[Engine] = (),
    **settings: Any,
) -> AsyncIterator[Fleet]:
    """A gateway with so many workers, all of them ready. Afterwards nothing is held anywhere.

    `config_file` lies above the settings, and is read again when the gateway reloads. `engines_of` are the workers'
    engines, where they are not to be simulated ones in their own process.
    """
    sim = sim or SimSettings(prefill_tps=0, decode_tps=0, slots=64)
    engines = [
        OverheardEngine(sim, model=model, engine=engine)
        for model, engine in zip(
            itertools.islice(itertools.cycle(models), workers), engines_of or itertools.repeat(None), strict=False
        )
    ]
    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        ports: list[asyncio.Future[tuple[int, int]]] = []
        served: list[asyncio.Task[None]] = []
        for engine in engines:
            port: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
            served.append(tasks.create_task(_serve_worker(engine, stopping, port)))
            ports.append(port)
        config = gateway_config(
            host="127.0.0.1",
            worker_addresses=tuple([f"127.0.0.1:{(await port)[0]}" for port in ports]),
            api_keys=(KEY,),
            **settings,
        )
        source = Source(GatewayConfig, base=config, path=str(config_file or ""))
        gateway = Gateway(config, rng=random.Random(1), now_ns=lambda: 42, effective=source.read())
        pool = tasks.create_task(gateway.pool.run(gateway.resolver))
        http = HttpServer(
            gateway.app,
            name="HTTP_PORT",
            host="127.0.0.1",
            port=0,
            limits=api_limits(config, connections=config.http.max_connections),
            on_refused=gateway.metrics.refused,
        )
        url = f"http://127.0.0.1:{await http.start(tasks)}"
        await eventually(lambda: len(gateway.pool.snapshot.admitting("")) == workers)
        async with httpx.AsyncClient(base_url=url, headers=AUTH, timeout=20) as client:
            ops_urls = [f"http://127.0.0.1:{port.result()[1]}" for port in ports]
            made = Fleet(gateway, engines, url, client, http, served, ops_urls)
            yield made
        await made.settled()
        made.assert_nothing_held()
        await http.stop(1)
        pool.cancel()
        stopping.set()


async def _serve_worker(
    engine: OverheardEngine, stopping: asyncio.Event, port: asyncio.Future[tuple[int, int]]
) -> None:
    settings = WorkerSettings(host="127.0.0.1", grpc_port=0, metrics_port=0, stats_interval_s=0.05)
    await serve(settings, engine, stopping, on_ports=lambda *both: port.set_result(both))

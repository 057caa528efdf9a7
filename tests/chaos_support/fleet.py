"""Real processes to break: gateway, workers, engines of their own, and the network between any two of them.

Workers keep their ports over restarts, as machines do. Nothing is left behind when the context ends.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos_support.client import Target, get
from chaos_support.engine_proxy import EngineProxy
from chaos_support.fault_proxy import FaultProxy
from cluster import Process, eventually

KEY = "chaos-key"

_SKEWED = """
import mmap, runpy, struct, sys, time
file = open(sys.argv.pop(1), "r+b")
skew = mmap.mmap(file.fileno(), 8)
real, real_ns = time.time, time.time_ns
time.time = lambda: real() + struct.unpack("d", skew[:8])[0]
time.time_ns = lambda: real_ns() + int(struct.unpack("d", skew[:8])[0] * 1e9)
runpy.run_module("neurogate", run_name="__main__", alter_sys=True)
"""


class SkewedProcess(Process):
    """A process whose wall clock can be set: Python's, for the kernel's is everybody's. The file has the seconds."""

    COMMAND = (sys.executable, "-c", _SKEWED)


@dataclass(frozen=True)
class Plan:
    """What a fleet is made of."""

    workers: int = 3
    engines: str = "inside"
    """inside the workers, `beside` them as processes of their own, or `lying`: beside, behind an EngineProxy."""
    links: bool = False
    """A FaultProxy between the gateway and each worker."""
    clients: bool = False
    """A FaultProxy between the clients and the gateway."""
    decode_tps: int = 50
    slots: int = 200
    gateway: Mapping[str, str] = field(default_factory=dict)
    worker: Mapping[str, str] = field(default_factory=dict)
    clock: Path | None = None
    """A file of eight bytes: the seconds by which the gateway's wall clock is off."""
    seed: int = 0
    tls: ssl.SSLContext | None = None

    @property
    def eased(self) -> list[tuple[str, str]]:
        """Its settings of what happens when something breaks: the promises are those of the defaults."""
        return [
            (name, value) for name, value in sorted({**self.gateway, **self.worker}.items()) if name.startswith(_EASING)
        ]


_EASING = (
    "NEUROGATE_BREAKER",
    "NEUROGATE_CANARY",
    "NEUROGATE_DRAIN",
    "NEUROGATE_FAILFAST",
    "NEUROGATE_HEDGE",
    "NEUROGATE_LINK",
    "NEUROGATE_OUTLIER",
    "NEUROGATE_RESUME",
    "NEUROGATE_RETR",
    "NEUROGATE_STALL",
)


class Fleet:
    """A gateway and its workers, running while the context is open."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.workers: list[Process] = []
        self.engines: list[Process] = []
        self.engine_proxies: list[EngineProxy] = []
        self.links: list[FaultProxy] = []
        self.client_proxy: FaultProxy | None = None
        self.ended: list[Process] = []
        """Processes that were replaced; their logs count, too."""
        self._ports: list[dict[str, Any]] = []
        self._engine_ports: list[int] = []
        self._worker_environments: list[dict[str, str]] = []
        self._stack = ExitStack()
        self.gateway: Process
        self.http_port = 0
        self.grpc_port = -1
        self.ops_port = 0

    def __enter__(self) -> Fleet:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.popen.kill()
        for process in self.processes:
            process.popen.wait()
        self._stack.close()

    @property
    def processes(self) -> list[Process]:
        gateways = [self.gateway] if hasattr(self, "gateway") else []
        return [*gateways, *self.workers, *self.engines]

    @property
    def target(self) -> Target:
        port = self.client_proxy.port if self.client_proxy is not None else self.http_port
        return Target(port, KEY, tls=self.plan.tls)

    def kill_worker(self, index: int) -> None:
        self.workers[index].kill()

    def restart_worker(self, index: int, *, wait: bool = True) -> None:
        """Start a worker again on the ports it had."""
        self.ended.append(self.workers[index])
        self.workers[index] = self._worker(index)
        if wait:
            self.workers[index].wait_for("worker listens")

    def restart_engine(self, index: int) -> None:
        self.ended.append(self.engines[index])
        self.engines[index] = self._engine(self._engine_ports[index])

    def start_gateway(self) -> None:
        """Start the gateway, on the ports it had if there was one."""
        plan = self.plan
        ports = [link.port for link in self.links] or [told["grpc_port"] for told in self._ports]
        process = Process if plan.clock is None else SkewedProcess
        if hasattr(self, "gateway"):
            self.ended.append(self.gateway)
        self.gateway = process(
            *([str(plan.clock)] if plan.clock is not None else []),
            "gateway",
            WORKER_ADDRESSES=",".join(f"127.0.0.1:{port}" for port in ports),
            PORT_HEALTH="-1",
            NEUROGATE_HOST="127.0.0.1",
            API_KEYS=KEY,
            **{
                "HTTP_PORT": str(self.http_port),
                "METRICS_PORT": str(self.ops_port),
                "NEUROGATE_GRPC_PORT": "0" if self.grpc_port < 0 else str(self.grpc_port),
                **plan.gateway,
            },
        )
        listens = self.gateway.wait_for("gateway listens")
        self.http_port, self.ops_port = listens["http_port"], listens["ops_port"]
        self.grpc_port = listens.get("grpc_port") or -1

    async def states(self) -> list[dict[str, Any]]:
        """GET /workers. Raises OSError, TimeoutError or ValueError when the gateway does not answer."""
        port_only = Target(self.http_port, KEY, tls=self.plan.tls, timeout_s=5)
        _, told = await get(port_only, "/workers")
        return told["workers"]

    async def vitals(self, process: Process) -> dict[str, Any] | None:
        """What a gateway or worker tells of itself; None for engines, and for what does not answer."""
        for index, worker in enumerate(self.workers):
            if worker is process:
                return await self._vitals(self._ports[index]["ops_port"])
        return await self._vitals(self.ops_port) if process is self.gateway else None

    async def until_ready(
        self, timeout: float = 40, *, workers: slice = slice(None), at_least: int | None = None
    ) -> None:
        """Until the gateway sends requests to all of these, or so many."""

        async def ready() -> bool:
            try:
                are = [state["ready"] for state in (await self.states())[workers]]
                return sum(are) >= (len(are) if at_least is None else at_least)
            except (OSError, ValueError, asyncio.IncompleteReadError):
                return False

        await eventually(ready, timeout)

    async def _vitals(self, port: int) -> dict[str, Any] | None:
        try:
            return (await get(Target(port, timeout_s=5), "/vitals"))[1]
        except (OSError, ValueError, asyncio.IncompleteReadError):
            return None

    def _start(self) -> None:
        plan = self.plan
        if plan.engines != "inside":
            self.engines = [self._engine(0) for _ in range(plan.workers)]
            self._engine_ports = [_listening_port(engine) for engine in self.engines]
        rng = random.Random(plan.seed)
        if plan.engines == "lying":
            self.engine_proxies = [EngineProxy(port, rng=random.Random(rng.random())) for port in self._engine_ports]
            for engine_proxy in self.engine_proxies:
                self._run(engine_proxy)
        asked = [proxy.port for proxy in self.engine_proxies] or self._engine_ports
        for index in range(plan.workers):
            environment = {"GRPC_PORT": "0", "METRICS_PORT": "0", **self._sim(), **plan.worker}
            if asked:
                url = f"http://127.0.0.1:{asked[index]}"
                environment |= {"NEUROGATE_ENGINE": "llama-server", "NEUROGATE_ENGINE_URL": url}
            self._worker_environments.append(environment)
        self.workers = [self._worker(index) for index in range(plan.workers)]
        for index, worker in enumerate(self.workers):
            told = worker.wait_for("worker listens", 60)
            self._ports.append(told)
            self._worker_environments[index] |= {
                "GRPC_PORT": str(told["grpc_port"]),
                "METRICS_PORT": str(told["ops_port"]),
            }
        if plan.links:
            for told in self._ports:
                link = FaultProxy(told["grpc_port"], rng=random.Random(rng.random()))
                self._run(link)
                self.links.append(link)
        self.start_gateway()
        if plan.clients:
            self.client_proxy = FaultProxy(self.http_port, rng=random.Random(rng.random()))
            self._run(self.client_proxy)

    def _run(self, proxy: FaultProxy | EngineProxy) -> None:
        proxy.start()
        self._stack.callback(proxy.stop)

    def _sim(self) -> dict[str, str]:
        return {
            "NEUROGATE_ENGINE": "sim",
            "NEUROGATE_SIM_PREFILL_TPS": "0",
            "NEUROGATE_SIM_DECODE_TPS": str(self.plan.decode_tps),
            "NEUROGATE_SIM_SLOTS": str(self.plan.slots),
        }

    def _worker(self, index: int) -> Process:
        return Process("worker", NEUROGATE_WORKER_HOST="127.0.0.1", **self._worker_environments[index])

    def _engine(self, port: int) -> Process:
        settings = self._sim()
        del settings["NEUROGATE_ENGINE"]
        return Process("sim-engine", "--host", "127.0.0.1", "--port", str(port), **settings)


def _listening_port(engine: Process) -> int:
    return int(engine.wait_for_line("listening on").rsplit(":", 1)[1])

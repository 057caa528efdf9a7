"""A gateway and three simulated workers under a load in which everything happens that a dashboard or a rule tells of.

Worker 0 fails some requests and drags others, worker 1 is well, worker 2 is killed and started again. The keys: one
that may do anything, one with a budget, one that hits its limit, one whose requests wait behind the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import httpx

NEUROGATE = (sys.executable, "-m", "neurogate")
ALICE, TEAM, GUEST, NIGHTLY = (f"key-of-{name}-4711" for name in ("alice", "team", "guest", "nightly"))
KEYS = f"""alice:{ALICE}
team:{TEAM} monthly=40000
guest:{GUEST}:2
nightly:{NIGHTLY} priority=batch
"""
GATEWAY = {
    "NEUROGATE_HOST": "127.0.0.1",
    "HTTP_PORT": "0",
    "METRICS_PORT": "0",
    "NEUROGATE_GRPC_PORT": "-1",
    "PORT_HEALTH": "-1",
    "NEUROGATE_MAX_CONCURRENT": "10",
    "NEUROGATE_MAX_QUEUE": "6",
    "NEUROGATE_MAX_BATCH_QUEUE": "2",
    "NEUROGATE_HEDGE_AFTER_S": "0.3",
    "NEUROGATE_BREAKER_RESET_S": "2",
    "NEUROGATE_TRACES": "otlp",
    "NEUROGATE_OUTLIERS": "false",
}
WORKER = {
    "NEUROGATE_ENGINE": "sim",
    "NEUROGATE_WORKER_HOST": "127.0.0.1",
    "NEUROGATE_SIM_PREFILL_TPS": "1200",
    "NEUROGATE_SIM_DECODE_TPS": "50",
    "NEUROGATE_SIM_SLOTS": "4",
    "NEUROGATE_STALL_DECODE_S": "1",
    "NEUROGATE_CANARY_INTERVAL_S": "1",
}
FAULTS = ("error=0.3,busy=0.05,slow_after=25,token_every=5", "", "")
_WORDS = ("read", "these", "words", "before", "you", "say", "anything", "at", "all")


class Process:
    """One process with its log in a file."""

    def __init__(self, command: tuple[str, ...], log: Path, environment: Mapping[str, str]) -> None:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("NEUROGATE_", "API_", "AUTH_", "OLLAMA", "OTEL_"))
        }
        self.log = log
        with log.open("ab") as file:
            self._popen = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env={**kept, "LOG_FORMAT": "json", **environment}
            )

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self._popen.kill()
        self._popen.wait()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after five seconds."""
        self._popen.terminate()
        try:
            self._popen.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()

    def said(self, event: str, timeout_s: float = 60) -> dict[str, Any]:
        """The first record of its log with that event. Raises RuntimeError when it ends, or does not say it in time."""
        ends = time.monotonic() + timeout_s
        while time.monotonic() < ends:
            for line in self.log.read_text(errors="replace").splitlines():
                if f'"{event}"' in line and (record := json.loads(line)).get("event") == event:
                    return dict(record)
            if self._popen.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"no {event!r} in {self.log.name}: {self.log.read_text(errors='replace')[-1500:]}")


class Fleet:
    """The processes; a context manager that leaves none behind."""

    def __init__(
        self,
        folder: Path,
        otlp: str,
        *,
        faults: tuple[str, str, str] = FAULTS,
        gateway: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.asked: Counter[str] = Counter()
        """Answers by status, streams by how they ended."""
        self._faults = faults
        self._settings = gateway
        self._folder = folder
        self._otlp = {"OTEL_EXPORTER_OTLP_ENDPOINT": otlp, "NEUROGATE_TRACES": "otlp"}
        self._workers: list[Process] = []
        self._ports: list[dict[str, Any]] = []
        self._gateway: Process | None = None
        self.url = ""
        self.gateway_ops = ""

    @property
    def worker_ops(self) -> list[str]:
        """host:port of each worker's metrics."""
        return [f"127.0.0.1:{ports['ops_port']}" for ports in self._ports]

    def __enter__(self) -> Self:
        try:
            self._workers = [self._worker(index, {"GRPC_PORT": "0", "METRICS_PORT": "0"}) for index in range(3)]
            self._ports = [worker.said("worker listens") for worker in self._workers]
            keys = self._folder / "keys.txt"
            keys.write_text(KEYS)
            keys.chmod(0o600)
            addresses = ",".join(f"127.0.0.1:{ports['grpc_port']}" for ports in self._ports)
            environment = {
                **GATEWAY,
                **self._otlp,
                **self._settings,
                "WORKER_ADDRESSES": addresses,
                "AUTH_KEYS_FILE": str(keys),
            }
            self._gateway = Process((*NEUROGATE, "gateway"), self._folder / "gateway.log", environment)
            listens = self._gateway.said("gateway listens")
            self.url = f"http://127.0.0.1:{listens['http_port']}"
            self.gateway_ops = f"127.0.0.1:{listens['ops_port']}"
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in [*self._workers, *([self._gateway] if self._gateway else [])]:
            process.kill()

    def holds(self, index: int) -> int:
        """How many requests a worker has now, as the gateway tells."""
        told = httpx.get(f"{self.url}/workers", headers=_with(ALICE), timeout=10).json()["workers"]
        return int(told[index]["in_flight"])

    def kill_worker(self, index: int) -> None:
        """SIGKILL."""
        self._workers[index].kill()

    def start_worker(self, index: int) -> None:
        """Start it again where it was."""
        ports = self._ports[index]
        where = {"GRPC_PORT": str(ports["grpc_port"]), "METRICS_PORT": str(ports["ops_port"])}
        self._workers[index] = self._worker(index, where)

    async def load(self, stopping: asyncio.Event, *, clients: int = 16) -> None:
        """Ask until told to stop."""
        limits = httpx.Limits(max_connections=100)
        async with (
            httpx.AsyncClient(base_url=self.url, timeout=30, limits=limits) as client,
            asyncio.TaskGroup() as group,
        ):
            for number in range(clients):
                group.create_task(self._client(client, random.Random(number), stopping))
            group.create_task(self._odd(client, stopping))

    def _worker(self, index: int, where: dict[str, str]) -> Process:
        environment = {**WORKER, **self._otlp, **where, "NEUROGATE_SIM_FAULTS": self._faults[index]}
        return Process((*NEUROGATE, "worker"), self._folder / f"worker-{index}.log", environment)

    async def _client(self, client: httpx.AsyncClient, rng: random.Random, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            prompt = " ".join(rng.choices(_WORDS, k=rng.randint(5, 120)))
            body: dict[str, Any] = {"messages": [{"role": "user", "content": prompt}], "max_tokens": rng.randint(5, 60)}
            key = rng.choice((ALICE, ALICE, TEAM, NIGHTLY))
            # The load comes in waves, so that there is a queue at times.
            pause = rng.expovariate(4 if time.time() % 12 < 8 else 1)
            with contextlib.suppress(httpx.HTTPError):
                if rng.random() < 0.75:
                    await self._stream(client, body, key, leave=rng.random() < 0.05)
                elif rng.random() < 0.5:
                    self._count(await client.post("/v1/chat/completions", json=body, headers=_with(key)))
                else:
                    self._count(
                        await client.post("/prompt", json={"query": prompt, "max_tokens": 20}, headers=_with(key))
                    )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), pause)

    async def _stream(self, client: httpx.AsyncClient, body: dict[str, Any], key: str, *, leave: bool) -> None:
        asked = {**body, "stream": True}
        async with client.stream("POST", "/v1/chat/completions", json=asked, headers=_with(key)) as answer:
            if answer.status_code != 200:
                self._count(answer)
                return
            said = b""
            async for piece in answer.aiter_raw():
                said += piece
                if leave and said.count(b"\n\n") > 3:
                    self.asked["left"] += 1
                    return
        whole = said.endswith(b"data: [DONE]\n\n") and b'data: {"error"' not in said
        self.asked["stream whole" if whole else "stream failed"] += 1

    async def _odd(self, client: httpx.AsyncClient, stopping: asyncio.Event) -> None:
        """What clients do wrong: no key, no request, more than their limit."""
        host, port = self.url.removeprefix("http://").split(":")
        while not stopping.is_set():
            with contextlib.suppress(httpx.HTTPError, OSError):
                self._count(
                    await client.post("/prompt", json={"query": "hello", "max_tokens": 3}, headers=_with(GUEST))
                )
                self._count(await client.post("/prompt", json={"wrong": 1}, headers=_with(ALICE)))
                self._count(await client.post("/prompt", json={"query": "hello"}))
                _, writer = await asyncio.open_connection(host, int(port))
                writer.write(b"this is no request\r\n\r\n")
                await writer.drain()
                writer.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), 2)

    def _count(self, answer: httpx.Response) -> None:
        self.asked[str(answer.status_code)] += 1


def _with(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def folder() -> tempfile.TemporaryDirectory[str]:
    """Where logs, keys and databases are meanwhile."""
    return tempfile.TemporaryDirectory(prefix="neurogate-prometheus-", ignore_cleanup_errors=True)

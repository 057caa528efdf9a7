"""Real processes for the fault tests: gateways, workers and simulated engines on free ports of this machine."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

KEY = "test-key"
AUTH = {"Authorization": f"Bearer {KEY}"}


class Process:
    """One `neurogate` process, its log in memory."""

    COMMAND: Sequence[str] = (sys.executable, "-m", "neurogate")

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.name = next((word for word in arguments if word in {"gateway", "worker", "sim-engine"}), arguments[0])
        self.lines: list[str] = []
        self._seen = threading.Condition()
        keep = {
            name: value for name, value in os.environ.items() if not name.startswith(("NEUROGATE_", "API_", "OLLAMA"))
        }
        self.popen = subprocess.Popen(
            [*self.COMMAND, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**keep, "LOG_FORMAT": "json", **environment},
        )
        threading.Thread(target=self._follow, daemon=True).start()

    @property
    def pid(self) -> int:
        return self.popen.pid

    def wait_for(self, event: str, timeout: float = 30) -> dict[str, Any]:
        """The first log record with that event, waiting for it; fails when the process ends without it."""
        with self._seen:
            if not self._seen.wait_for(lambda: self._find(event) is not None or self.popen.poll() is not None, timeout):
                raise AssertionError(f"no {event!r} within {timeout} s:\n" + "".join(self.lines[-20:]))
            found = self._find(event)
        assert found is not None, f"ended with {self.popen.returncode} before {event!r}:\n" + "".join(self.lines[-20:])
        return found

    def wait_for_line(self, part: str, timeout: float = 30) -> str:
        """The first line with that in it, waiting for it; fails when the process ends without it."""

        def found() -> str | None:
            return next((line for line in self.lines if part in line), None)

        with self._seen:
            self._seen.wait_for(lambda: found() is not None or self.popen.poll() is not None, timeout)
            line = found()
        assert line is not None, f"no {part!r} within {timeout} s:\n" + "".join(self.lines[-20:])
        return line

    def send(self, signum: int) -> None:
        self.popen.send_signal(signum)

    def stop(self, timeout: float = 20) -> int:
        """SIGTERM, and the exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGCONT)
            self.popen.terminate()
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def rss_mib(self) -> float:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no VmRSS")

    def _find(self, event: str) -> dict[str, Any] | None:
        for line in self.lines:
            if f'"{event}"' in line:
                record = json.loads(line)
                if record.get("event") == event:
                    return record
        return None

    def _follow(self) -> None:
        assert self.popen.stdout is not None
        with self.popen.stdout as stream:
            for line in stream:
                with self._seen:
                    self.lines.append(line)
                    self._seen.notify_all()
        self.popen.wait()
        with self._seen:
            self._seen.notify_all()


class Cluster:
    """A gateway and its workers. Use as a context manager: nothing is left running."""

    def __init__(
        self, workers: int | Sequence[dict[str, str]] = 3, *, gateway: dict[str, str] | None = None, **worker: str
    ) -> None:
        self._worker_environment = {
            "NEUROGATE_ENGINE": "sim",
            "NEUROGATE_SIM_PREFILL_TPS": "0",
            "NEUROGATE_SIM_DECODE_TPS": "50",
            "NEUROGATE_SIM_SLOTS": "200",
            **worker,
        }
        self._gateway_environment = gateway or {}
        self.workers: list[Process] = []
        self.ports: list[int] = []
        self._changes = [{}] * workers if isinstance(workers, int) else workers
        """What each worker's environment has of its own."""

    def __enter__(self) -> Cluster:
        try:
            started = [self._start_worker(0, **changes) for changes in self._changes]
            for worker in started:
                self.workers.append(worker)
                self.ports.append(worker.wait_for("worker listens")["grpc_port"])
            addresses = ",".join(f"127.0.0.1:{port}" for port in self.ports)
            self.gateway = Process(
                "gateway",
                WORKER_ADDRESSES=addresses,
                HTTP_PORT="0",
                METRICS_PORT="0",
                PORT_HEALTH="0",
                NEUROGATE_HOST="127.0.0.1",
                API_KEYS=KEY,
                **{"NEUROGATE_GRPC_PORT": "-1", **self._gateway_environment},
            )
            listens = self.gateway.wait_for("gateway listens")
        except BaseException:
            self.__exit__()
            raise
        self.http_port: int = listens["http_port"]
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.ops_url = f"http://127.0.0.1:{listens['ops_port']}"
        return self

    def __exit__(self, *_: object) -> None:
        for process in [*self.workers, *([self.gateway] if hasattr(self, "gateway") else [])]:
            process.popen.kill()
        for process in [*self.workers, *([self.gateway] if hasattr(self, "gateway") else [])]:
            process.popen.wait()

    def restart_worker(self, index: int, **environment: str) -> None:
        """Start a worker again on the port it had."""
        self.workers[index] = self._start_worker(self.ports[index], **environment)
        self.workers[index].wait_for("worker listens")

    def client(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        return httpx.AsyncClient(base_url=self.url, headers=AUTH, timeout=60, limits=limits)

    async def states(self, client: httpx.AsyncClient) -> list[dict[str, Any]]:
        return (await client.get("/workers")).json()["workers"]

    async def until(
        self, condition: Callable[[list[dict[str, Any]]], bool], client: httpx.AsyncClient, timeout: float = 20
    ) -> list[dict[str, Any]]:
        """Ask GET /workers until it shows the condition: another process's state can only be asked for."""
        states: list[dict[str, Any]] = []

        async def asked() -> bool:
            nonlocal states
            states = await self.states(client)
            return condition(states)

        try:
            await eventually(asked, timeout)
        except TimeoutError:
            raise AssertionError(f"not within {timeout} s: {states}") from None
        return states

    async def until_ready(self, client: httpx.AsyncClient) -> None:
        await self.until(lambda states: all(state["ready"] for state in states), client)

    async def until_clean(self, client: httpx.AsyncClient) -> None:
        """Nothing in flight anywhere: no lease at the gateway, no request at any living worker, no slot taken."""
        await self.until(
            lambda states: all(
                state["in_flight"] == 0
                and (
                    not state["healthy"]
                    or (state["requests"] == {"running": 0, "queued": 0} and state["slots"]["busy"] == 0)
                )
                for state in states
            ),
            client,
        )

    def _start_worker(self, port: int, **environment: str) -> Process:
        return Process(
            "worker",
            GRPC_PORT=str(port),
            METRICS_PORT="0",
            NEUROGATE_WORKER_HOST="127.0.0.1",
            **{**self._worker_environment, **environment},
        )


async def eventually(condition: Callable[[], Awaitable[bool]], timeout: float = 20) -> None:
    """Ask until the condition holds. Raises TimeoutError."""
    async with asyncio.timeout(timeout):
        while not await condition():
            await asyncio.sleep(0.05)


class Streamed:
    """What one client saw of one streamed answer."""

    def __init__(self) -> None:
        self.status = 0
        self.worker = ""
        self.attempts = 0
        self.body = b""
        self.cut = False
        self.started = asyncio.Event()

    @property
    def whole(self) -> bool:
        return self.status == 200 and self.body.endswith(b"data: [DONE]\n\n") and not self.failed and not self.cut

    @property
    def failed(self) -> bool:
        return b'data: {"error"' in self.body

    @property
    def continued(self) -> bool:
        return b"\n: continued by another worker" in self.body

    @property
    def text(self) -> str:
        text = []
        for line in self.body.decode().splitlines():
            if line.startswith("data: {"):
                choices = json.loads(line[6:]).get("choices")
                if choices:
                    text.append(choices[0]["delta"].get("content") or "")
        return "".join(text)


async def stream(client: httpx.AsyncClient, prompt: str, max_tokens: int = 64) -> Streamed:
    """One streamed chat."""
    seen = Streamed()
    await follow(client, prompt, seen, max_tokens)
    return seen


async def follow(client: httpx.AsyncClient, prompt: str, seen: Streamed, max_tokens: int = 64) -> None:
    """The same into `seen`, which tells when the first bytes came."""
    body = {"messages": [{"role": "user", "content": prompt}], "stream": True, "max_tokens": max_tokens}
    if max_tokens > 1000:
        body["ignore_eos"] = True  # go on past the natural end of the simulated answer
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            seen.status = response.status_code
            seen.worker = response.headers.get("x-neurogate-worker", "")
            seen.attempts = int(response.headers.get("x-neurogate-attempts", 0))
            async for data in response.aiter_bytes():
                seen.body += data
                seen.started.set()
    except httpx.TransportError:
        seen.cut = True

"""NeuroGate itself: a gateway and a worker of a checkout, with and without what people turn on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cache import NotMeasuredError
from peers.peer import Capacity, Running, Stage, free_port, spawn

CHECKOUT = Path(__file__).parents[2]
KEY = "bench-key"

FEATURES = {
    "API_KEYS": KEY,
    "NEUROGATE_REQUESTS_PER_MINUTE": "1000000000",
    "NEUROGATE_TOKENS_PER_MINUTE": "1000000000000",
    "NEUROGATE_CONCURRENT_PER_KEY": "1000000",
    "NEUROGATE_ACCESS_LOG": "access.log",
}
"""What people turn on: keys, limits, access log. Metrics are always on."""
_TRACED = {"NEUROGATE_TRACES": "otlp", "NEUROGATE_TRACE_RATIO": "0.01"}
_SLOW_START_S = 300
"""Of a process that another one runs."""
_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


class NeuroGate:
    """A gateway and a worker whose engine is the mock engine, as any server with OpenAI's API is."""

    capacity: Capacity | None = None

    def __init__(
        self,
        name: str,
        tree: Path,
        gateway: Mapping[str, str],
        *,
        worker: Mapping[str, str] | None = None,
        traced: bool = False,
        under: Sequence[str | Path] = (),
        under_it: str = "gateway",
    ) -> None:
        """`gateway` and `worker` are added to their environments; `under` is a command that runs one of the two."""
        self.name = name
        self._tree = tree
        self._gateway = dict(gateway)
        self._worker = dict(worker or {})
        self._traced = traced
        self._under = {under_it: under}
        own = tree / ".venv/bin/python"
        self._python = own if own.exists() else Path(sys.executable)

    def set_up(self) -> str:
        """The checkout's version and commit."""
        if self._traced:
            missing = [name for name in (*_TRACED, _ENDPOINT) if name not in self._settings()]
            if missing:
                raise NotMeasuredError(f"this checkout has no setting {missing[0]}")
        script = "import neurogate; print(neurogate.__version__)"
        version = subprocess.run(
            [self._python, "-c", script],
            env={"PYTHONPATH": str(self._tree / "pkg")},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        return f"{version} ({commit_of(self._tree)})"

    def start(self, stage: Stage) -> Running:
        """The worker first, so that the gateway's start-up time is the gateway's."""
        own = {"PYTHONPATH": str(self._tree / "pkg"), "LOG_LEVEL": "warn"}
        grpc_port = free_port()
        worker = spawn(
            stage,
            "worker",
            [*self._under.get("worker", ()), self._python, "-m", "neurogate", "worker"],
            **own,
            NEUROGATE_ENGINE="openai",
            NEUROGATE_ENGINE_URL=f"http://127.0.0.1:{stage.engine_port}",
            NEUROGATE_WORKER_HOST="127.0.0.1",
            GRPC_PORT=str(grpc_port),
            METRICS_PORT="0",
            NEUROGATE_WORKER_MAX_REQUESTS="4096",
            **self._worker,
        )
        wait_until_taken(grpc_port, worker, 30 if "worker" not in self._under else _SLOW_START_S)
        traced = {**_TRACED, _ENDPOINT: f"http://127.0.0.1:{stage.engine_port}"} if self._traced else {}
        port = free_port()
        gateway = spawn(
            stage,
            "gateway",
            [*self._under.get("gateway", ()), self._python, "-m", "neurogate", "gateway"],
            **own,
            **self._gateway,
            **traced,
            WORKER_ADDRESSES=f"127.0.0.1:{grpc_port}",
            NEUROGATE_HOST="127.0.0.1",
            HTTP_PORT=str(port),
            METRICS_PORT="0",
            NEUROGATE_GRPC_PORT="0",
            PORT_HEALTH="-1",
        )
        headers = {"authorization": f"Bearer {KEY}"} if "API_KEYS" in self._gateway else {}
        return Running(port, {"gateway": gateway, "worker": worker}, headers, stage.directory)

    def _settings(self) -> str:
        return subprocess.run(
            [self._python, "-m", "neurogate", "settings", "--markdown"],
            env={"PYTHONPATH": str(self._tree / "pkg")},
            capture_output=True,
            text=True,
            check=False,
        ).stdout


class Compiled(NeuroGate):
    """The same with its hot path compiled (`make native`)."""

    def __init__(self, tree: Path) -> None:
        super().__init__("neurogate-compiled", tree / ".cache/native", FEATURES)
        self._checkout = tree

    def set_up(self) -> str:
        """Compile it, which takes one to two minutes. Raises NotMeasuredError where that cannot be done."""
        done = subprocess.run(["make", "-s", "native"], cwd=self._checkout, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotMeasuredError(f"make native: {done.stderr.strip()[-300:]}")
        return super().set_up()


def variants(tree: Path = CHECKOUT) -> list[NeuroGate]:
    """As people run it (keys, limits, metrics, access log), compiled, with 1 % of requests traced, and bare."""
    return [
        NeuroGate("neurogate", tree, FEATURES),
        Compiled(tree),
        NeuroGate("neurogate-traced", tree, FEATURES, traced=True),
        NeuroGate("neurogate-bare", tree, {}),
    ]


def commit_of(tree: Path) -> str:
    """The commit of a checkout, with a plus when it was changed since."""
    described: list[str | Path] = ["git", "-C", tree, "describe", "--always", "--abbrev=9", "--match=", "--dirty=+"]
    done = subprocess.run(described, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "no commit"


def wait_until_taken(port: int, process: subprocess.Popen[bytes], timeout_s: float = 30) -> None:
    """Return when a process listens on a port. Raises NotMeasuredError when it ends or takes too long."""
    import socket
    import time

    until = time.monotonic() + timeout_s
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.01)
    raise NotMeasuredError(f"nothing listens on its port {port}: {process.args!r}")

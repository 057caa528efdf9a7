"""A gateway with simulated workers, as processes on this machine, for benches that are about NeuroGate alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

KEY = "bench-key"


@contextmanager
def fleet(workers: int, *, gateway: Mapping[str, str] | None = None, **engine: str) -> Iterator[tuple[int, int, int]]:
    """A gateway's pid, HTTP port and ops port, with that many simulated workers behind it."""
    processes: list[subprocess.Popen[str]] = []

    def start(command: str, event: str, **environment: str) -> dict[str, int]:
        process = subprocess.Popen(
            [sys.executable, "-m", "neurogate", command],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "LOG_FORMAT": "json", **environment},
        )
        processes.append(process)
        assert process.stderr is not None
        for line in process.stderr:
            record = json.loads(line) if line.startswith("{") else {}
            if record.get("event") == event:
                threading.Thread(target=process.stderr.read, daemon=True).start()
                return {**record, "pid": process.pid}
        raise SystemExit(f"neurogate {command} did not start")

    try:
        ports = [
            start(
                "worker",
                "worker listens",
                NEUROGATE_ENGINE="sim",
                GRPC_PORT="0",
                METRICS_PORT="0",
                NEUROGATE_SIM_PREFILL_TPS="0",
                **engine,
            )["grpc_port"]
            for _ in range(workers)
        ]
        listens = start(
            "gateway",
            "gateway listens",
            WORKER_ADDRESSES=",".join(f"127.0.0.1:{port}" for port in ports),
            HTTP_PORT="0",
            METRICS_PORT="0",
            NEUROGATE_GRPC_PORT="0",
            PORT_HEALTH="-1",
            API_KEYS=KEY,
            **(gateway or {}),
        )
        wait_until_ready(listens["http_port"], workers)
        yield listens["pid"], listens["http_port"], listens["ops_port"]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def wait_until_ready(port: int, workers: int) -> None:
    """Return when every worker can be used."""
    for _ in range(200):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/workers") as answer:
            if sum(worker["ready"] for worker in json.load(answer)["workers"]) == workers:
                return
        time.sleep(0.05)
    raise SystemExit("the workers did not become ready")

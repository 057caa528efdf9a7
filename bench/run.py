"""What the gateway costs: CPU per unstreamed request, CPU per streamed token, memory with open streams.

A gateway and simulated workers run as processes on this machine; wrk makes the load; /proc tells the gateway's CPU. The
simulated engine decodes in lockstep like a batching engine, so the figures hold for the gateway, not for any engine.

    python bench/run.py [--seconds 8] [--workers 1] [--streams 400] [--connections 64]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cpu import usage_of

KEY = "bench-key"

_LUA = """wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer %s"
wrk.body = '%s'
"""


@dataclass(frozen=True)
class Figures:
    """One load's outcome."""

    requests: int
    tokens: int
    cpu_s: float
    elapsed_s: float
    rss_mib: float
    bad: int


@contextmanager
def fleet(workers: int, *, gateway: Mapping[str, str] | None = None, **engine: str) -> Iterator[tuple[int, int, int]]:
    """A gateway's pid, HTTP port and ops port, with that many simulated workers behind it."""
    processes: list[subprocess.Popen[str]] = []

    def start(command: str, event: str, **environment: str) -> dict[str, int]:
        began = time.monotonic()
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
                if command == "gateway":
                    print(f"start-up:   {time.monotonic() - began:6.2f} s from `neurogate gateway` to listening")
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


def completion_tokens(ops_port: int) -> int:
    """Tokens the gateway has seen in finished answers."""
    with urllib.request.urlopen(f"http://127.0.0.1:{ops_port}/metrics") as answer:
        found = re.search(r'neurogate_gateway_tokens_total\{kind="completion"\} (\S+)', answer.read().decode())
    return int(float(found.group(1))) if found else 0


def wrk(port: int, body: dict[str, object], *, connections: int, seconds: int) -> tuple[int, int]:
    """Load a port for some seconds: (requests answered, answers that were none)."""
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory, "load.lua")
        script.write_text(_LUA % (KEY, json.dumps(body)))
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(script), url]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\d+) requests in", output)
    if found is None:
        raise SystemExit(f"wrk said:\n{output}")
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    return int(found.group(1)), int(bad.group(1)) if bad else 0


def load(gateway: tuple[int, int, int], body: dict[str, object], *, connections: int, seconds: int) -> Figures:
    """Run wrk against the gateway and weigh the gateway meanwhile."""
    pid, http_port, ops_port = gateway
    tokens, before, began = completion_tokens(ops_port), usage_of(pid), time.monotonic()
    requests, bad = wrk(http_port, body, connections=connections, seconds=seconds)
    elapsed_s, after = time.monotonic() - began, usage_of(pid)
    cpu_s = after.cpu_s - before.cpu_s
    return Figures(requests, completion_tokens(ops_port) - tokens, cpu_s, elapsed_s, after.rss_mib, bad)


def floor_us(body: dict[str, object], *, connections: int, seconds: int) -> float:
    """CPU microseconds a request of the cheapest ASGI app on the same HTTP server, under the same load."""
    command = [sys.executable, str(Path(__file__).with_name("floor.py"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        before = usage_of(process.pid)
        requests, _ = wrk(port, body, connections=connections, seconds=seconds)
        after = usage_of(process.pid)
        process.terminate()
    return (after.cpu_s - before.cpu_s) / requests * 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--streams", type=int, default=400)
    parser.add_argument("--connections", type=int, default=64)
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk makes the load: install it (Debian: apt-get install wrk)")
    message = [{"role": "user", "content": "Why is the sky blue?"}]
    body: dict[str, object] = {"model": "sim", "max_tokens": 1, "messages": message}
    floor = floor_us(body, connections=arguments.connections, seconds=arguments.seconds)
    print(f"floor:      {floor:6.1f} us of CPU a request: a bare ASGI app on the same HTTP server")
    with fleet(arguments.workers, NEUROGATE_SIM_DECODE_TPS="0", NEUROGATE_SIM_SLOTS="512") as gateway:
        load(gateway, body, connections=arguments.connections, seconds=2)
        whole = load(gateway, body, connections=arguments.connections, seconds=arguments.seconds)
    each = whole.cpu_s / whole.requests * 1e6
    print(
        f"unstreamed: {each:6.1f} us of gateway CPU a request, {each / floor:.1f} times the floor   "
        f"({whole.requests} requests, {whole.bad} bad, {whole.requests / whole.elapsed_s:.0f}/s, "
        f"{arguments.connections} connections, RSS {whole.rss_mib:.0f} MiB)"
    )
    with fleet(arguments.workers, NEUROGATE_SIM_DECODE_TPS="50", NEUROGATE_SIM_SLOTS="512") as gateway:
        body = {"model": "sim", "max_tokens": 64, "ignore_eos": True, "stream": True, "messages": message}
        load(gateway, body, connections=arguments.streams, seconds=2)
        streamed = load(gateway, body, connections=arguments.streams, seconds=arguments.seconds)
    print(
        f"streamed:   {streamed.cpu_s / max(1, streamed.tokens) * 1e6:6.1f} us of gateway CPU a token     "
        f"({streamed.tokens} tokens, {streamed.bad} bad, {streamed.tokens / streamed.elapsed_s:.0f}/s, "
        f"{arguments.streams} streams, RSS {streamed.rss_mib:.0f} MiB)"
    )


if __name__ == "__main__":
    main()

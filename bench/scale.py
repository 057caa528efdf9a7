"""What a fleet's size costs one gateway: memory, links and reports while idle, requests, streams, and being scraped.

Simulated workers run in a few processes, each with a link of its own to the gateway and a report a second; fleets of
several sizes are measured one after the other.

    python bench/scale.py [--sizes 10 100 1000] [--processes 4] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from load import client
from peers.peer import Running, Stage, free_port, spawn
from run import raise_file_limit
from usage import cpu_of, memory_of, seconds_between
from workloads import CLOSED, stream

_REQUESTS = 4000
_STREAMS, _TOKENS = 200, 100
_SCRAPES = 3
_READY_S = 300


@dataclass(frozen=True)
class Cost:
    """What one size costs the gateway."""

    workers: int
    linked_after_s: float
    """From the gateway's start until all workers are ready."""
    rss_mib: float
    idle_ms_per_s: float
    """CPU for links and reports."""
    report_us: float
    """The same, for one worker's second."""
    request_us: float
    """CPU for an unstreamed request, 64 at once, without what the idle fleet costs meanwhile; so are the next two."""
    token_us: float
    """CPU for a token, of 200 streams at 20 a second spread over all workers, their beginnings included."""
    scrape_ms: float
    """CPU for one GET of /metrics."""
    scrape_kib: float


def measure(workers: int, processes: int) -> Cost:
    """Measure a fleet of one size."""
    with _fleet(workers, processes) as ports, tempfile.TemporaryDirectory(prefix="scale-") as directory:
        began = time.monotonic()
        running, ops_port = _gateway(Path(directory), ports)
        try:
            _wait_until_ready(running, workers)
            linked_after_s = time.monotonic() - began
            time.sleep(5)  # what happens only when workers come is over
            idle_s = _cpu_s(running, lambda: time.sleep(10)) / 10
            rss_mib = memory_of(running.families()["gateway"]).rss_mib
            _ask(running, 500)
            request_s = _cpu_s(running, lambda: _ask(running, _REQUESTS), idle_s) / _REQUESTS
            token_s = _cpu_s(running, lambda: _stream(running), idle_s) / (_STREAMS * _TOKENS)
            url = f"http://127.0.0.1:{ops_port}/metrics"
            size = len(_get(url))
            scrape_s = _cpu_s(running, lambda: [_get(url) for _ in range(_SCRAPES)], idle_s) / _SCRAPES
        finally:
            running.stop()
    return Cost(
        workers,
        linked_after_s=round(linked_after_s, 2),
        rss_mib=round(rss_mib, 1),
        idle_ms_per_s=round(idle_s * 1000, 2),
        report_us=round(idle_s / workers * 1e6, 1),
        request_us=round(request_s * 1e6, 1),
        token_us=round(token_s * 1e6, 2),
        scrape_ms=round(scrape_s * 1000, 1),
        scrape_kib=round(size / 1024, 1),
    )


@contextmanager
def _fleet(workers: int, processes: int) -> Iterator[list[int]]:
    """The workers' ports."""
    each = [len(range(number, workers, processes)) for number in range(min(processes, workers))]
    script = Path(__file__).with_name("simworkers.py")
    started = [
        subprocess.Popen([sys.executable, str(script), str(count)], stdout=subprocess.PIPE, text=True) for count in each
    ]
    try:
        ports: list[int] = []
        for process in started:
            assert process.stdout is not None
            ports += json.loads(process.stdout.readline() or "null") or []
        if len(ports) != workers:
            raise SystemExit(f"scale: only {len(ports)} of {workers} workers listen")
        yield ports
    finally:
        for process in started:
            process.kill()  # a thousand workers that say goodbye are not what is measured
        for process in started:
            process.wait()


def _gateway(directory: Path, ports: Sequence[int]) -> tuple[Running, int]:
    port, ops_port = free_port(), free_port()
    process = spawn(
        Stage(directory, 0),
        "gateway",
        [sys.executable, "-m", "neurogate", "gateway"],
        PYTHONPATH=os.pathsep.join(sys.path),
        WORKER_ADDRESSES=",".join(f"127.0.0.1:{each}" for each in ports),
        NEUROGATE_HOST="127.0.0.1",
        HTTP_PORT=str(port),
        METRICS_PORT=str(ops_port),
        NEUROGATE_GRPC_PORT="0",
        PORT_HEALTH="-1",
        LOG_LEVEL="error",
    )
    return Running(port, {"gateway": process}), ops_port


def _wait_until_ready(running: Running, workers: int) -> None:
    until = time.monotonic() + _READY_S
    while time.monotonic() < until:
        running.check()
        try:
            told = json.loads(_get(f"http://127.0.0.1:{running.port}/workers"))["workers"]
            if sum(worker["ready"] for worker in told) == workers:
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise SystemExit(f"scale: {workers} workers are not ready after {_READY_S} s")


def _ask(running: Running, requests: int) -> None:
    workload = replace(CLOSED, tokens=0)
    _checked(client.run_count(workload, requests, port=running.port, headers={}, timeout_s=300, lenient=True))


def _stream(running: Running) -> None:
    workload = replace(stream(_TOKENS, 20, _STREAMS), ramp_s=1.0)
    _checked(client.run_count(workload, _STREAMS, port=running.port, headers={}, timeout_s=300, lenient=True))


def _checked(seen: client.Seen) -> None:
    if seen.bad:
        raise SystemExit(f"scale: {seen.bad} answers were bad: {seen.told['sample']}")


def _cpu_s(running: Running, work: Callable[[], object], idle_s: float = 0.0) -> float:
    """CPU seconds of the gateway while something is done, less what it uses each second anyway."""
    pids = running.families()["gateway"]
    before, began = cpu_of(pids), time.monotonic()
    work()
    return seconds_between(before, cpu_of(pids)) - idle_s * (time.monotonic() - began)


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        body: bytes = answer.read()
        return body


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--processes", type=int, default=4, help="that the workers share")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    raise_file_limit()
    found = []
    for size in arguments.sizes:
        found.append(measure(size, arguments.processes))
        print("   ".join(f"{name} {value:g}" for name, value in asdict(found[-1]).items()), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(cost) for cost in found], indent=1) + "\n")


if __name__ == "__main__":
    main()

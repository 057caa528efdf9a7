"""`neurogate verify` as a command: a gateway, a worker and a simulated engine in processes of their own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from cluster import KEY, Cluster, Process


@dataclass
class Ports:
    engine: int
    worker: int
    http: int
    grpc: int


@pytest.fixture(scope="module")
def ports() -> Iterator[Ports]:
    engine = Process("sim-engine", "--port", "0", "--sim-slots", "64", "--sim-decode-tps", "200")
    try:
        with engine._seen:
            assert engine._seen.wait_for(lambda: any("listening on" in line for line in engine.lines), 30)
        port = int(re.findall(r"listening on http://127\.0\.0\.1:(\d+)", "".join(engine.lines))[0])
        with Cluster(
            1,
            gateway={"NEUROGATE_GRPC_PORT": "0"},
            NEUROGATE_ENGINE="llama-server",
            NEUROGATE_ENGINE_URL=f"http://127.0.0.1:{port}",
        ) as cluster:
            cluster.workers[0].wait_for("engine ready")
            listens = cluster.gateway.wait_for("gateway listens")
            yield Ports(port, cluster.ports[0], listens["http_port"], listens["grpc_port"])
    finally:
        assert engine.stop() == 0


def verify(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "neurogate", "verify", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)


def test_http_through_a_gateway_is_like_the_engine_with_64_streams_at_once(ports: Ports):
    direct, proxy = f"127.0.0.1:{ports.engine}", f"127.0.0.1:{ports.http}"
    done = verify("--direct", direct, "--proxy", proxy, "--key", KEY, "--json")
    report = json.loads(done.stdout)

    assert report["findings"] == []
    assert done.returncode == 0
    assert report["skipped"] == []
    assert report["aspects"]["cross-talk"] == {"compared": 64, "failed": 0}
    assert report["aspects"]["cancellation"] == {"compared": 1, "failed": 0}
    assert report["aspects"]["size"] == {"compared": 1, "failed": 0}


def test_grpc_through_a_gateway_is_like_the_worker_with_64_streams_at_once(ports: Ports):
    direct, proxy = f"127.0.0.1:{ports.worker}", f"127.0.0.1:{ports.grpc}"
    done = verify("--grpc", "--direct", direct, "--proxy", proxy, "--key", KEY, "--size-mib", "25")

    assert done.stdout.endswith("\npassed\n"), done.stdout + done.stderr
    assert done.returncode == 0
    assert re.search(r"cross-talk +64 +0\n", done.stdout)
    assert re.search(r"size +1 +0\n", done.stdout)
    assert "normalised before comparing:\n  inference_time_ms: time\n" in done.stdout


def test_a_size_that_only_the_proxy_refuses_counts_as_another_status_too(ports: Ports):
    direct, proxy = f"127.0.0.1:{ports.engine}", f"127.0.0.1:{ports.http}"
    done = verify("--direct", direct, "--proxy", proxy, "--key", KEY, "--size-mib", "12", "-n", "1", "--json")
    report = json.loads(done.stdout)

    assert done.returncode == 1
    assert [(found["aspect"], found["call"]) for found in report["findings"]] == [
        ("status", "12582912 bytes"),
        ("size", "12582912 bytes"),
    ]
    assert report["findings"][0]["detail"] == "200 directly, 413 through the proxy"
    failed = {aspect: tally["failed"] for aspect, tally in report["aspects"].items() if tally["failed"]}
    assert failed == {"status": 1, "size": 1}


def test_a_proxy_that_refuses_everything_fails(ports: Ports):
    direct, proxy = f"127.0.0.1:{ports.engine}", f"127.0.0.1:{ports.http}"
    done = verify("--direct", direct, "--proxy", proxy, "--key", "wrong", "-n", "2", "--api", "openai")

    assert done.returncode == 1
    assert "  status: chat, streamed: 200 directly, 401 through the proxy\n" in done.stdout
    assert done.stdout.endswith("\nFAILED\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--direct", "127.0.0.1:1", "--proxy", "127.0.0.1:1"), "http://127.0.0.1:1 does not answer"),
        (("--direct", "a:1", "--proxy", "a:1", "--api", "soap"), "--api: must be one of openai, llamacpp"),
    ],
)
def test_what_cannot_be_verified_is_told_in_one_line(arguments: tuple[str, ...], told: str):
    done = verify(*arguments)

    assert done.returncode == 1
    assert done.stderr.startswith(f"neurogate: {told}")
    assert done.stderr.count("\n") == 1

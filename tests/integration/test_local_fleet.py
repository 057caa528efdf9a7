"""The local fleet with the real gateway and real workers."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from neurogate.config import child_environment
from neurogate.local import processes
from tls_support import Pki

NEUROGATE = [sys.executable, "-m", "neurogate"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Any port, logs of its own, and a mark that finds every process of the test."""
    return child_environment(
        {
            "HTTP_PORT": "0",
            "METRICS_PORT": "0",
            "PORT_HEALTH": "0",
            "NEUROGATE_GRPC_PORT": "0",
            "GRPC_PORT": "0",
            "XDG_STATE_HOME": str(tmp_path),
            "NEUROGATE_SIM_DECODE_TPS": "0",
            "NEUROGATE_SIM_PREFILL_TPS": "0",
        }
    )


@pytest.fixture
def guarded(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """Keys in a file, asked for even at /workers, and a certificate for another name."""
    keys = tmp_path / "keys.txt"
    keys.write_text("alice:alices-secret-key\n")
    pki = Pki(tmp_path / "pki")
    cert, key = pki.issue("gateway", sans=["DNS:gateway.example"])
    return environment | {
        "AUTH_KEYS_FILE": str(keys),
        "WORKERS_AUTH": "true",
        "NEUROGATE_TLS_CERT": cert,
        "NEUROGATE_TLS_KEY": key,
        "NEUROGATE_TLS_CLIENT_CA": pki.ca,
        "NEUROGATE_GRPC_TLS_PORT": "0",
    }


@contextlib.contextmanager
def running_up(environment: dict[str, str], *flags: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """`neurogate up` with two simulated workers, once it is ready."""
    command = [*NEUROGATE, "up", "--workers", "2", "--engine", "sim", *(flags or ("--key", "secret"))]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        lines: list[str] = []
        try:
            for line in process.stdout:
                lines.append(line)
                if line.startswith("ready"):
                    break
            yield process, lines
        finally:
            process.kill()


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_up_runs_until_a_signal_and_leaves_nothing(environment, signum):
    with running_up(environment) as (process, lines):
        children = children_of(process.pid)
        assert len(children) == 3
        process.send_signal(signum)
        rest, _ = process.communicate(timeout=60)

    assert process.returncode == 0
    assert "gateway  http://127.0.0.1:" in lines[0]
    assert rest.endswith("stopping\nstopped\n")
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def test_up_with_keys_and_tls_is_ready_and_says_so(guarded):
    with running_up(guarded, "--port-health", "-1", "--grpc-port", "-1") as (process, lines):
        process.terminate()
        process.communicate(timeout=60)

    told = {line[:8].strip(): line[9:].strip() for line in lines}
    assert lines[-1].startswith("ready")
    assert told["gateway"].startswith("https://127.0.0.1:")
    assert told["grpc tls"].startswith("127.0.0.1:")
    assert "grpc" not in told
    assert told["tls"].endswith(f"clients must show one that {guarded['NEUROGATE_TLS_CLIENT_CA']} has signed")
    assert told["key"] == f"(one of those in {guarded['AUTH_KEYS_FILE']})"


def test_up_reads_the_file_that_is_named(environment, tmp_path):
    file = tmp_path / "fleet.yaml"
    file.write_text("keys: {api_keys: [key-of-the-file]}\nhttp: {health_port: -1}\n")

    with running_up(environment, "--config", str(file)) as (process, lines):
        process.terminate()
        process.communicate(timeout=60)

    assert "key      key-of-the-file\n" in lines


def test_port_that_is_set_and_taken_fails_the_start(environment):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*NEUROGATE, "up", "--engine", "sim", "--metrics-port", port],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert done.returncode == 1
    assert done.stderr.startswith(f"neurogate: METRICS_PORT (flag --metrics-port): cannot listen on 127.0.0.1:{port}: ")


def test_second_signal_ends_it_at_once(environment):
    with running_up(environment) as (process, _):
        children = children_of(process.pid)
        os.kill(children[0], signal.SIGSTOP)  # a gateway that cannot stop
        process.send_signal(signal.SIGINT)
        assert "stopping\n" in process.stdout
        process.send_signal(signal.SIGINT)

        assert process.wait(timeout=20) == 1
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def test_killed_up_leaves_nothing(environment):
    with running_up(environment) as (process, _):
        children = [os.pidfd_open(child) for child in children_of(process.pid)]
        process.kill()
        process.wait()
        waiting = set(children)
        while waiting:
            ended, _, _ = select.select(waiting, [], [], 30)
            assert ended, "a process outlived the fleet that started it"
            waiting -= set(ended)
    for child in children:
        os.close(child)


def test_failing_worker_fails_the_start_with_its_log(environment):
    environment["NEUROGATE_SIM_FAULTS"] = "no-such-fault"

    done = subprocess.run(
        [*NEUROGATE, "up", "--engine", "sim"], env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert "ended with exit code 78; its log" in done.stdout
    assert "no-such-fault" in done.stdout


def test_demo_with_simulated_engines(environment):
    environment["NEUROGATE_ENGINE"] = "sim"
    environment["NEUROGATE_SIM_DECODE_TPS"] = "25"  # an answer that lasts long enough to lose its worker

    done = subprocess.run(
        [*NEUROGATE, "demo", "--workers", "2"], env=environment, check=False, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "engine  sim" in done.stdout
    assert done.stdout.endswith("All of it worked.\n")


def test_demo_needs_neither_the_keys_nor_the_certificates(guarded):
    guarded["NEUROGATE_ENGINE"] = "sim"
    guarded["NEUROGATE_SIM_DECODE_TPS"] = "25"

    done = subprocess.run(
        [*NEUROGATE, "demo", "--workers", "2"], env=guarded, check=False, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("All of it worked.\n")


def test_interrupted_demo_fails_and_leaves_nothing(environment):
    environment["NEUROGATE_ENGINE"] = "sim"
    environment["NEUROGATE_SIM_DECODE_TPS"] = "1"
    with subprocess.Popen([*NEUROGATE, "demo"], env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("$ curl"):
                break
        children = children_of(process.pid)
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)

    assert process.returncode == 1
    assert rest.endswith("stopped before its end\n")
    assert not any(Path(f"/proc/{child}").exists() for child in children)


@pytest.mark.model
def test_demo_with_the_real_model(environment, smollm2_path):
    assert smollm2_path.is_file()

    done = subprocess.run([*NEUROGATE, "demo"], env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "engine  llamacpp, model smollm2-135m-instruct" in done.stdout
    assert done.stdout.endswith("All of it worked.\n")
    assert processes.marked("") == {}

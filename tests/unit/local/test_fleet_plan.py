"""Ports and settings of a fleet are chosen before anything starts."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from neurogate.config import load
from neurogate.local.plan import FleetRequest, fair_threads, plan
from neurogate.local.ports import free_ports, is_free
from neurogate.local.run_directory import StateSettings, new_run_directory, tail


@pytest.fixture
def taken():
    """A listener on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_wanted_port_is_taken_when_it_is_free(taken):
    assert not is_free("127.0.0.1", taken)
    (near,) = free_ports([("127.0.0.1", taken)])

    assert near != taken
    assert is_free("127.0.0.1", near)
    assert free_ports([("127.0.0.1", near)]) == [near]


def test_ports_are_all_different(taken):
    ports = free_ports([("127.0.0.1", taken)] * 5 + [("127.0.0.1", 0)] * 5)

    assert len(set(ports)) == 10


def test_any_port_is_better_than_none():
    assert 0 < free_ports([("127.0.0.1", 65535), ("127.0.0.1", 65535)])[1] < 65535


def test_address_of_another_machine_is_told():
    with pytest.raises(OSError, match=r"no port is free on 192\.0\.2\.1"):
        free_ports([("192.0.2.1", 0)])


def test_plan_gives_each_process_its_place():
    made = plan(FleetRequest(workers=3, keys=("a", "b"), settings={"NEUROGATE_MODEL": "m"}), http_port=0, threads=2)

    gateway, workers = made.gateway.environment, [worker.environment for worker in made.workers]
    assert gateway["WORKER_ADDRESSES"] == ",".join(f"127.0.0.1:{worker['GRPC_PORT']}" for worker in workers)
    assert gateway["API_KEYS"] == "a,b"
    assert made.url == f"http://127.0.0.1:{gateway['HTTP_PORT']}"
    assert [worker["NEUROGATE_WORKER_ID"] for worker in workers] == ["worker-0", "worker-1", "worker-2"]
    assert {worker["NEUROGATE_ENGINE_THREADS"] for worker in workers} == {"2"}
    assert {worker["NEUROGATE_MODEL"] for worker in workers} == {"m"}
    assert len({port for _, port in made.listeners}) == 10


def test_plan_without_keys_leaves_the_environment_in_charge():
    made = plan(FleetRequest(workers=1, host="0.0.0.0"), http_port=0, threads=None)

    assert "API_KEYS" not in made.gateway.environment
    assert "NEUROGATE_ENGINE_THREADS" not in made.workers[0].environment
    assert made.url.startswith("http://127.0.0.1:"), "an address that a client can use"


@pytest.mark.skipif(not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")
def test_plan_on_ipv6_has_a_url_with_brackets():
    assert plan(FleetRequest(workers=1, host="::1"), http_port=0, threads=1).url.startswith("http://[::1]:")


@pytest.mark.parametrize(("cores", "workers", "threads"), [(8, 3, 2), (2, 3, 1), (16, 1, 16)])
def test_cores_are_shared_fairly(cores, workers, threads):
    assert fair_threads(cores, workers) == threads


def test_runs_of_long_ago_are_removed(tmp_path):
    settings = StateSettings(state_home=str(tmp_path))
    first = new_run_directory(settings)
    os.utime(first, (0, 0))

    later = [new_run_directory(settings) for _ in range(10)]

    assert not first.exists()
    assert all(path.exists() for path in later)
    assert first.parent == tmp_path / "neurogate" / "runs"


def test_run_directory_of_a_user_with_a_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))

    assert tmp_path / ".local" / "state" in new_run_directory(load(StateSettings, environ={})).parents


def test_run_directory_is_temporary_without_a_home(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    made = new_run_directory(StateSettings(state_home="/dev/null"))

    assert made.parent == tmp_path


def test_tail_is_the_end_of_a_log(tmp_path):
    log = tmp_path / "log"
    log.write_text("\n".join(str(line) for line in range(100_000)))

    assert tail(log, 2) == "    99998\n    99999"
    assert tail(tmp_path / "none") == "    (its log is empty)"

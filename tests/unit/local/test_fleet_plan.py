"""Ports and settings of a fleet are chosen before anything starts."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from neurogate.config import load
from neurogate.config.layers import Source
from neurogate.gateway.settings import GatewayConfig
from neurogate.local.plan import FleetPlan, FleetRequest, fair_threads, plan
from neurogate.local.ports import PortError, Wanted, free_ports, is_free
from neurogate.local.run_directory import StateSettings, new_run_directory, tail
from neurogate.worker.settings import WorkerConfig

HOST = "127.0.0.1"


def planned(
    environ: dict[str, str] | None = None, *, file: str = "", workers: int = 2, threads: int | None = None, **request
) -> FleetPlan:
    """The plan of a fleet whose HTTP port is any, unless it is set."""
    asked = FleetRequest(workers=workers, **request)
    sources = [
        Source(
            bundle,
            path=file,
            environ=environ or {"HTTP_PORT": "0"},
            flags=asked.flags,
            others=(GatewayConfig, WorkerConfig),
        )
        for bundle in (GatewayConfig, WorkerConfig)
    ]
    gateway, worker = (source.read() for source in sources)
    return plan(asked, gateway=gateway, worker=worker, threads=threads)


def row_of_free_ports(count: int) -> int:
    """The first of so many free ports in a row."""
    return next(
        first for first in range(20_000, 30_000, count) if all(is_free(HOST, first + index) for index in range(count))
    )


@pytest.fixture
def taken():
    """A listener on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_wanted_port_is_taken_when_it_is_free(taken):
    assert not is_free("127.0.0.1", taken)
    (near,) = free_ports([Wanted(HOST, taken)])

    assert near != taken
    assert is_free("127.0.0.1", near)
    assert free_ports([Wanted(HOST, near)]) == [near]


def test_ports_are_all_different(taken):
    ports = free_ports([Wanted(HOST, taken)] * 5 + [Wanted(HOST, 0)] * 5)

    assert len(set(ports)) == 10


def test_any_port_is_better_than_none():
    assert 0 < free_ports([Wanted(HOST, 65535), Wanted(HOST, 65535)])[1] < 65535


def test_address_of_another_machine_is_told():
    with pytest.raises(PortError, match=r"no port is free on 192\.0\.2\.1"):
        free_ports([Wanted("192.0.2.1", 0)])


def test_port_that_was_asked_for_and_is_taken_is_an_error(taken):
    with pytest.raises(PortError, match=rf"HTTP_PORT \(env\): cannot listen on 127\.0\.0\.1:{taken}: Address already"):
        free_ports([Wanted(HOST, taken, "HTTP_PORT (env)")])


def test_port_beyond_the_last_is_told():
    with pytest.raises(PortError, match=r"GRPC_PORT: cannot listen on 127\.0\.0\.1:65536: there is no such port"):
        free_ports([Wanted(HOST, 65536, "GRPC_PORT")])


def test_usual_port_makes_way_for_the_one_that_was_asked_for():
    port = row_of_free_ports(2)

    usual, asked, off = free_ports([Wanted(HOST, port), Wanted(HOST, port, "HTTP_PORT"), Wanted(HOST, -1, "OFF")])

    assert (asked, off) == (port, -1)
    assert usual not in {asked, off}


def test_plan_gives_each_process_its_place():
    made = planned(workers=3, keys=("a", "b"), settings={"NEUROGATE_MODEL": "m"}, threads=2)

    gateway, workers = made.gateway.environment, [worker.environment for worker in made.workers]
    assert gateway["WORKER_ADDRESSES"] == ",".join(f"127.0.0.1:{worker['GRPC_PORT']}" for worker in workers)
    assert gateway["API_KEYS"] == "a,b"
    assert made.url == f"http://127.0.0.1:{gateway['HTTP_PORT']}"
    assert [worker["NEUROGATE_WORKER_ID"] for worker in workers] == ["worker-0", "worker-1", "worker-2"]
    assert {worker["NEUROGATE_ENGINE_THREADS"] for worker in workers} == {"2"}
    assert {worker["NEUROGATE_MODEL"] for worker in workers} == {"m"}
    assert len({port for _, port in made.listeners}) == 10


def test_plan_without_keys_leaves_the_environment_in_charge():
    made = planned(workers=1, settings={"NEUROGATE_HOST": "0.0.0.0"})

    assert "API_KEYS" not in made.gateway.environment
    assert "NEUROGATE_ENGINE_THREADS" not in made.workers[0].environment
    assert made.url.startswith("http://127.0.0.1:"), "an address that a client can use"


@pytest.mark.skipif(not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")
def test_plan_on_ipv6_has_a_url_with_brackets():
    assert planned(workers=1, settings={"NEUROGATE_HOST": "::1"}).url.startswith("http://[::1]:")


def test_ports_that_are_set_are_used():
    first = row_of_free_ports(12)
    names = ("HTTP_PORT", "METRICS_PORT", "PORT_HEALTH", "NEUROGATE_GRPC_PORT")
    environ = {name: str(first + index) for index, name in enumerate(names)} | {"GRPC_PORT": str(first + 9)}
    environ["METRICS_PORT"] = str(first + 5)

    made = planned(environ)

    assert {name: made.gateway.environment[name] for name in names} == {name: environ[name] for name in names}
    assert made.gateway.ops_url == f"http://127.0.0.1:{first + 5}"
    assert [worker.address for worker in made.workers] == [f"{HOST}:{first + 9}", f"{HOST}:{first + 10}"]
    assert [worker.ops_url for worker in made.workers] == [f"http://{HOST}:{first + 6}", f"http://{HOST}:{first + 7}"]


def test_any_ports_may_be_asked_for():
    names = ("HTTP_PORT", "METRICS_PORT", "PORT_HEALTH", "NEUROGATE_GRPC_PORT", "GRPC_PORT")

    made = planned(dict.fromkeys(names, "0"))

    assert all(port > 0 for _, port in made.listeners)
    assert len({port for _, port in made.listeners}) == 8


def test_listeners_that_are_off_stay_off():
    made = planned({"HTTP_PORT": "0", "PORT_HEALTH": "-1", "NEUROGATE_GRPC_PORT": "-1"}, workers=1)

    assert (made.gateway.environment["PORT_HEALTH"], made.gateway.environment["NEUROGATE_GRPC_PORT"]) == ("-1", "-1")
    assert (made.grpc_address, made.grpc_tls_address) == ("", "")
    assert len(made.listeners) == 4


@pytest.mark.parametrize("name", ["HTTP_PORT", "METRICS_PORT", "PORT_HEALTH", "NEUROGATE_GRPC_PORT", "GRPC_PORT"])
def test_port_that_is_set_and_taken_is_an_error_that_names_it(taken, name):
    with pytest.raises(PortError, match=rf"^{name} \(env {name}\).*: cannot listen on 127\.0\.0\.1:{taken}: "):
        planned({"HTTP_PORT": "0", name: str(taken)})


def test_flag_counts_more_than_the_environment():
    first = row_of_free_ports(2)

    made = planned({"HTTP_PORT": str(first)}, settings={"HTTP_PORT": str(first + 1)})

    assert made.url == f"http://127.0.0.1:{first + 1}"


@pytest.mark.parametrize("name", ["fleet.yaml", "fleet.toml"])
def test_file_has_ports_for_gateway_and_workers_apart(tmp_path, name):
    first, file = row_of_free_ports(4), tmp_path / name
    keys = {"gateway": ("metrics_port", first), "worker": ("metrics_port", first + 2)}
    form = "{0}: {{{1}: {2}}}\n" if name.endswith("yaml") else "[{0}]\n{1} = {2}\n"
    file.write_text("".join(form.format(section, *key) for section, key in keys.items()))

    made = planned(file=str(file))

    assert made.gateway.ops_url == f"http://127.0.0.1:{first}"
    assert [worker.ops_url for worker in made.workers] == [f"http://{HOST}:{first + 2}", f"http://{HOST}:{first + 3}"]


@pytest.mark.parametrize(
    ("settings", "url", "https_url"),
    [
        ({}, "http", ""),
        ({"NEUROGATE_TLS_CERT": "c", "NEUROGATE_TLS_KEY": "k"}, "https", ""),
        ({"NEUROGATE_TLS_CERT": "c", "NEUROGATE_TLS_KEY": "k", "NEUROGATE_HTTPS_PORT": "0"}, "http", "https"),
    ],
)
def test_certificate_makes_the_gateway_https(settings, url, https_url):
    made = planned({"HTTP_PORT": "0", **settings}, workers=1)

    assert made.url == f"{url}://127.0.0.1:{made.gateway.environment['HTTP_PORT']}"
    assert made.https_url.partition(":")[0] == https_url
    assert bool(made.grpc_tls_address) is bool(settings)
    assert made.gateway.ops_url.startswith("http://")


def test_host_that_is_set_is_the_gateways():
    made = planned({"HTTP_PORT": "0", "NEUROGATE_HOST": "localhost"}, workers=1)

    assert made.url.startswith("http://localhost:")
    assert made.workers[0].environment["NEUROGATE_WORKER_HOST"] == HOST


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

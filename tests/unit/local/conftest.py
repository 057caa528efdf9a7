"""Fleets of fake processes."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

import fake_fleet
from neurogate.gateway.settings import GatewayConfig
from neurogate.local import processes
from neurogate.local.fleet import Fleet
from neurogate.local.plan import FleetRequest, plan
from neurogate.local.ports import is_free
from neurogate.local.prepare import Prepared
from neurogate.local.sources import source
from neurogate.worker.settings import WorkerConfig

KEY = "neurogate-secret-key-1"
ANY_PORTS = dict.fromkeys(("HTTP_PORT", "METRICS_PORT", "PORT_HEALTH", "NEUROGATE_GRPC_PORT", "GRPC_PORT"), "0")
"""The usual ones are wanted by other files' fleets, which run at the same time."""
FAKE_COMMAND = (sys.executable, str(fake_fleet.SCRIPT))


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    """Two workers on any free ports."""
    request = FleetRequest(workers=2, keys=(KEY,), settings=ANY_PORTS)
    gateway, worker = source(GatewayConfig, request.flags).read(), source(WorkerConfig, request.settings).read()
    return Prepared(
        plan=plan(request, gateway=gateway, worker=worker, threads=1),
        directory=tmp_path,
        gateway=gateway.config,
        engine="fake",
        model="none",
    )


@pytest.fixture
def make_fleet(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fleet]:
    """A fleet of fakes that behave as told."""

    def make(*, grace_s: float = 10, lacking: str = "", **behaviours: str) -> Fleet:
        monkeypatch.setenv("FAKE", ",".join(f"{name.replace('_', '-')}={how}" for name, how in behaviours.items()))
        return Fleet(prepared.plan, prepared.directory, grace_s=grace_s, command=FAKE_COMMAND, lacking=lambda: lacking)

    return make


@pytest.fixture
def console() -> Console:
    """A console whose output is in `console.file`."""
    return Console(file=io.StringIO(), width=200, soft_wrap=True, highlight=False)


@pytest.fixture
def nothing_left() -> Callable[[Fleet], None]:
    """Asserts that a fleet left neither a process nor a listener."""

    def check(fleet: Fleet) -> None:
        assert processes.marked(fleet.name) == {}
        assert all(child.ending is not None for child in fleet.children if child.pid)
        assert all(is_free(host, port) for host, port in fleet.plan.listeners)

    return check

"""The ops port: metrics, health and readiness for whoever restarts and routes."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry, Counter

from neurogate.telemetry import ops
from neurogate.testing.connections import FakeClient


def ask(path: str, *, well: bool = True, ready: bool = True, method: str = "GET") -> FakeClient:
    registry = CollectorRegistry()
    Counter("things_total", "Things.", registry=registry).inc(3)
    app = ops.build_app(registry, health=lambda: (well, {"status": "so"}), ready=lambda: (ready, {"ready": ready}))
    return asyncio.run(_ask(app, path, method))


async def _ask(app: object, path: str, method: str) -> FakeClient:
    return await FakeClient(path, method=method).ask(app)  # type: ignore[arg-type]


def test_metrics_are_what_prometheus_reads() -> None:
    client = ask("/metrics")
    assert client.status == 200
    assert client.headers["content-type"].startswith("text/plain; version=")
    assert client.headers["cache-control"] == "no-store"
    assert b"things_total 3.0" in client.body


@pytest.mark.parametrize("path", ["/health", "/ready"])
@pytest.mark.parametrize(("well", "status"), [(True, 200), (False, 503)])
def test_health_and_readiness_answer_by_status(path: str, well: bool, status: int) -> None:
    client = ask(path, well=well, ready=well)
    assert client.status == status
    assert client.headers["content-type"] == "application/json"
    assert client.json() == ({"status": "so"} if path == "/health" else {"ready": well})


def test_health_and_readiness_are_two_things() -> None:
    """A process that drains is alive."""
    assert ask("/health", ready=False).status == 200
    assert ask("/ready", ready=False).status == 503


def test_ping_checks_nothing() -> None:
    client = ask("/ping", well=False, ready=False)
    assert (client.status, client.body) == (200, b"")


@pytest.mark.parametrize(("path", "method", "status"), [("/nothing", "GET", 404), ("/metrics", "POST", 405)])
def test_there_is_nothing_else(path: str, method: str, status: int) -> None:
    assert ask(path, method=method).status == status

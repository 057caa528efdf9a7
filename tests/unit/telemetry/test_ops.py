"""The ops port: metrics, health and readiness for whoever restarts and routes."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry, Counter

from neurogate.telemetry import ops
from neurogate.testing.connections import FakeClient


def ask(
    path: str, *, well: bool = True, ready: bool = True, method: str = "GET", accept: tuple[str, ...] = ()
) -> FakeClient:
    registry = CollectorRegistry()
    Counter("things_total", "Things.", registry=registry).inc(3)
    app = ops.build_app(
        registry,
        health=lambda: (well, {"status": "so"}),
        ready=lambda: (ready, {"ready": ready}),
        vitals=lambda: {"uptime_seconds": 7},
    )
    client = FakeClient(path, method=method, headers=[("accept", each) for each in accept])
    return asyncio.run(client.ask(app))


def test_metrics_are_what_prometheus_reads() -> None:
    client = ask("/metrics")
    assert client.status == 200
    assert client.headers["content-type"].startswith("text/plain; version=")
    assert client.headers["cache-control"] == "no-store"
    assert b"things_total 3.0" in client.body


@pytest.mark.parametrize(
    ("accept", "json"),
    [
        ((), False),
        (("",), False),
        (("*/*",), False),
        (("application/json",), True),
        (("Application/JSON; charset=utf-8",), True),
        (("application/json, */*",), True),
        (("application/json;q=0.9, text/plain;q=0.5",), True),
        (("application/json, text/plain, */*",), False),
        (("application/json;q=0.5, */*",), False),
        (("application/json;q=0.5, application/*;q=0.8",), False),
        (("text/plain", "application/json;q=0.2"), False),
        (("text/plain;q=0.2", "application/json"), True),
        (("application/json;q=0",), False),
        (("application/json;q=much",), False),
        (("application/*",), False),
        (("text/html, application/xhtml+xml, */*;q=0.8",), False),
        # Prometheus 2 and 3
        (("application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",), False),
        (("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;q=0.3,*/*;q=0.2",), False),
    ],
)
def test_who_names_json_gets_vitals_and_everybody_else_metrics(accept: tuple[str, ...], *, json: bool) -> None:
    client = ask("/metrics", accept=accept)
    assert (client.status, client.headers["vary"], client.headers["cache-control"]) == (200, "Accept", "no-store")
    assert (client.body == b'{"uptime_seconds":7,"tasks":1}') == json
    assert client.headers["content-type"] == "application/json" or not json


@pytest.mark.parametrize("accept", [(), ("application/json",), ("text/plain",)])
def test_two_paths_say_one_thing_each_whatever_is_asked_for(accept: tuple[str, ...]) -> None:
    told, shown = ask("/vitals", accept=accept), ask("/telemetry", accept=accept)
    assert (told.json(), told.headers["content-type"]) == (
        {"uptime_seconds": 7, "tasks": 1},
        "application/json",
    )
    assert shown.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b"things_total 3.0" in shown.body
    assert {told.headers["cache-control"], shown.headers["cache-control"]} == {"no-store"}


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


def test_a_path_with_a_slash_too_many_is_led_nowhere() -> None:
    """The address to go to would be made from whatever the client calls the host."""
    client = ask("/health/")
    assert client.status == 404
    assert "location" not in client.headers

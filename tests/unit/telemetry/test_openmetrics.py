"""`/metrics` in the format that is asked for, and what is done before it is told."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry, Counter

from neurogate.telemetry import ops
from neurogate.testing.connections import FakeClient

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def ask(path: str, accept: str, refreshed: list[str] | None = None) -> FakeClient:
    registry = CollectorRegistry()
    Counter("things_total", "Things.", registry=registry).inc(3)

    async def refresh() -> None:
        if refreshed is not None:
            refreshed.append(path)

    app = ops.build_app(
        registry,
        health=lambda: (True, {}),
        ready=lambda: (True, {}),
        vitals=lambda: {"uptime_seconds": 7},
        refresh=refresh if refreshed is not None else None,
    )
    return asyncio.run(FakeClient(path, method="GET", headers=[("accept", accept)]).ask(app))


@pytest.mark.parametrize(
    ("accept", "modern"),
    [
        # Prometheus 2 and 3
        ("application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", True),
        ("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;q=0.3,*/*;q=0.2", True),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;q=0.2, text/plain", False),
        ("application/openmetrics-text;q=0", False),
        ("text/plain;version=0.0.4", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_who_prefers_openmetrics_gets_it(accept: str, *, modern: bool) -> None:
    client = ask("/metrics", accept)
    assert (client.headers["content-type"] == OPENMETRICS) is modern
    assert client.body.endswith(b"# EOF\n") is modern
    assert b"things_total 3.0" in client.body


def test_the_other_path_stays_what_it_is() -> None:
    assert ask("/telemetry", "application/openmetrics-text").headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(("path", "times"), [("/metrics", 1), ("/telemetry", 1), ("/vitals", 0), ("/health", 0)])
def test_what_is_outside_is_asked_before_metrics_are_told(path: str, times: int) -> None:
    refreshed: list[str] = []
    assert ask(path, "text/plain", refreshed).status == 200
    assert len(refreshed) == times

"""The gateway's metrics, and the observer that feeds them and the log."""

from __future__ import annotations

import pytest
from prometheus_client import generate_latest
from structlog.testing import capture_logs

from neurogate.dataplane.state import WorkerState
from neurogate.gateway.metrics import GatewayMetrics
from neurogate.gateway.observer import FleetObserver

State = WorkerState


def value(metrics: GatewayMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"neurogate_gateway_{name}", labels)


def test_the_names_of_the_first_neurogate_hold() -> None:
    """Dashboards ask for them."""
    shown = generate_latest(GatewayMetrics().registry).decode()
    for name in (
        "requests_total",
        "request_duration_seconds",
        "time_to_first_byte_seconds",
        "active_requests",
        "retries_total",
        "tokens_total",
        "broken_streams_total",
        "slow_clients_total",
    ):
        assert f"# TYPE neurogate_gateway_{name} " in shown


def test_requests_count_by_path_and_status() -> None:
    metrics = GatewayMetrics()
    for status in (200, 200, 503):
        metrics.request("POST", "/prompt", status, 0.25)
    labels = {"method": "POST", "path": "/prompt"}
    assert value(metrics, "requests_total", **labels, status="200") == 2
    assert value(metrics, "requests_total", **labels, status="503") == 1
    assert value(metrics, "request_duration_seconds_sum", **labels) == 0.75
    assert value(metrics, "request_duration_seconds_count", **labels) == 3


def test_lost_lines_of_the_access_log_are_counted() -> None:
    metrics = GatewayMetrics()
    metrics.log_lines_lost(3)
    metrics.log_lines_lost(1)
    assert value(metrics, "access_log_lost_lines_total") == 4


def test_tokens_count_by_kind() -> None:
    metrics = GatewayMetrics()
    metrics.usage(3, 5)
    metrics.usage(1, 0)
    assert value(metrics, "tokens_total", kind="prompt") == 4
    assert value(metrics, "tokens_total", kind="completion") == 5


def test_every_move_of_a_breaker_counts() -> None:
    metrics = GatewayMetrics()
    for state in ("open", "half-open", "open"):
        FleetObserver(metrics).breaker_changed("worker-0", state)
    assert value(metrics, "circuit_breaker_transitions_total", worker="worker-0", to="open") == 2


def test_retries_count_by_worker_and_reason() -> None:
    metrics = GatewayMetrics()
    observer = FleetObserver(metrics)
    observer.retried("worker-0", "link_lost")
    assert value(metrics, "retries_total", worker="worker-0", reason="link_lost") == 1


def logged(*states: WorkerState) -> list[tuple[str, str]]:
    """(state, level) of the lines that a worker makes that goes through these states."""
    observer = FleetObserver(GatewayMetrics())
    with capture_logs() as logs:
        for state in states:
            observer.state_changed("worker-0", state, "why")
    assert all((log["event"], log["worker"], log["detail"]) == ("worker", "worker-0", "why") for log in logs)
    return [(log["state"], log["log_level"]) for log in logs]


@pytest.mark.parametrize("state", [State.UNREACHABLE, State.NOT_READY, State.OPEN, State.EJECTED])
def test_trouble_is_a_warning(state: WorkerState) -> None:
    assert logged(State.READY, state, State.READY) == [("ready", "info"), (state, "warning"), ("ready", "info")]


def test_what_is_meant_is_no_trouble() -> None:
    """A worker that starts, is restarted as it had said, and is cordoned."""
    states = (State.NOT_READY, State.READY, State.DRAINING, State.UNREACHABLE, State.READY, State.CORDONED)
    assert logged(*states) == [(state, "info") for state in states]


def test_a_moments_rest_is_no_news() -> None:
    assert logged(State.READY, State.RESTING, State.READY)[1:] == [("resting", "debug"), ("ready", "debug")]


def test_a_breaker_that_stays_open_is_logged_once() -> None:
    """Probes that fail again and again are in the metrics, not in the log."""
    states = [State.READY, *[State.OPEN, State.HALF_OPEN] * 3, State.READY, State.OPEN]
    assert logged(*states) == [("ready", "info"), ("open", "warning"), ("ready", "info"), ("open", "warning")]


def test_workers_come_and_go_in_the_log_and_one_of_the_same_name_starts_anew() -> None:
    observer = FleetObserver(GatewayMetrics())
    with capture_logs() as logs:
        for _ in range(2):
            observer.worker_changed("worker-0", "added", "host:1")
            observer.state_changed("worker-0", State.OPEN, "")
            observer.worker_changed("worker-0", "removed", "")
    assert [log["event"] for log in logs] == ["worker added", "worker", "worker removed"] * 2


def test_a_worker_has_one_series_per_state_as_long_as_it_is_there() -> None:
    metrics, states = GatewayMetrics(), {"worker-0": State.RESTING}
    metrics.show_states(lambda: states)

    def shown(worker: str) -> list[tuple[str, float | None]]:
        found = [
            (state, metrics.registry.get_sample_value("neurogate_worker_state", {"worker": worker, "state": state}))
            for state in WorkerState
        ]
        return [(state, value) for state, value in found if value != 0]

    assert shown("worker-0") == [("resting", 1)]
    states["worker-0"] = State.READY
    assert shown("worker-0") == [("ready", 1)]
    del states["worker-0"]
    assert shown("worker-0") == [(state, None) for state in WorkerState]

"""What a gateway logs and counts of its sources of workers."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from neurogate.gateway.discovery import DiscoveryLog

SOURCE = "dns:workers:50051"


class Heard:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.log = DiscoveryLog(self.registry)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"neurogate_gateway_discovery_{name}", {"source": SOURCE, **labels})


def test_a_line_is_written_when_something_changes_and_every_answer_is_counted():
    heard = Heard()
    with capture_logs() as logs:
        for _ in range(3):
            heard.log.found(SOURCE, 2)
        heard.log.found(SOURCE, 3)
        for reason in ("SERVFAIL", "SERVFAIL", "refused"):
            heard.log.failed(SOURCE, reason)
        assert (heard.value("up"), heard.value("workers")) == (0, 3)
        heard.log.found(SOURCE, 3)
    assert [(log["log_level"], log["workers"], log.get("reason", log.get("after"))) for log in logs] == [
        ("info", 2, None),
        ("info", 3, None),
        ("warning", 3, "SERVFAIL"),
        ("warning", 3, "refused"),
        ("info", 3, "refused"),
    ]
    assert (heard.value("up"), heard.value("workers")) == (1, 3)
    assert heard.value("answers_total", outcome="found") == 5
    assert heard.value("answers_total", outcome="failed") == 3


def test_a_reason_that_differs_in_figures_alone_is_the_same():
    heard = Heard()
    with capture_logs() as logs:
        for reason in ("gave up after 5.403 s", "gave up after 5.41 s", "refused after 5.41 s", "502", "503"):
            heard.log.failed(SOURCE, reason)
    assert [log["reason"] for log in logs] == ["gave up after 5.403 s", "refused after 5.41 s", "502"]


def test_a_fault_of_the_program_is_logged_with_its_traceback_once_for_each_reason():
    heard = Heard()
    errors = [ValueError("one"), ValueError("one"), ValueError("two")]
    with capture_logs() as logs:
        for error in errors:
            heard.log.broke(SOURCE, error)
    assert [(log["log_level"], log["exc_info"]) for log in logs] == [("error", errors[0]), ("error", errors[2])]
    assert heard.value("up") == 0
    assert heard.value("answers_total", outcome="failed") == 3


def test_a_source_that_is_not_asked_any_more_has_no_series():
    heard = Heard()

    def series() -> list[str]:
        return [sample.name for metric in heard.registry.collect() for sample in metric.samples]

    heard.log.found(SOURCE, 2)
    heard.log.failed(SOURCE, "SERVFAIL")
    assert len(series()) >= 4
    heard.log.forgotten(SOURCE)
    assert series() == []
    heard.log.failed(SOURCE, "SERVFAIL")
    heard.log.forgotten(SOURCE)
    heard.log.forgotten("dns:never:1")
    assert series() == []

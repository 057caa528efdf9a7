"""What every process tells of itself."""

from __future__ import annotations

import asyncio
import logging
import platform
from collections.abc import Iterator

import pytest
import structlog

from neurogate import __version__
from neurogate.telemetry import logging as neurogate_logging
from neurogate.telemetry.process_metrics import LogLines, ProcessMetrics
from neurogate.virtual_time import run


@pytest.fixture
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before, handlers, level, raises = structlog.get_config(), root.handlers[:], root.level, logging.raiseExceptions
    yield
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()
    root.handlers[:], logging.raiseExceptions = handlers, raises
    root.setLevel(level)


def test_a_process_says_what_it_is() -> None:
    labels = {"process": "worker", "version": __version__, "python": platform.python_version()}
    assert ProcessMetrics("worker").registry.get_sample_value("neurogate_build_info", labels) == 1


@pytest.mark.usefixtures("_logging_as_before")
def test_lines_are_counted_by_level_whoever_writes_them() -> None:
    lines = LogLines()
    metrics = ProcessMetrics("gateway", lines)
    neurogate_logging.configure(level="info", form="json", process="gateway", count=lines)
    structlog.get_logger().info("one")
    structlog.get_logger().debug("not logged, so not counted")
    logging.getLogger("a.library").warning("two")
    logging.getLogger("a.library").warning("three")

    counted = {
        level: metrics.registry.get_sample_value("neurogate_log_lines_total", {"level": level})
        for level in ("debug", "info", "warning", "error", "critical")
    }
    assert counted == {"debug": 0, "info": 1, "warning": 2, "error": 0, "critical": 0}


def test_a_line_without_a_level_of_ours_is_handed_on() -> None:
    lines = LogLines()
    assert lines(None, "", {"level": "odd", "event": "x"}) == {"level": "odd", "event": "x"}
    assert sum(lines.by_level.values()) == 0


def test_lost_spans_add_up() -> None:
    metrics = ProcessMetrics("gateway")
    metrics.spans_lost(3)
    metrics.spans_lost(1)
    assert metrics.registry.get_sample_value("neurogate_spans_lost_total") == 4


def test_the_loops_lateness_is_looked_at_four_times_a_second() -> None:
    """A callback that takes long makes the loop late by as much."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        metrics = ProcessMetrics("gateway")
        late = [0.0]
        task = asyncio.ensure_future(metrics.watch_loop(lambda: loop.time() + late[0]))
        await asyncio.sleep(0.6)
        late[0] = 0.2
        await asyncio.sleep(0.25)
        task.cancel()
        await asyncio.wait([task])
        count = metrics.registry.get_sample_value("neurogate_event_loop_lag_seconds_count")
        total = metrics.registry.get_sample_value("neurogate_event_loop_lag_seconds_sum")
        assert count == 3
        assert total == pytest.approx(0.2)

    run(main())

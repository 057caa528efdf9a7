"""Spans of the worker."""

from __future__ import annotations

import io
import json
import subprocess
import sys

from neurogate.telemetry import tracing

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_span_is_a_child_of_the_callers_context() -> None:
    out = io.StringIO()
    span_of = tracing.to_console("neurogate-worker", out=out)

    with span_of("/prompt", PARENT, "req-1", resumed=False) as ended:
        ended("answered")

    span = json.loads(out.getvalue())
    assert span["name"] == "call /prompt"
    assert span["context"]["trace_id"] == "0x0af7651916cd43dd8448eb211c80319c"
    assert span["parent_id"] == "0xb7ad6b7169203331"
    assert span["attributes"]["neurogate.request_id"] == "req-1"
    assert span["attributes"]["neurogate.end"] == "answered"
    assert "neurogate.resumed" not in span["attributes"]
    assert span["resource"]["attributes"]["service.name"] == "neurogate-worker"


def test_span_of_a_continued_answer_says_so() -> None:
    out = io.StringIO()

    with tracing.to_console("neurogate-worker", out=out)("/prompt", PARENT, "req-1", resumed=True):
        pass

    span = json.loads(out.getvalue())
    assert span["attributes"]["neurogate.resumed"] is True
    assert (span["context"]["trace_id"], span["parent_id"]) == (
        "0x0af7651916cd43dd8448eb211c80319c",
        "0xb7ad6b7169203331",
    )


def test_span_without_a_context_begins_a_trace() -> None:
    out = io.StringIO()

    with tracing.to_console("neurogate-worker", out=out)("/prompt", "", "req-2", resumed=False):
        pass

    assert json.loads(out.getvalue())["parent_id"] is None


def test_traces_off_import_nothing_of_opentelemetry() -> None:
    code = (
        "import sys; from neurogate.telemetry import tracing\n"
        "with tracing.off('/prompt', '', 'r', resumed=False) as ended: ended('answered')\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

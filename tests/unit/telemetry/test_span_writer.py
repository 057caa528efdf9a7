"""Spans go to their receiver without anybody waiting; what is lost is counted, and said once."""

from __future__ import annotations

import io
import json
import logging
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from neurogate.telemetry import otel
from neurogate.telemetry.otel import ConsoleExporter, OtlpExporter, poster, resource
from neurogate.telemetry.otlp_headers import parse_headers
from neurogate.telemetry.settings import TraceSettings, trace_problems
from neurogate.telemetry.span_writer import SpanWriter
from neurogate.telemetry.spans import Event, Kind, Span
from neurogate.telemetry.traces import Traces
from otlp_receiver import OtlpReceiver
from trace_support import CALLER_SPAN, TRACE_ID, WALL_NS


def span(name: str = "x", **changes: Any) -> Span:
    fields: dict[str, Any] = {
        "name": name,
        "kind": Kind.CLIENT,
        "trace_id": TRACE_ID,
        "span_id": "00f067aa0ba902b7",
        "parent_id": CALLER_SPAN,
        "start_ns": WALL_NS,
        "end_ns": WALL_NS + 5,
        "attributes": {"tokens": 7, "reasons": ("stop",)},
        **changes,
    }
    return Span(**fields)


class Exporter:
    """A `SpanExporter` in memory; with a gate, it waits there."""

    def __init__(self, *answers: str, gate: threading.Event | None = None) -> None:
        self.batches: list[list[str]] = []
        self.closed = 0
        self.entered = threading.Event()
        self._answers = list(answers)
        self._gate = gate

    def export(self, spans: Sequence[Span]) -> str:
        self.entered.set()
        if self._gate is not None:
            self._gate.wait(10)
        self.batches.append([span.name for span in spans])
        return self._answers.pop(0) if self._answers else ""

    def close(self) -> None:
        self.closed += 1


def events(logs: Sequence[Any]) -> list[str]:
    return [log["event"] for log in logs]


def ended(writer: SpanWriter) -> bool:
    return not writer._thread.is_alive()


def test_what_waits_is_exported_before_the_end() -> None:
    lost: list[int] = []
    exporter = Exporter()
    writer = SpanWriter(exporter, on_loss=lost.append, gather_s=60)
    writer.start()
    writer.put([span("a"), span("b")])
    assert repr(writer) == "<SpanWriter [2 waiting, 0 lost]>"
    writer.close()
    assert ([name for batch in exporter.batches for name in batch], lost, exporter.closed) == (["a", "b"], [], 1)
    assert ended(writer)


def test_a_full_batch_does_not_wait_for_more() -> None:
    exporter = Exporter()
    writer = SpanWriter(exporter, on_loss=lambda _: None, gather_s=60)
    writer.start()
    writer.put([span()] * 600)
    assert exporter.entered.wait(10)
    writer.close()
    assert [len(batch) for batch in exporter.batches] == [512, 88]


def test_a_receiver_that_refuses_costs_spans_and_is_told_of_once() -> None:
    lost: list[int] = []
    exporter = Exporter("no", "no", "")
    writer = SpanWriter(exporter, on_loss=lost.append)
    with capture_logs() as logs:
        for count in (2, 3, 1):
            writer.put([span()] * count)
            writer._export_all()
    assert (lost, writer.lost) == ([2, 3], 5)
    assert events(logs) == ["spans are lost: the receiver does not take them", "the receiver takes spans again"]
    assert logs[0]["reason"] == "no"


class Faulty(Exporter):
    """Raises on its first batch."""

    def export(self, spans: Sequence[Span]) -> str:
        if not super().export(spans) and len(self.batches) == 1:
            raise ValueError("boom")
        return ""


def test_an_exporter_that_raises_costs_its_batch_and_not_the_thread() -> None:
    lost: list[int] = []
    exporter = Faulty()
    writer = SpanWriter(exporter, on_loss=lost.append, gather_s=60)
    writer.start()
    with capture_logs() as logs:
        writer.put([span("a")] * 600)  # in two batches
        writer.close()
    assert ([len(batch) for batch in exporter.batches], lost, writer.lost) == ([512, 88], [512], 512)
    assert events(logs) == ["spans are lost: the receiver does not take them", "the receiver takes spans again"]
    assert logs[0]["reason"] == "ValueError: boom"


def test_a_span_that_cannot_be_exported_is_told_of_with_its_fault() -> None:
    lost: list[int] = []
    out = io.StringIO()
    writer = SpanWriter(ConsoleExporter(resource("svc", "host:1"), out), on_loss=lost.append)
    with capture_logs() as logs:
        for trace_id in ("no number", TRACE_ID):
            writer.put([span(trace_id=trace_id)])
            writer._export_all()
    assert (lost, len(out.getvalue().splitlines())) == ([1], 1)
    assert logs[0]["reason"].startswith("ValueError: ")


def test_more_than_there_is_room_for_is_lost_and_told_of_once() -> None:
    lost: list[int] = []
    writer = SpanWriter(Exporter(), on_loss=lost.append, waiting_max=3)
    with capture_logs() as logs:
        for _ in range(4):
            writer.put([span()] * 2)
        writer._export_all()
        writer.put([span()])
    assert (lost, writer.lost) == ([2, 2, 2], 6)
    assert events(logs) == ["spans are lost: the receiver does not keep up", "spans were lost"]


def test_a_receiver_that_hangs_does_not_hold_the_end_up() -> None:
    lost: list[int] = []
    gate = threading.Event()
    exporter = Exporter(gate=gate)
    writer = SpanWriter(exporter, on_loss=lost.append, gather_s=0)
    writer.start()
    writer.put([span()] * 2)
    assert exporter.entered.wait(10)
    writer.put([span()] * 3)
    with capture_logs() as logs:
        writer.close(timeout_s=0.1)
    assert (sum(lost), exporter.closed) == (5, 1)
    assert events(logs) == ["spans are lost: there was no time to export them"]
    gate.set()
    writer._thread.join(10)
    assert ended(writer)


def test_a_writer_that_never_started_ends() -> None:
    lost: list[int] = []
    writer = SpanWriter(Exporter(), on_loss=lost.append)
    writer.put([span()])
    writer.close()
    assert lost == [1]


# OpenTelemetry


@pytest.mark.parametrize("encoder", ["ours", "theirs"])
def test_spans_arrive_as_they_were(encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if encoder == "theirs":
        monkeypatch.setattr(otel, "poster", lambda _: None)
    with OtlpReceiver() as receiver:
        exporter = OtlpExporter(f"{receiver.url}/", {"x-scope": "a"}, resource("svc", "host:1"))
        told = exporter.export([span(events=(Event("first chunk", WALL_NS + 1, {}),)), span("bad", error="it broke")])
        assert exporter.export([span("plain", parent_id="", error="", kind=Kind.INTERNAL)]) == told == ""
        exporter.close()
        good, bad, plain = receiver.spans
        assert repr(exporter) == f"<OtlpExporter {receiver.url}/>"
    assert (good.service, good.trace_id, good.parent_id, good.kind) == ("svc", TRACE_ID, CALLER_SPAN, 3)
    assert (good.start_ns, good.end_ns, good.events) == (WALL_NS, WALL_NS + 5, ("first chunk",))
    assert good.attributes == {"tokens": 7, "reasons": ["stop"]}
    assert (good.failed, bad.failed, bad.message, plain.failed, plain.message) == (False, True, "it broke", True, "")
    assert (plain.parent_id, plain.kind) == ("", 1)
    assert receiver.requests[0]["x-scope"] == "a"


def test_what_the_exporter_is_told_in_its_own_variables_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    with OtlpReceiver() as receiver:
        exporter = OtlpExporter(receiver.url, {}, resource("svc", "host:1"))
        assert exporter.export([span()]) == ""
        exporter.close()
        assert (len(receiver.spans), receiver.requests[0]["content-encoding"]) == (1, "gzip")


def test_the_exporter_sends_bytes_and_nothing_once_it_is_closed() -> None:
    with OtlpReceiver() as receiver:
        exporter = OtlpExporter(receiver.url, {}, resource("svc", "host:1"))
        assert exporter._post is not None, "every span costs five times as much otherwise"
        exporter.close()
        assert exporter.export([span()]) == f"{receiver.url}: it is closed"
        assert receiver.requests == []
    assert poster(object()) is None  # type: ignore[arg-type]


def test_a_refusal_is_told_with_its_reason_and_not_logged() -> None:
    heard: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = heard.append  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        with OtlpReceiver(status=401) as receiver:
            exporter = OtlpExporter(receiver.url, {}, resource("svc", "host:1"))
            why = exporter.export([span()])
            exporter.close()
    finally:
        logging.getLogger().removeHandler(handler)
    assert why.startswith(receiver.url)
    assert "401" in why
    assert heard == []


def test_the_console_has_a_line_for_each_span() -> None:
    out = io.StringIO()
    exporter = ConsoleExporter(resource("svc", "host:1"), out)
    assert exporter.export([span("a"), span("b")]) == ""
    assert [json.loads(line)["name"] for line in out.getvalue().splitlines()] == ["a", "b"]
    out.close()
    assert "closed" in exporter.export([span()])
    exporter.close()


# Settings


@pytest.mark.parametrize(
    ("text", "headers"),
    [
        ("", {}),
        ("a=b", {"a": "b"}),
        (" a = b , x-key=1%202,, ", {"a": "b", "x-key": "1 2"}),
        ("authorization=Basic dXNlcjpw==", {"authorization": "Basic dXNlcjpw=="}),
        ("a", None),
        ("=b", None),
        ("a b=c", None),
        ("a=%0d%0ax", None),
    ],
)
def test_headers_are_read_as_opentelemetry_writes_them(text: str, headers: dict[str, str] | None) -> None:
    assert parse_headers(text) == headers


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        (TraceSettings(otlp_endpoint="nowhere"), []),
        (TraceSettings(traces="otlp"), []),
        (TraceSettings(traces="otlp", otlp_endpoint="https://user:pw@x.example/base"), []),
        (TraceSettings(traces="otlp", otlp_endpoint="collector:4318"), ["tracing.otlp_endpoint"]),
        (TraceSettings(traces="otlp", otlp_endpoint="http://x:port"), ["tracing.otlp_endpoint"]),
        (TraceSettings(traces="otlp", otlp_headers="x"), ["tracing.otlp_headers"]),
    ],
)
def test_a_receiver_that_cannot_be_one_is_named(settings: TraceSettings, wrong: list[str]) -> None:
    assert [key for problem in trace_problems(settings, "tracing") for key in problem.keys] == wrong


def traces(settings: TraceSettings, on_loss: Callable[[int], None] = lambda _: None) -> Traces:
    return Traces(
        settings,
        service="svc",
        instance="host:1",
        on_loss=on_loss,
        rng=random.Random(1),
        now=lambda: 0.0,
        wall_ns=lambda: WALL_NS,
    )


def test_traces_that_are_off_are_nothing() -> None:
    off = traces(TraceSettings())
    off.start()
    off.configure(TraceSettings(ratio=0.5))
    off.close()
    assert (off.tracer, repr(off)) == (None, "<Traces off None>")


def test_traces_that_are_on_arrive_under_the_name_that_the_settings_have() -> None:
    with OtlpReceiver() as receiver:
        on = traces(TraceSettings(traces="otlp", otlp_endpoint=receiver.url, service_name="mine"))
        with capture_logs() as logs:
            on.start()
        assert (events(logs), logs[0]["to"]) == (["requests are traced"], receiver.url)
        on.configure(TraceSettings(ratio=0.5))
        assert on.tracer is not None
        assert on.tracer.ratio == 0.5
        trace = on.tracer.begin(f"00-{TRACE_ID}-{CALLER_SPAN}-01")
        assert trace is not None
        trace.finish("root", kind=Kind.SERVER, attributes={})
        on.close()
        assert [(found.name, found.service) for found in receiver.spans] == [("root", "mine")]


def test_the_console_may_be_where_traces_go(capsys: pytest.CaptureFixture[str]) -> None:
    on = traces(TraceSettings(traces="console"))
    on.start()
    assert on.tracer is not None
    trace = on.tracer.begin("")
    assert trace is not None
    trace.finish("root", kind=Kind.SERVER, attributes={})
    on.close()
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    assert json.loads(line)["resource"]["attributes"]["service.name"] == "svc"

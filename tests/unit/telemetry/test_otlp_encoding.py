"""Our encoding of spans is the one of OpenTelemetry's SDK, message for message."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from neurogate.telemetry.otel import resource, to_sdk
from neurogate.telemetry.otlp_encoding import encode
from neurogate.telemetry.spans import Event, Kind, Span
from trace_support import CALLER_SPAN, TRACE_ID, WALL_NS

MADE_BY = resource("svc", "host:1")


def span(**changes: Any) -> Span:
    fields: dict[str, Any] = {
        "name": "attempt",
        "kind": Kind.CLIENT,
        "trace_id": TRACE_ID,
        "span_id": "00f067aa0ba902b7",
        "parent_id": CALLER_SPAN,
        "start_ns": WALL_NS,
        "end_ns": WALL_NS + 5,
        "attributes": {},
        **changes,
    }
    return Span(**fields)


def sent(*spans: Span) -> ExportTraceServiceRequest:
    return ExportTraceServiceRequest.FromString(encode(spans, MADE_BY.attributes))


@pytest.mark.parametrize(
    "spans",
    [
        [span()],
        [span(parent_id="", kind=Kind.SERVER), span(kind=Kind.INTERNAL)],
        [span(error=""), span(error="it broke: ü")],
        [span(attributes={"text": "ü", "yes": True, "no": False, "n": -7, "zero": 0, "x": 0.5, "nothing": ""})],
        [span(attributes={"reasons": ("stop", "length"), "none": ()})],
        [span(events=(Event("first chunk", WALL_NS + 1, {}), Event("other", WALL_NS + 2, {"a": 1})))],
    ],
    ids=["plain", "first and below", "failed", "values", "lists", "events"],
)
def test_spans_are_encoded_as_the_sdk_does_it(spans: list[Span]) -> None:
    assert sent(*spans) == encode_spans([to_sdk(span, MADE_BY) for span in spans])


@pytest.mark.parametrize("bad", [1 << 63, "\ud800", ("fine", "\ud800"), b"bytes", {"a": 1}, None], ids=repr)
def test_an_attribute_that_cannot_be_told_is_left_out_and_counted(bad: object) -> None:
    event = Event("first chunk", WALL_NS, {"bad": bad})  # type: ignore[dict-item]
    request = sent(span(attributes={"a": 1, "bad": bad, "b": 2}, events=(event,)))
    (told,) = request.resource_spans[0].scope_spans[0].spans
    assert ([pair.key for pair in told.attributes], told.dropped_attributes_count) == (["a", "b"], 1)
    assert (len(told.events[0].attributes), told.events[0].dropped_attributes_count) == (0, 1)


def test_a_reason_that_is_no_unicode_is_told_as_far_as_it_is() -> None:
    (told,) = sent(span(error="it \ud800 broke")).resource_spans[0].scope_spans[0].spans
    assert told.status.message == "it ? broke"


def test_an_id_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        encode([span(trace_id="no number")], {})

"""Spans as OTLP's own bytes, straight from our records.

The SDK's encoder builds each attribute as messages that are copied into one another, by way of objects of its own:
five times the processor time, and that thread shares the interpreter with the event loop. The messages here are filled
where they stand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2

from neurogate import __version__
from neurogate.telemetry.spans import Kind, Span

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

SCOPE = "neurogate"
"""Which part of a process makes the spans, as OTLP names it."""

_KINDS = {
    Kind.INTERNAL: trace_pb2.Span.SPAN_KIND_INTERNAL,
    Kind.SERVER: trace_pb2.Span.SPAN_KIND_SERVER,
    Kind.CLIENT: trace_pb2.Span.SPAN_KIND_CLIENT,
}
_FIRST = trace_pb2.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_BELOW = _FIRST | trace_pb2.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


def encode(spans: Iterable[Span], made_by: Mapping[str, object]) -> bytes:
    """One export request. `made_by` are the attributes of the process. Raises ValueError where an id is none."""
    request = ExportTraceServiceRequest()
    of_process = request.resource_spans.add()
    _fill(of_process.resource.attributes, made_by)
    of_scope = of_process.scope_spans.add()
    of_scope.scope.name, of_scope.scope.version = SCOPE, __version__
    for span in spans:
        _add(of_scope, span)
    return request.SerializeToString()


def _add(into: trace_pb2.ScopeSpans, span: Span) -> None:
    told = into.spans.add(
        trace_id=bytes.fromhex(span.trace_id),
        span_id=bytes.fromhex(span.span_id),
        parent_span_id=bytes.fromhex(span.parent_id),
        name=span.name,
        kind=_KINDS[span.kind],
        start_time_unix_nano=span.start_ns,
        end_time_unix_nano=span.end_ns,
        flags=_BELOW if span.parent_id else _FIRST,
    )
    told.dropped_attributes_count = _fill(told.attributes, span.attributes)
    for event in span.events:
        happened = told.events.add(name=event.name, time_unix_nano=event.at_ns)
        happened.dropped_attributes_count = _fill(happened.attributes, event.attributes)
    if span.error is None:
        told.status.SetInParent()
    else:
        told.status.code = trace_pb2.Status.STATUS_CODE_ERROR
        told.status.message = span.error.encode("utf-8", "replace").decode()


def _fill(into: RepeatedCompositeFieldContainer[KeyValue], attributes: Mapping[str, object]) -> int:
    """Add attributes; gives how many could not be: an integer beyond 64 bits, text that is no Unicode."""
    left_out = 0
    for key, value in attributes.items():
        pair = into.add()
        try:
            pair.key = key
            _set(pair.value, value)
        except (ValueError, TypeError):
            into.pop()
            left_out += 1
    return left_out


def _set(into: AnyValue, value: object) -> None:
    if isinstance(value, str):
        into.string_value = value
    elif isinstance(value, bool):
        into.bool_value = value
    elif isinstance(value, int):
        into.int_value = value
    elif isinstance(value, float):
        into.double_value = value
    elif isinstance(value, tuple | list):
        into.array_value.SetInParent()
        for item in value:
            _set(into.array_value.values.add(), item)
    else:
        raise TypeError(f"an attribute cannot be a {type(value).__name__}")

"""Where spans go: by OTLP over HTTP, or as lines for people. It and `otlp_encoding` alone know OpenTelemetry.

They are imported where traces are on: that takes a tenth of a second, which nobody else should pay.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import TextIO

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from neurogate import __version__
from neurogate.telemetry.otlp_encoding import SCOPE, encode
from neurogate.telemetry.spans import Kind, Span
from neurogate.urls import shown

_KINDS = {Kind.INTERNAL: SpanKind.INTERNAL, Kind.SERVER: SpanKind.SERVER, Kind.CLIENT: SpanKind.CLIENT}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SCOPE = InstrumentationScope(SCOPE, __version__)
_TIMEOUT_S = 10.0
"""OTLP's own default for one export with its retries."""

_EXPORTERS_LOG = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


def resource(service: str, instance: str) -> Resource:
    """Who makes the spans; OTEL_RESOURCE_ATTRIBUTES adds to it."""
    return Resource.create({"service.name": service, "service.version": __version__, "service.instance.id": instance})


class OtlpExporter:
    """A `SpanExporter` that speaks OTLP over HTTP to a collector, Jaeger, Tempo and the like."""

    def __init__(self, endpoint: str, headers: dict[str, str], made_by: Resource) -> None:
        """`endpoint` is the receiver's base URL, as OTEL_EXPORTER_OTLP_ENDPOINT has it."""
        self._shown = shown(endpoint)
        self._resource = made_by
        self._exporter = OTLPSpanExporter(
            endpoint=f"{endpoint.rstrip('/')}/v1/traces", headers=headers, timeout=_TIMEOUT_S
        )
        self._post = poster(self._exporter)
        self._closed = False
        self._said = _LastWords()
        logging.getLogger(_EXPORTERS_LOG).addFilter(self._said)

    def __repr__(self) -> str:
        return f"<OtlpExporter {self._shown}>"

    def export(self, spans: Sequence[Span]) -> str:
        """Send spans, trying again for some seconds."""
        if self._closed:
            return f"{self._shown}: it is closed"
        self._said.text = ""
        if self._post is not None:
            arrived = self._post(encode(spans, self._resource.attributes))
        else:
            sdk_spans = [to_sdk(span, self._resource) for span in spans]
            arrived = self._exporter.export(sdk_spans) is SpanExportResult.SUCCESS
        if arrived:
            return ""
        return f"{self._shown}: {self._said.text or 'no reason given'}"

    def close(self) -> None:
        """Give up what is under way."""
        self._closed = True
        self._exporter.shutdown()  # type: ignore[no-untyped-call]
        logging.getLogger(_EXPORTERS_LOG).removeFilter(self._said)


class ConsoleExporter:
    """A `SpanExporter` that writes JSON, a line a span."""

    def __init__(self, made_by: Resource, out: TextIO | None = None) -> None:
        """`out` is standard error unless given."""
        self._resource = made_by
        self._out = out or sys.stderr

    def export(self, spans: Sequence[Span]) -> str:
        """Write spans."""
        lines = [to_sdk(span, self._resource).to_json(indent=None) + "\n" for span in spans]
        try:
            self._out.write("".join(lines))
            self._out.flush()
        except (OSError, ValueError) as error:
            return str(error)
        return ""

    def close(self) -> None:
        """Nothing: the stream is not ours."""


def poster(exporter: OTLPSpanExporter) -> Callable[[bytes], bool] | None:
    """What sends bytes as the exporter sends its own: its headers, compression, certificates, retries and timeout.

    None where a version of it has no such thing: it takes spans then, and its own time to encode them.
    """
    export = getattr(getattr(exporter, "_client", None), "export", None)
    return (lambda body: bool(export(body).success)) if callable(export) else None


def to_sdk(span: Span, made_by: Resource) -> ReadableSpan:
    """The span as the SDK's exporters take it."""
    trace_id = int(span.trace_id, 16)
    parent = int(span.parent_id, 16) if span.parent_id else 0
    return ReadableSpan(
        name=span.name,
        context=SpanContext(trace_id, int(span.span_id, 16), is_remote=False, trace_flags=_SAMPLED),
        parent=SpanContext(trace_id, parent, is_remote=True, trace_flags=_SAMPLED) if parent else None,
        resource=made_by,
        attributes=span.attributes,
        events=[Event(event.name, event.attributes, event.at_ns) for event in span.events],
        kind=_KINDS[span.kind],
        status=Status(StatusCode.UNSET) if span.error is None else Status(StatusCode.ERROR, span.error or None),
        start_time=span.start_ns,
        end_time=span.end_ns,
        instrumentation_scope=_SCOPE,
    )


class _LastWords(logging.Filter):
    """Keeps why an export failed, which the exporter only logs, and keeps it from the log: it is said there once."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def filter(self, record: logging.LogRecord) -> bool:
        self.text = record.getMessage()
        return False

"""Spans of what a worker does, as children of the trace context that came with the request.

The gateway passes W3C trace context on untouched; the worker, whose time goes into tokens anyway, makes the spans. With
traces off nothing of OpenTelemetry is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol, TextIO


class SpanOf(Protocol):
    """Makes spans."""

    def __call__(
        self, path: str, traceparent: str, request_id: str, *, resumed: bool
    ) -> AbstractContextManager[Callable[[str], None]]:
        """A context that lasts as long as a call and gives a function to name its end.

        A `resumed` call continues an answer that another worker began, in a span of its own under the same parent.
        """
        ...


def off(
    path: str,  # noqa: ARG001 - a SpanOf
    traceparent: str,  # noqa: ARG001
    request_id: str,  # noqa: ARG001
    *,
    resumed: bool,  # noqa: ARG001
) -> AbstractContextManager[Callable[[str], None]]:
    """No spans."""
    return nullcontext(_ignore)


def to_console(service: str, *, out: TextIO | None = None) -> SpanOf:
    """Spans as JSON on a stream (standard error unless given), one each, as they end."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    provider = TracerProvider(resource=Resource.create({"service.name": service}), shutdown_on_exit=False)
    exporter = ConsoleSpanExporter(out=out or sys.stderr, formatter=lambda span: span.to_json(indent=None) + "\n")
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("neurogate")
    propagator = TraceContextTextMapPropagator()

    @contextmanager
    def span_of(path: str, traceparent: str, request_id: str, *, resumed: bool) -> Iterator[Callable[[str], None]]:
        parent = propagator.extract({"traceparent": traceparent})
        attributes: dict[str, str | bool] = {"url.path": path, "neurogate.request_id": request_id}
        if resumed:
            attributes["neurogate.resumed"] = True
        with tracer.start_as_current_span(f"call {path}", context=parent, attributes=attributes) as span:
            yield lambda end: span.set_attribute("neurogate.end", end)

    return span_of


def _ignore(_end: str) -> None:
    pass

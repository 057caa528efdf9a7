"""One process's traces, as its settings have them: what begins them, and what hands them on. Off is nothing at all."""

from __future__ import annotations

import random
from collections.abc import Callable

import structlog

from neurogate.telemetry.otlp_headers import parse_headers
from neurogate.telemetry.settings import TraceSettings
from neurogate.telemetry.span_writer import CLOSE_S, SpanExporter, SpanWriter
from neurogate.telemetry.tracing import Tracer
from neurogate.urls import shown

_log = structlog.get_logger("neurogate.telemetry")


class Traces:
    """The traces of one process."""

    def __init__(
        self,
        settings: TraceSettings,
        *,
        service: str,
        instance: str,
        on_loss: Callable[[int], None],
        rng: random.Random,
        now: Callable[[], float],
        wall_ns: Callable[[], int],
    ) -> None:
        """`service` is the service's name unless the settings have one, `instance` tells this process from others.

        `on_loss` hears how many spans were lost, from any thread. `now` is loop time, `wall_ns` nanoseconds since 1970.
        """
        self.tracer: Tracer | None = None
        """None when traces are off."""
        self._settings = settings
        self._writer: SpanWriter | None = None
        if settings.traces != "off":
            exporter = _exporter(settings, settings.service_name or service, instance)
            self._writer = SpanWriter(exporter, on_loss=on_loss)
            self.tracer = Tracer(self._writer.put, ratio=settings.ratio, rng=rng, now=now, wall_ns=wall_ns)

    def __repr__(self) -> str:
        return f"<Traces {self._settings.traces} {self.tracer!r}>"

    def configure(self, settings: TraceSettings) -> None:
        """Take another share, for the requests that come."""
        if self.tracer is not None:
            self.tracer.ratio = settings.ratio

    def start(self) -> None:
        """Begin to hand spans on, once."""
        if self._writer is not None:
            self._writer.start()
            to = shown(self._settings.otlp_endpoint) if self._settings.traces == "otlp" else "standard error"
            _log.info("requests are traced", ratio=self._settings.ratio, to=to)

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Hand on what there is, and end. Blocks, at most for `timeout_s`."""
        if self._writer is not None:
            self._writer.close(timeout_s)


def _exporter(settings: TraceSettings, service: str, instance: str) -> SpanExporter:
    from neurogate.telemetry.otel import ConsoleExporter, OtlpExporter, resource

    made_by = resource(service, instance)
    if settings.traces == "console":
        return ConsoleExporter(made_by)
    return OtlpExporter(settings.otlp_endpoint, parse_headers(settings.otlp_headers) or {}, made_by)

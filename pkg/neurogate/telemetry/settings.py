"""Settings of what processes tell of themselves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

from neurogate.config import Problem, env
from neurogate.telemetry.otlp_headers import parse_headers
from neurogate.urls import split


class LogFileSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a process keeps its log in files, beside standard error."""

    directory: Annotated[
        str,
        env(
            "NEUROGATE_LOG_DIR",
            "Directory of log files: _boot for the process, llama-TYPE for a managed engine; empty writes none.",
        ),
    ] = ""
    max_bytes: Annotated[
        int,
        env("NEUROGATE_LOG_MAX_BYTES", "Size at which a log file becomes FILE.1 and begins anew; 0 is any.", ge=0),
    ] = 100 * 1024 * 1024
    keep: Annotated[
        int, env("NEUROGATE_LOG_KEEP", "Log files kept in each directory; those of running processes stay.", ge=1)
    ] = 20


class TraceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Whether and where a process tells what its requests went through."""

    traces: Annotated[
        Literal["off", "console", "otlp"],
        env("NEUROGATE_TRACES", "off; console: spans as JSON on standard error; otlp: to a receiver; see traces.md."),
    ] = "off"
    ratio: Annotated[
        float,
        env(
            "NEUROGATE_TRACE_RATIO",
            "Share of requests that are traced, of those whose callers' trace context does not say.",
            reloads=True,
            ge=0,
            le=1,
        ),
    ] = 1.0
    service_name: Annotated[
        str,
        env("OTEL_SERVICE_NAME", "Name of this process's service in traces; empty is neurogate-gateway or -worker."),
    ] = ""
    otlp_endpoint: Annotated[
        str, env("OTEL_EXPORTER_OTLP_ENDPOINT", "Base URL of the receiver of spans; they go to its /v1/traces.")
    ] = "http://localhost:4318"
    otlp_headers: Annotated[
        str,
        env(
            "OTEL_EXPORTER_OTLP_HEADERS",
            "Headers for that receiver, name=value and comma-separated, values percent-encoded.",
            secret=True,
        ),
    ] = ""


def trace_problems(settings: TraceSettings, section: str) -> Iterable[Problem]:
    """A receiver that cannot be one, and headers that are none."""
    if settings.traces != "otlp":
        return
    try:
        well = split(settings.otlp_endpoint).scheme in {"http", "https"} and bool(
            split(settings.otlp_endpoint).hostname
        )
    except ValueError:
        well = False
    if not well:
        yield Problem((f"{section}.otlp_endpoint",), "must be a URL like http://collector:4318")
    if parse_headers(settings.otlp_headers) is None:
        yield Problem((f"{section}.otlp_headers",), "must be name=value, comma-separated, with percent-encoded values")

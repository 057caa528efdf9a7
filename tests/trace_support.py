"""Traces in tests: spans kept where they can be looked at, and what to look for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from neurogate.telemetry.spans import Span
from neurogate.telemetry.tracing import Tracer

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
CALLER_SPAN = "b7ad6b7169203331"
SAMPLED = f"00-{TRACE_ID}-{CALLER_SPAN}-01"
UNSAMPLED = f"00-{TRACE_ID}-{CALLER_SPAN}-00"
WALL_NS = 1_790_000_000 * 10**9


class Spans(list[Span]):
    """What was handed on, in order."""

    def put(self, spans: Sequence[Span]) -> None:
        self.extend(spans)

    def of(self, name: str) -> list[Span]:
        """Those with that name, by their beginning."""
        return sorted((span for span in self if span.name == name), key=lambda span: span.start_ns)

    def one(self, name: str) -> Span:
        (found,) = self.of(name)
        return found

    def lasted_s(self, name: str) -> float:
        span = self.one(name)
        return (span.end_ns - span.start_ns) / 1e9


def tracer_into(spans: Spans, *, ratio: float = 1.0) -> Tracer:
    """A tracer on the running loop's time that hands on to `spans`."""
    now = asyncio.get_running_loop().time
    return Tracer(spans.put, ratio=ratio, rng=random.Random(7), now=now, wall_ns=lambda: WALL_NS)

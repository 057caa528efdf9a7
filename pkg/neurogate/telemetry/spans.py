"""Spans as plain data: what happened to one sampled request, kept until it is over and then handed on at once.

Whoever serves the request says what began and ended when, in loop time; nothing here knows OpenTelemetry, which turns
spans into bytes in a thread of its own (ADR 0026).
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from neurogate.telemetry.trace_context import TraceContext, render

Value = str | bool | int | float | tuple[str, ...]
"""What an attribute may be."""

SPANS_MAX = 256
"""Of one request: a stream that is continued again and again has few more than there are workers lost under it."""


class Kind(enum.Enum):
    """Whose end of a call a span is."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"


class Event(NamedTuple):
    """Something that happened in a span."""

    name: str
    at_ns: int
    attributes: Mapping[str, Value]


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """One span that is over. Times are nanoseconds since 1970."""

    name: str
    kind: Kind
    trace_id: str
    span_id: str
    parent_id: str
    """Empty for the first of a trace."""
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Value]
    events: tuple[Event, ...] = ()
    error: str | None = None
    """Why it failed; None when it did not."""


Put = Callable[[Sequence[Span]], None]
"""Takes the spans of a request that is over; never blocks."""


class Ids:
    """Makes ids of traces and spans, as hexadecimal text that is never all zeros."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def trace(self) -> str:
        """The id of a new trace."""
        return f"{self._rng.getrandbits(128) or 1:032x}"

    def span(self) -> str:
        """The id of a new span."""
        return f"{self._rng.getrandbits(64) or 1:016x}"


class Trace:
    """What one process does for one sampled request: its own first span, and those below it."""

    def __init__(self, parent: TraceContext, put: Put, *, ids: Ids, now: Callable[[], float], wall_ns: int) -> None:
        """`parent.span_id` is empty where this request begins the trace. `now` is loop time, `wall_ns` the same now."""
        self.trace_id = parent.trace_id
        self.span_id = ids.span()
        """Of the first span, which is added last."""
        self.began_at = now()
        self.now = now
        self.put_off = 0
        """Spans that were more than a request may have."""
        self._parent_id = parent.span_id
        self._put = put
        self._ids = ids
        self._epoch_ns = wall_ns - round(self.began_at * 1e9)
        self._spans: list[Span] = []

    def __repr__(self) -> str:
        return f"<Trace {self.trace_id} {len(self._spans)} spans>"

    @property
    def context(self) -> str:
        """The trace context of the first span."""
        return self.context_of(self.span_id)

    def context_of(self, span_id: str) -> str:
        """The trace context for what a span causes elsewhere."""
        return render(self.trace_id, span_id, sampled=True)

    def new_id(self) -> str:
        """The id of a span that is to be added when it is over, and that others name before."""
        return self._ids.span()

    def event(self, name: str, at: float, **attributes: Value) -> Event:
        """An event at a loop time."""
        return Event(name, self._ns(at), attributes)

    def add(
        self,
        name: str,
        began_at: float,
        ended_at: float,
        *,
        attributes: Mapping[str, Value],
        kind: Kind = Kind.INTERNAL,
        span_id: str = "",
        parent_id: str = "",
        events: tuple[Event, ...] = (),
        error: str | None = None,
    ) -> None:
        """A span is over; its times are loop times. Without a parent it hangs under the first span."""
        if len(self._spans) >= SPANS_MAX:
            self.put_off += 1
            return
        self._spans.append(
            Span(
                name=name,
                kind=kind,
                trace_id=self.trace_id,
                span_id=span_id or self._ids.span(),
                parent_id=parent_id or self.span_id,
                start_ns=self._ns(began_at),
                end_ns=self._ns(ended_at),
                attributes=attributes,
                events=events,
                error=error,
            )
        )

    def finish(self, name: str, *, attributes: Mapping[str, Value], kind: Kind, error: str | None = None) -> None:
        """The first span is over, now: all of them are handed on. Called once."""
        if self.put_off:
            attributes = {**attributes, "neurogate.spans_left_out": self.put_off}
        spans, self._spans = self._spans, []
        spans.append(
            Span(
                name=name,
                kind=kind,
                trace_id=self.trace_id,
                span_id=self.span_id,
                parent_id=self._parent_id,
                start_ns=self._ns(self.began_at),
                end_ns=self._ns(self.now()),
                attributes=attributes,
                error=error,
            )
        )
        self._put(spans)

    def _ns(self, at: float) -> int:
        return self._epoch_ns + round(at * 1e9)

"""Which requests are traced: decided once, at the head of each, by its caller's word or else by chance (ADR 0026).

A process without traces has no `Tracer`: that is one comparison with None a request, and nothing of OpenTelemetry is
imported. Where there is one, what is not sampled has no record either.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from neurogate.telemetry.spans import Ids, Put, Trace
from neurogate.telemetry.trace_context import TraceContext, parse, render


class Tracer:
    """Begins traces."""

    def __init__(
        self, put: Put, *, ratio: float, rng: random.Random, now: Callable[[], float], wall_ns: Callable[[], int]
    ) -> None:
        """`ratio` of the requests whose callers do not say are sampled; `now` is loop time, `wall_ns` since 1970."""
        self.ratio = ratio
        """May be changed at any time, for the requests that come."""
        self._put = put
        self._rng = rng
        self._ids = Ids(rng)
        self._now = now
        self._wall_ns = wall_ns

    def __repr__(self) -> str:
        return f"<Tracer {self.ratio:g}>"

    def begin(self, traceparent: str) -> Trace | None:
        """The record of a request that came with this context, well-formed or empty; None when it is not sampled."""
        context = parse(traceparent)
        if context is None:
            if self._rng.random() >= self.ratio:
                return None
            context = TraceContext(self._ids.trace(), "", sampled=True)
        elif not context.sampled:
            return None
        return Trace(context, self._put, ids=self._ids, now=self._now, wall_ns=self._wall_ns())

    def unsampled(self) -> str:
        """A context for a request that came without one and is not sampled: nobody after us is to sample it either."""
        return render(self._ids.trace(), self._ids.span(), sampled=False)

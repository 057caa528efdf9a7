"""Which request the running code is about: for log lines and for what is sent on its behalf, without an argument.

Setting it costs a small object a request; whoever logs or sends looks it up then.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from neurogate.telemetry.trace_context import trace_id_of


class Concern(NamedTuple):
    """One request."""

    request_id: str = ""
    traceparent: str = ""
    """W3C trace context of what is done now; empty when there is none."""
    tracestate: str = ""

    def fields(self) -> dict[str, str]:
        """What log lines say of it."""
        named = {"request_id": self.request_id, "trace_id": trace_id_of(self.traceparent)}
        return {name: value for name, value in named.items() if value}

    def headers(self) -> dict[str, str]:
        """What goes to whoever is asked on its behalf."""
        if not self.traceparent:
            return {}
        context = {"traceparent": self.traceparent}
        return context | {"tracestate": self.tracestate} if self.tracestate else context


_NOBODY = Concern()
_concern: ContextVar[Concern] = ContextVar("neurogate.concern", default=_NOBODY)


def current() -> Concern:
    """The request that the running task is about; one without an id when it is about none."""
    return _concern.get()


def concern(request_id: str, traceparent: str, tracestate: str = "") -> None:
    """From here to the end of the running task it is about this request."""
    _concern.set(Concern(request_id, traceparent, tracestate))


@contextmanager
def about(request_id: str, traceparent: str) -> Iterator[None]:
    """What happens inside is about this request."""
    token = _concern.set(Concern(request_id, traceparent))
    try:
        yield
    finally:
        _concern.reset(token)

"""W3C trace context: the ids by which the parts of one request's path find each other, as headers carry them.

Ids are hexadecimal text from end to end: they come so, go so, and are numbers only for whoever exports spans.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
_VERSION_0 = 55
"""Characters of a context of version 00, which has nothing behind its flags. Later versions may have."""

_TRACESTATE_MAX = 512
"""What everybody must pass on; longer ones may be dropped."""


class TraceContext(NamedTuple):
    """Whose trace something belongs to."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 of them: the span that caused it."""
    sampled: bool


def well_formed(traceparent: bytes) -> str:
    """The header when it is well-formed, else nothing: then there is no context."""
    if not traceparent or not _TRACEPARENT.fullmatch(traceparent):
        return ""
    if len(traceparent) > _VERSION_0 and traceparent.startswith(b"00"):
        return ""
    return traceparent[:_VERSION_0].decode()


def well_formed_state(values: list[bytes]) -> str:
    """The tracestate headers of one request as one, when they may be passed on, else nothing."""
    state = b",".join(values)
    return state.decode() if len(state) <= _TRACESTATE_MAX and state.isascii() else ""


def parse(traceparent: str) -> TraceContext | None:
    """What a well-formed header says; None for an empty one."""
    if not traceparent:
        return None
    return TraceContext(traceparent[3:35], traceparent[36:52], bool(int(traceparent[53:55], 16) & 1))


def render(trace_id: str, span_id: str, *, sampled: bool) -> str:
    """The header of a context."""
    return f"00-{trace_id}-{span_id}-{'01' if sampled else '00'}"


def trace_id_of(traceparent: str) -> str:
    """The trace's id in a well-formed header; empty for an empty one."""
    return traceparent[3:35]

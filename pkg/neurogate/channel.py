"""The seam between the data plane and the wire: calls go to a worker through a channel, answers come back to a sink.

Everything here is synchronous and callback-shaped on purpose: one frame of the link carries tokens of hundreds of
requests, and a callback per token is the cheapest hand-over Python has (ADR 0001). The same seam lets tests and the
simulator run the data plane on virtual time against workers in memory.
"""

from __future__ import annotations

import enum
from typing import Protocol

import msgspec

from neurogate.endpoint import WorkerReport
from neurogate.inference import Usage


class Resume(msgspec.Struct, frozen=True):
    """Where an answer stopped that another worker began: what its client has, for the worker that continues it."""

    text: str
    """All text of the answer so far."""
    tokens: int = 0
    """Events that carried it: the tokens generated, or a few less where one event carries several."""
    completion_id: str = ""
    created: int = 0
    """Unix seconds."""
    model: str = ""
    """As the answer's first events call it."""
    finish_reason: str = ""
    """Not empty: the text is whole, and only what follows it is missing."""
    usage_sent: bool = False
    """Only the end mark is missing."""
    lengths: bytes = b""
    """Characters of each event's text, a byte each: where one token ends and the next begins. Empty when not known."""
    system_fingerprint: str = ""
    """As the answer's first events tell it; empty when they do not, and then the rest does not either."""


class Call(msgspec.Struct, frozen=True):
    """One admitted request, as it goes to a worker. A Struct: built in C, once per request of the hot path."""

    path: str
    body: bytes
    """The client's own bytes."""
    stream: bool
    """The client wants tokens as they come; otherwise one whole answer."""
    deadline: float
    """Loop time at which the answer is of no more use."""
    request_id: str = ""
    traceparent: str = ""
    model: str = ""
    """Empty means any worker's default model."""
    api: str = ""
    """The path, when not every worker can do it: then only those that report it are asked."""
    resumable: bool = False
    """Should its stream break, another worker may continue it, if its request can be continued at all."""
    resume: Resume | None = None
    """Continue this answer instead of beginning one: only workers that report the path in `resumes` are asked."""
    tracestate: str = ""
    """What goes on with `traceparent`, as it came."""


class EndCode(enum.IntEnum):
    """How a call ended on one worker. Values up to INTERNAL are those of the wire's EndCode."""

    ANSWERED = 0
    """The engine answered; `http_status` tells how."""
    UNAVAILABLE = 1
    BROKEN = 2
    DEADLINE = 3
    CANCELLED = 4
    BUSY = 5
    UNSUPPORTED = 6
    INTERNAL = 7
    LINK_LOST = 100
    """The worker died, hangs or cannot be reached: seen by the gateway itself."""


class End(msgspec.Struct, frozen=True):
    """The last word on one call. A Struct: built in C, once per request of the hot path."""

    code: EndCode = EndCode.ANSWERED
    http_status: int = 0
    content_type: str = ""
    """Empty means application/json."""
    body: bytes = b""
    """The engine's answer when `http_status` is not 2xx."""
    usage: Usage | None = None
    finish_reason: str = ""
    retry_after_s: float | None = None
    message: str = ""


class Sink(Protocol):
    """Takes one call's answer. Called on the event loop; must not block and must not raise."""

    def on_chunk(self, data: bytes) -> None:
        """Take bytes of a successful answer; a streamed one arrives in whole events."""
        ...

    def on_end(self, end: End) -> None:
        """Take the end: called exactly once, and nothing after it, unless the call was cancelled."""
        ...


class WorkerChannel(Protocol):
    """The way to one worker."""

    def submit(self, call: Call, sink: Sink) -> int:
        """Send a call and return its ticket. Never blocks; a failure to send arrives at the sink as LINK_LOST.

        The sink is never called before this returns.
        """
        ...

    def cancel(self, ticket: int) -> None:
        """Forget the call: its sink is not called again, and the worker frees the slot. Unknown tickets are ignored."""
        ...


class LinkObserver(Protocol):
    """Hears what a channel learns about its worker. Called on the event loop."""

    def link_up(self, report: WorkerReport) -> None:
        """The worker answered with its first report."""
        ...

    def link_report(self, report: WorkerReport) -> None:
        """A further report."""
        ...

    def link_down(self, reason: str, *, planned: bool) -> None:
        """An open link ended. `planned` when the worker had said that it drains. Calls in flight end right after."""
        ...

    def connect_failed(self, reason: str) -> None:
        """An attempt to open the link failed."""
        ...

"""What the wire needs of a worker: the servicers speak to this and know no engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

import msgspec

from neurogate.channel import End, Resume
from neurogate.endpoint import WorkerReport
from neurogate.errors import NoWorkerError
from neurogate.inference import GenerationEvent, Prompt


class EngineKeyError(NoWorkerError):
    """The engine does not take the worker's own key: whoever runs the worker must set it right."""


class IncomingCall(msgspec.Struct, frozen=True):
    """A request as it came over the link. A Struct: built in C, once per request of the hot path."""

    path: str
    body: bytes
    request_id: str
    traceparent: str
    timeout_s: float | None
    """Seconds left for it; None means no deadline."""
    resume: Resume | None = None
    """Continue this answer instead of beginning one."""
    tracestate: str = ""


class Outlet(Protocol):
    """Where a worker puts one call's answer."""

    @property
    def full(self) -> bool:
        """The gateway reads too slowly: wait for `room` before the next chunk."""
        ...

    def chunk(self, data: bytes) -> bool:
        """Bytes of a successful answer; a streamed one in whole events. Whether it is not `full` after them."""
        ...

    async def room(self) -> None:
        """Wait until the outlet is no longer full."""
        ...


class WorkerBackend(Protocol):
    """The worker behind the servicers."""

    def report(self) -> WorkerReport:
        """How the worker is, now."""
        ...

    async def answer(self, call: IncomingCall, outlet: Outlet) -> End:
        """Answer one call. Cancelling it stops the engine. Never raises but CancelledError."""
        ...

    def generate(self, prompt: Prompt, request_id: str) -> AsyncGenerator[GenerationEvent, None]:
        """Generate for callers without a link.

        Raises GatewayError before the first event or when the generation broke off. Closing it stops the engine.
        """
        ...

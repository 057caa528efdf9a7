"""What the public listener needs of a gateway: the servicers speak to this and know no data plane.

Two ways lead through it. A prompt is answered by the gateway, as over HTTP; any other method is a call of its own to
one worker, for which the backend finds the worker and hears how it went.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import msgspec

from neurogate.prompt_api import PromptAnswer
from neurogate.resilience.breaker import Outcome
from neurogate.rpc.call_channel import CallChannel
from neurogate.rpc.status import Metadata


@dataclass(frozen=True, slots=True)
class IncomingRpc:
    """A call as it came in."""

    method: str
    """For example `/llm.v1.LLMService/GenerateText`."""
    metadata: Metadata
    peer: str
    """Address of the client as gRPC writes it, for example `ipv4:10.0.0.7:51312`."""
    request_id: str
    time_left_s: float | None
    """Seconds until the client's deadline when the call came in; None means it named none."""

    def header(self, name: str) -> bytes:
        """The last value of a metadata key; empty when there is none."""
        for key, value in reversed(self.metadata):
            if key == name:
                return value if isinstance(value, bytes) else value.encode()
        return b""


class PromptEvent(msgspec.Struct, kw_only=True):
    """One event of a streamed answer: a token, or with `done` the end of a complete one."""

    token: str = ""
    tokens_generated: int = 0
    done: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    inference_time_ms: int = 0
    model: str = ""
    finish_reason: str = ""


@dataclass(frozen=True, slots=True)
class Fleet:
    """How the workers are, all of them together."""

    healthy: bool
    """At least one can be asked."""
    load: float
    """Busy slots over all slots, 0 to 1."""
    active_requests: int


Begin = Callable[[Metadata], Awaitable[None]]
"""Sends the initial metadata of an answer; called at most once, before the answer."""

Write = Callable[[PromptEvent], Awaitable[None]]
"""Sends one event; returns when the client's connection has taken it."""


class Hold(Protocol):
    """One proxied call's hold on one worker."""

    @property
    def worker_id(self) -> str:
        """The worker's name."""
        ...

    @property
    def channel(self) -> CallChannel:
        """The way to it."""
        ...

    def answered(self) -> None:
        """The worker began to answer."""
        ...

    def release(self, outcome: Outcome) -> None:
        """The call is over; the first call counts and any other does nothing."""
        ...


class Candidates(Protocol):
    """The workers that one proxied call may ask, one after the other."""

    async def next(self) -> Hold:
        """Hold a worker that was not asked yet. Raises GatewayError when there is none."""
        ...


class PublicBackend(Protocol):
    """The gateway behind the listener. Everything but `fleet` raises GatewayError for a call it refuses."""

    def fleet(self) -> Fleet:
        """How the workers are, now."""
        ...

    async def answer(self, rpc: IncomingRpc, body: bytes, begin: Begin) -> PromptAnswer:
        """Answer a prompt whole; `body` is that of `POST /prompt`. Cancelling it stops the engine."""
        ...

    async def stream(self, rpc: IncomingRpc, body: bytes, begin: Begin, write: Write) -> None:
        """Answer a prompt token by token; returns after the event that is `done`. Cancelling it stops the engine."""
        ...

    def proxy(self, rpc: IncomingRpc) -> AbstractAsyncContextManager[Candidates]:
        """Let a call in, and out again when the context ends, whose error says how it went."""
        ...

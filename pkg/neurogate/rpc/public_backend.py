"""What the public listener needs of a gateway: the servicers speak to this and know no data plane.

Two ways lead through it. A prompt is answered by the gateway, as over HTTP; any other method is a call of its own to
one worker, for which the backend finds the worker and hears how it went.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import msgspec

from neurogate.errors import BadRequestError
from neurogate.prompt_api import PromptAnswer
from neurogate.resilience.breaker import Outcome
from neurogate.rpc.call_channel import CallChannel
from neurogate.rpc.status import Metadata


@dataclass(slots=True)
class IncomingRpc:
    """A call as it came in: its head, for its messages are read later, if at all."""

    method: str
    """For example `/llm.v1.LLMService/GenerateText`."""
    metadata: Metadata
    peer: str
    """Address of the client as gRPC writes it, for example `ipv4:10.0.0.7:51312`."""
    request_id: str
    """That of the metadata, or a made one; once a message that has one was read, the message's."""
    time_left_s: float | None
    """Seconds until the client's deadline when the call came in; None means it named none."""

    def header(self, name: str) -> bytes:
        """The last value of a metadata key; empty when there is none."""
        for key, value in reversed(self.metadata):
            if key == name:
                return value if isinstance(value, bytes) else value.encode()
        return b""

    def only(self, name: str) -> bytes:
        """The value of a metadata key that may be given once; empty when there is none.

        Raises BadRequestError for more: whoever reads it next may read another one.
        """
        if sum(key == name for key, _ in self.metadata) > 1:
            raise BadRequestError(f"{name}: may be given once")
        return self.header(name)


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


Read = Callable[[Callable[[int], None]], Awaitable[bytes]]
"""Reads a call's one message and gives it as the body of `POST /prompt`; called once.

The function given hears the message's size before anything is made of it, and may refuse it with an error of its own.
Raises BadRequestError for a message that is none.
"""

Begin = Callable[[Metadata], Awaitable[None]]
"""Sends the initial metadata of an answer; called at most once, before the answer."""

WriteAnswer = Callable[[PromptAnswer], Awaitable[int]]
"""Sends a whole answer; returns its size in bytes when the client's connection has taken it."""

WriteEvent = Callable[[PromptEvent], Awaitable[int]]
"""Sends one event; returns its size in bytes when the client's connection has taken it."""


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


class Traffic(Protocol):
    """The messages of one proxied call, each from when it is read until it is written."""

    async def up(self, size: int) -> None:
        """The client sent a message. Raises GatewayError when it may not pass; then the call is over."""
        ...

    async def down(self, size: int) -> None:
        """The worker sent one. Raises GatewayError like `up`."""
        ...

    def passed(self, size: int) -> None:
        """One of those that were let through is written, or never will be."""
        ...


class Proxied(NamedTuple):
    """A call that was let in."""

    candidates: Candidates
    traffic: Traffic


class PublicBackend(Protocol):
    """The gateway behind the listener. Everything but `fleet` raises GatewayError for a call it refuses.

    A call is looked at before its messages are: `read` and the context of `proxy` are used only for one that is let in.
    """

    def fleet(self) -> Fleet:
        """How the workers are, now."""
        ...

    async def answer(self, rpc: IncomingRpc, read: Read, begin: Begin, write: WriteAnswer) -> None:
        """Answer a prompt whole. Cancelling it stops the engine."""
        ...

    async def stream(self, rpc: IncomingRpc, read: Read, begin: Begin, write: WriteEvent) -> None:
        """Answer a prompt token by token; returns after the event that is `done`. Cancelling it stops the engine."""
        ...

    def proxy(self, rpc: IncomingRpc) -> AbstractAsyncContextManager[Proxied]:
        """Let a call in, and out again when the context ends, whose error says how it went."""
        ...

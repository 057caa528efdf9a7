"""The shapes of NeuroGate's own API, `POST /prompt`: validated by the gateway, spoken by the worker."""

from __future__ import annotations

from typing import Annotated

import msgspec

UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""All that a decoder raises for bytes it cannot take: also text that is no UTF-8, and nesting without end."""

MAX_TOKENS = 1_000_000
"""The longest answer that may be asked for, in any API: what is outstanding must fit a worker's reports."""


class PromptRequest(msgspec.Struct, kw_only=True):
    """The body of a request; unknown fields are ignored."""

    query: Annotated[str, msgspec.Meta(min_length=1)]
    model: str | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=MAX_TOKENS)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    system_prompt: str | None = None
    stream_field: bool | None = msgspec.field(default=None, name="stream")

    @property
    def stream(self) -> bool:
        """Whether tokens are wanted as they come; null leaves it at no, as null leaves every field at its default."""
        return self.stream_field is True


class PromptAnswer(msgspec.Struct, kw_only=True):
    """A whole answer."""

    request_id: str
    response: str
    model: str
    tokens: int
    """Prompt and completion together."""
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    inference_time_ms: int
    latency_ms: int = 0
    """As the gateway measured it, queueing and retries included."""
    worker_id: str = ""


class PromptToken(msgspec.Struct, kw_only=True):
    """One event of a streamed answer."""

    request_id: str
    token: str
    tokens_generated: int
    done: bool = False


class PromptDone(msgspec.Struct, kw_only=True):
    """The last event of a complete streamed answer. A stream that ends without it was cut."""

    request_id: str
    model: str
    finish_reason: str
    tokens: int
    prompt_tokens: int
    completion_tokens: int
    inference_time_ms: int
    done: bool = True

"""The bodies of Ollama's API, as far as an engine that is not Ollama can follow them; other fields are ignored."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec

from neurogate.engines.engine import EngineRefusedError
from neurogate.prompt_api import MAX_TOKENS, UNDECODABLE

RequestT = TypeVar("RequestT")

ModelName = Annotated[str, msgspec.Meta(min_length=1)]
Format = str | dict[str, Any] | None
"""`json`, a JSON schema, or nothing in particular."""


class Options(msgspec.Struct):
    """How to choose tokens; None leaves it to the engine."""

    num_predict: Annotated[int, msgspec.Meta(le=MAX_TOKENS)] | None = None
    """Tokens; zero and less are no limit."""
    num_keep: int | None = None
    temperature: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_last_n: int | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None

    @property
    def max_tokens(self) -> int | None:
        """The limit, when there is one."""
        return self.num_predict if self.num_predict is not None and self.num_predict > 0 else None


class _Generation(msgspec.Struct, kw_only=True):
    model: ModelName
    stream: bool | None = None
    format: Format = None
    options: Options | None = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None

    @property
    def streamed(self) -> bool:
        """Whether tokens are wanted as they come: unless the request says no."""
        return self.stream is not False


class GenerateRequest(_Generation, kw_only=True):
    """The body of `/api/generate`."""

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: list[int] | None = None
    raw: bool | None = None
    images: list[str] | None = None

    @property
    def asks(self) -> bool:
        """Whether there is anything to answer."""
        return bool(self.prompt)


class CalledFunction(msgspec.Struct):
    """What a model wants called."""

    name: str
    arguments: dict[str, Any] = msgspec.field(default_factory=dict)


class ToolCall(msgspec.Struct):
    """One call in a message of the assistant."""

    function: CalledFunction
    id: str | None = None


class Message(msgspec.Struct):
    """One turn of a conversation."""

    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class ChatRequest(_Generation, kw_only=True):
    """The body of `/api/chat`."""

    messages: list[Message] | None = None
    tools: list[dict[str, Any]] | None = None

    @property
    def asks(self) -> bool:
        """Whether there is anything to answer."""
        return bool(self.messages)


class EmbedRequest(msgspec.Struct, kw_only=True):
    """The body of `/api/embed`."""

    model: ModelName
    input: str | list[str] | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=0)] | None = None


class EmbeddingsRequest(msgspec.Struct, kw_only=True):
    """The body of `/api/embeddings`, which `/api/embed` has replaced."""

    model: ModelName
    prompt: str | None = None


class ShowRequest(msgspec.Struct, kw_only=True):
    """The body of `/api/show`; `name` is what the model was called formerly."""

    model: str | None = None
    name: str | None = None


GENERATE = msgspec.json.Decoder(GenerateRequest)
CHAT = msgspec.json.Decoder(ChatRequest)
EMBED = msgspec.json.Decoder(EmbedRequest)
EMBEDDINGS = msgspec.json.Decoder(EmbeddingsRequest)
SHOW = msgspec.json.Decoder(ShowRequest)


def read(decoder: msgspec.json.Decoder[RequestT], body: bytes) -> RequestT:
    """A body as its struct. Raises EngineRefusedError (400) naming what is wrong."""
    try:
        return decoder.decode(body)
    except UNDECODABLE as error:
        raise EngineRefusedError(400, f"invalid request: {error}") from error

"""OpenAI's chat and text completions, as the simulated engine answers them.

The one idea: everything in a streamed event but the token is the same for the whole answer, so it is rendered once and
each token is spliced between two constants. Sampling fields (temperature, seed, stop, tools and the like) are accepted
and change nothing; `max_tokens` and `ignore_eos` do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from hashlib import blake2b
from typing import Annotated, Any

import msgspec

from neurogate.engines.engine import EngineReply
from neurogate.engines.sim import chat_template, tokenizer
from neurogate.engines.sim.core import CONTEXT_TOKENS, Question, SimCore, SimRefusedError, Summary
from neurogate.engines.sim.reply import Form, read_json, reply

DONE = b"data: [DONE]\n\n"

TokenLimit = Annotated[int, msgspec.Meta(ge=-1)] | None
"""-1, as llama.cpp takes it, and None are no limit."""


class Message(msgspec.Struct):
    """One turn of a conversation."""

    role: str
    content: str | list[dict[str, Any]] | None = None

    @property
    def text(self) -> str:
        """The content; of several parts, those that are text."""
        if isinstance(self.content, list):
            return "".join(str(part.get("text", "")) for part in self.content)
        return self.content or ""


class StreamOptions(msgspec.Struct):
    """What else a stream carries."""

    include_usage: bool | None = None


class CompletionRequest(msgspec.Struct, kw_only=True):
    """The body of /v1/completions."""

    prompt: str | list[Any]
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: TokenLimit = None
    ignore_eos: bool | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=1)] | None = None
    temperature: float | None = None


class ChatRequest(msgspec.Struct, kw_only=True):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: TokenLimit = None
    max_completion_tokens: TokenLimit = None
    ignore_eos: bool | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=1)] | None = None
    temperature: float | None = None


# Where a token goes: a character that nothing else in an event has.
_SPLICE = "\0"
_SPLICE_JSON = b"\\u0000"

_CHAT = msgspec.json.Decoder(ChatRequest)
_COMPLETION = msgspec.json.Decoder(CompletionRequest)


def chat(core: SimCore, body: bytes, request_id: str) -> AbstractAsyncContextManager[EngineReply]:
    """Answer /v1/chat/completions."""

    def opened() -> Form:
        request = read_json(_CHAT, body)
        limit = request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens
        prompt = chat_template.render((message.role, message.text) for message in request.messages)
        return _ChatForm(core, request, _question(prompt, limit, request), request_id)

    return reply(core, opened, refusal)


def completion(core: SimCore, body: bytes, request_id: str) -> AbstractAsyncContextManager[EngineReply]:
    """Answer /v1/completions."""

    def opened() -> Form:
        request = read_json(_COMPLETION, body)
        question = _question(prompt_text(request.prompt), request.max_tokens, request)
        return _CompletionForm(core, request, question, request_id)

    return reply(core, opened, refusal)


def models(core: SimCore) -> dict[str, Any]:
    """The answer of /v1/models."""
    model = {
        "id": core.model,
        "object": "model",
        "created": int(core.now()),
        "owned_by": "neurogate-sim",
        "meta": {"n_ctx": CONTEXT_TOKENS},
    }
    return {"object": "list", "data": [model]}


def prompt_text(prompt: str | list[Any]) -> str:
    """A prompt that may be text, token ids, or a list of one of these.

    Raises SimRefusedError (400) for anything else.
    """
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt
    try:
        return tokenizer.decode(prompt)
    except (TypeError, AttributeError, ValueError) as error:
        message = "prompt: must be one text, or one list of token ids"
        raise SimRefusedError(400, message, code="invalid_request", param="prompt") from error


def refusal(error: SimRefusedError) -> bytes:
    """OpenAI's error body."""
    if error.status >= 500:
        kind = "unavailable_error" if error.status == 503 else "server_error"
    else:
        kind = "invalid_request_error"
    return msgspec.json.encode(
        {"error": {"message": str(error), "type": kind, "param": error.param, "code": error.code}}
    )


def timings(summary: Summary) -> dict[str, float]:
    """llama.cpp's account of an answer. What took no time has the rate 0."""
    prompt_n, predicted_n = summary.usage.prompt_tokens, summary.usage.completion_tokens
    return {
        "cache_n": summary.usage.cached_tokens,
        "prompt_n": prompt_n,
        "prompt_ms": summary.prefill_s * 1000,
        "prompt_per_token_ms": summary.prefill_s * 1000 / prompt_n if prompt_n else 0.0,
        "prompt_per_second": prompt_n / summary.prefill_s if summary.prefill_s else 0.0,
        "predicted_n": predicted_n,
        "predicted_ms": summary.decode_s * 1000,
        "predicted_per_token_ms": summary.decode_s * 1000 / predicted_n if predicted_n else 0.0,
        "predicted_per_second": predicted_n / summary.decode_s if summary.decode_s else 0.0,
    }


def require_model(core: SimCore, model: str | None) -> None:
    """Raise SimRefusedError (404) for a model there is not."""
    if not core.knows(model or ""):
        raise SimRefusedError(404, f"The model '{model}' does not exist", code="model_not_found", param="model")


def _question(prompt: str, limit: int | None, request: ChatRequest | CompletionRequest) -> Question:
    max_tokens = None if limit is None or limit < 0 else limit
    return Question(prompt, max_tokens, ignore_eos=bool(request.ignore_eos))


class _OpenAIForm(ABC):
    """What both paths share: an answer's constants, and its end."""

    stream_type = "text/event-stream"
    id_prefix: str
    stream_object: str
    whole_object: str

    def __init__(
        self, core: SimCore, request: ChatRequest | CompletionRequest, question: Question, request_id: str
    ) -> None:
        require_model(core, request.model)
        self.question = question
        self.streamed = bool(request.stream)
        self._include_usage = request.stream_options is not None and bool(request.stream_options.include_usage)
        name = blake2b(f"{request_id}\0{question.prompt}".encode(), digest_size=12).hexdigest()
        self._about = {
            "created": int(core.now()),
            "id": f"{self.id_prefix}-{name}",
            "model": core.model,
            "system_fingerprint": "neurogate-sim",
        }
        self._before, _, self._after = self._event([self._said(_SPLICE)]).partition(_SPLICE_JSON)

    def opening(self) -> bytes:
        """Nothing."""
        return b""

    def tokens(self, tokens: list[bytes]) -> bytes:
        """One event a token."""
        before, after = self._before, self._after
        if len(tokens) == 1:
            return before + tokens[0] + after
        return b"".join([before + token + after for token in tokens])

    def closing(self, summary: Summary) -> bytes:
        """The finish reason, the usage if it was asked for, and the end mark."""
        finish = [self._ended(summary.finish_reason)]
        if not self._include_usage:
            return self._event(finish, timings=timings(summary)) + DONE
        return self._event(finish) + self._event([], usage=_usage(summary), timings=timings(summary)) + DONE

    def failure(self, message: str) -> bytes:
        """An error event, after which no end mark comes."""
        return b"data: " + refusal(SimRefusedError(500, message, code="internal_error")) + b"\n\n"

    def whole(self, text: str, summary: Summary) -> bytes:
        """The answer as one object."""
        return msgspec.json.encode(
            {
                "choices": [self._complete(text, summary.finish_reason)],
                **self._about,
                "object": self.whole_object,
                "usage": _usage(summary),
                "timings": timings(summary),
            }
        )

    def _event(self, choices: list[dict[str, Any]], **more: object) -> bytes:
        event = {"choices": choices, **self._about, "object": self.stream_object, **more}
        return b"data: " + msgspec.json.encode(event) + b"\n\n"

    @abstractmethod
    def _said(self, text: str) -> dict[str, Any]:
        """The choice of an event that carries text."""

    @abstractmethod
    def _ended(self, finish_reason: str) -> dict[str, Any]:
        """The choice of the event that ends a stream."""

    @abstractmethod
    def _complete(self, text: str, finish_reason: str) -> dict[str, Any]:
        """The choice of an answer that is not streamed."""


class _ChatForm(_OpenAIForm):
    id_prefix = "chatcmpl"
    stream_object = "chat.completion.chunk"
    whole_object = "chat.completion"

    def opening(self) -> bytes:
        return self._event([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])

    def _said(self, text: str) -> dict[str, Any]:
        return {"index": 0, "delta": {"content": text}, "finish_reason": None}

    def _ended(self, finish_reason: str) -> dict[str, Any]:
        return {"index": 0, "delta": {}, "finish_reason": finish_reason}

    def _complete(self, text: str, finish_reason: str) -> dict[str, Any]:
        return {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}


class _CompletionForm(_OpenAIForm):
    id_prefix = "cmpl"
    stream_object = "text_completion"
    whole_object = "text_completion"

    def _said(self, text: str) -> dict[str, Any]:
        return {"text": text, "index": 0, "logprobs": None, "finish_reason": None}

    def _ended(self, finish_reason: str) -> dict[str, Any]:
        return {"text": "", "index": 0, "logprobs": None, "finish_reason": finish_reason}

    def _complete(self, text: str, finish_reason: str) -> dict[str, Any]:
        return {"text": text, "index": 0, "logprobs": None, "finish_reason": finish_reason}


def _usage(summary: Summary) -> dict[str, Any]:
    usage = summary.usage
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }

"""Whole answers from a llama.cpp server, read as a stream and folded into one.

llama.cpp notices that a client left in two ways. While it streams, at the next token. While it prepares a whole answer,
only after a second in which no request of the server had any result, so on a busy server not before the answer is done:
every client that gave up on a whole answer would hold a slot to its end. So a whole answer is asked for as a stream,
which costs one JSON decode a token and stops within one. Only requests whose every field is known to mean the same
either way are treated so; all others are passed on as they are (ADR 0008).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import msgspec

from neurogate.engines.engine import MAX_ANSWER_BYTES, AnswerTooLargeError, EngineBrokenError, EngineCall, pump
from neurogate.engines.payload import json_of
from neurogate.engines.sse import DONE, SseTap, events
from neurogate.operations import OPERATIONS, Ending

_SAFE_FIELDS = frozenset(
    {
        "model", "messages", "prompt", "max_tokens", "max_completion_tokens", "n_predict", "temperature", "top_p",
        "top_k", "min_p", "typical_p", "seed", "stop", "presence_penalty", "frequency_penalty", "repeat_penalty",
        "repeat_last_n", "logit_bias", "ignore_eos", "cache_prompt", "user", "metadata", "store", "service_tier",
    }
)  # fmt: skip

_WHOLE_OBJECT = {"chat.completion.chunk": "chat.completion"}


def streamed(call: EngineCall) -> EngineCall | None:
    """The same request for a streamed answer; None when it must be passed on as it is."""
    operation = OPERATIONS.get(call.path)
    if operation is None or operation.ending is not Ending.DONE:
        return None  # folding knows OpenAI's chunks only
    request = json_of(call.body)
    if not isinstance(request, dict) or request.get("stream"):
        return None
    asked = {key: value for key, value in request.items() if value is not None and key != "stream"}
    if asked.get("n") == 1:
        del asked["n"]
    if not asked.keys() <= _SAFE_FIELDS or isinstance(asked.get("prompt"), list):
        return None
    asked |= {"stream": True, "stream_options": {"include_usage": True}}
    return EngineCall(call.path, msgspec.json.encode(asked), call.request_id, call.max_answer_bytes)


async def folded(body: AsyncIterator[bytes], limit: int = MAX_ANSWER_BYTES) -> AsyncGenerator[bytes, None]:
    """The whole answer, as one piece.

    Raises EngineBrokenError when the stream was cut or reports an error, AnswerTooLargeError for an answer of more
    than about `limit` bytes.
    """
    tap = SseTap()
    fold = _Fold(limit)

    def take(piece: bytes) -> bool:
        for event in events(tap.feed(piece)):
            if event.data != DONE:
                fold.add(event.data)
        return tap.error is None

    await pump(body, take)
    if tap.error is not None:
        raise EngineBrokenError(f"the engine reported an error in its answer: {tap.error}")
    if not tap.done:
        raise EngineBrokenError("the engine's answer ended without its end mark [DONE]")
    yield fold.answer()


class _Fold:
    """What a streamed answer has become so far."""

    __slots__ = ("_finish_reason", "_held", "_limit", "_rest", "_texts")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._rest: dict[str, Any] = {}
        """All but its choices."""
        self._texts: dict[str, list[str]] = {}
        self._finish_reason: str | None = None

    def add(self, data: bytes) -> None:
        """Add a chunk; what is none is left out. Raises AnswerTooLargeError."""
        chunk = json_of(data)
        if not isinstance(chunk, dict):
            return
        for choice in _dicts(chunk.pop("choices", ())):
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
            for field, text in _added(choice):
                self._texts.setdefault(field, []).append(text)
                self._held += len(field) + len(text)
        if not chunk.keys() <= self._rest.keys():
            self._held += len(data)
        if self._held > self._limit:
            raise AnswerTooLargeError(self._limit)
        self._rest |= chunk

    def answer(self) -> bytes:
        """The whole of it."""
        choices = [_choice(self._texts, self._finish_reason)]
        return msgspec.json.encode({"choices": choices, **self._rest} | _object(self._rest))


def _dicts(values: Any) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def _added(choice: dict[str, Any]) -> list[tuple[str, str]]:
    delta = choice.get("delta") or {"text": choice.get("text")}
    return [(field, text) for field, text in delta.items() if isinstance(text, str)] if isinstance(delta, dict) else []


def _choice(texts: dict[str, list[str]], finish_reason: str | None) -> dict[str, Any]:
    joined = {field: "".join(pieces) for field, pieces in texts.items()}
    if "text" in joined:
        return {"text": joined["text"], "index": 0, "logprobs": None, "finish_reason": finish_reason}
    message = {"role": "assistant", "content": "", **joined}
    return {"finish_reason": finish_reason, "index": 0, "message": message}


def _object(answer: dict[str, Any]) -> dict[str, str]:
    kind = str(answer.get("object", ""))
    return {"object": _WHOLE_OBJECT.get(kind, kind)}

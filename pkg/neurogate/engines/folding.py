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

from neurogate.engines.engine import MAX_ANSWER_BYTES, AnswerTooLargeError, EngineBrokenError, EngineCall
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
    answer: dict[str, Any] = {}
    texts: dict[str, list[str]] = {}
    finish_reason: str | None = None
    held = 0
    async for piece in body:
        for event in events(tap.feed(piece)):
            chunk = json_of(event.data) if event.data != DONE else None
            if not isinstance(chunk, dict):
                continue
            for choice in _dicts(chunk.pop("choices", ())):
                finish_reason = choice.get("finish_reason") or finish_reason
                for field, text in _added(choice):
                    texts.setdefault(field, []).append(text)
                    held += len(field) + len(text)
            if not chunk.keys() <= answer.keys():
                held += len(event.data)
            if held > limit:
                raise AnswerTooLargeError(limit)
            answer |= chunk
        if tap.error is not None:
            break
    if tap.error is not None:
        raise EngineBrokenError(f"the engine reported an error in its answer: {tap.error}")
    if not tap.done:
        raise EngineBrokenError("the engine's answer ended without its end mark [DONE]")
    yield msgspec.json.encode({"choices": [_choice(texts, finish_reason)], **answer} | _object(answer))


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

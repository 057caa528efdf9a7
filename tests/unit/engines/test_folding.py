"""A whole answer read as a stream is the whole answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from neurogate.engines.engine import AnswerTooLargeError, EngineBrokenError, EngineCall
from neurogate.engines.folding import folded, streamed

PATH = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hi"}]
HEAD = {"id": "chatcmpl-1", "created": 5, "model": "m", "system_fingerprint": "b1", "object": "chat.completion.chunk"}
USAGE = {"completion_tokens": 2, "prompt_tokens": 3, "total_tokens": 5}
DONE = b"data: [DONE]\n\n"


def asked(**fields: Any) -> EngineCall:
    return EngineCall(PATH, json.dumps(fields).encode(), "r1")


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def delta(finish_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish_reason}]}


def fold(*pieces: bytes) -> Any:
    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def joined() -> bytes:
        return b"".join([piece async for piece in folded(body())])

    return json.loads(asyncio.run(joined()))


def test_a_plain_request_is_asked_as_a_stream() -> None:
    call = streamed(asked(messages=MESSAGES, seed=1 << 53, n=1, temperature=0, top_p=None, stream=False))

    assert call is not None
    assert (call.path, call.request_id) == (PATH, "r1")
    assert json.loads(call.body) == {
        "messages": MESSAGES,
        "seed": 1 << 53,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize(
    "call",
    [
        asked(messages=MESSAGES, stream=True),
        asked(messages=MESSAGES, n=2),
        asked(messages=MESSAGES, tools=[{}]),
        asked(messages=MESSAGES, logprobs=True),
        asked(messages=MESSAGES, response_format={"type": "json_object"}),
        asked(messages=MESSAGES, unheard_of=1),
        asked(prompt=["a", "b"]),
        EngineCall(PATH, b"[1]"),
        EngineCall(PATH, b"{oops"),
    ],
)
def test_what_might_mean_something_else_as_a_stream_is_passed_on_as_it_is(call: EngineCall) -> None:
    assert streamed(call) is None


def test_a_chat_is_folded_into_one_message() -> None:
    whole = fold(
        event(**HEAD, **delta(role="assistant", content=None)),
        event(**HEAD, **delta(reasoning_content="hm")) + b": ping\n\n",
        event(**HEAD, **delta(content="Hel")) + event(**HEAD, **delta(content="lo"))[:20],
        event(**HEAD, **delta(content="lo"))[20:],
        event(**HEAD, **delta("stop")),
        event(**HEAD, choices=[], usage=USAGE, timings={"predicted_n": 2}),
        DONE,
    )

    assert whole == {
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "Hello", "reasoning_content": "hm"},
            }
        ],
        **HEAD,
        "object": "chat.completion",
        "usage": USAGE,
        "timings": {"predicted_n": 2},
    }


def test_a_completion_is_folded_into_one_text() -> None:
    head = {**HEAD, "object": "text_completion"}
    texts = [{"choices": [{"text": text, "index": 0, "finish_reason": reason}]} for text, reason in
             (("a", None), ("b", None), ("", "length"))]  # fmt: skip

    whole = fold(*(event(**head, **text) for text in texts), DONE)

    assert whole["choices"] == [{"text": "ab", "index": 0, "logprobs": None, "finish_reason": "length"}]
    assert whole["object"] == "text_completion"


def test_an_answer_without_text_has_empty_content() -> None:
    assert fold(event(**HEAD, **delta("stop")), b"data: []\n\n", DONE)["choices"][0]["message"]["content"] == ""


def test_a_cut_stream_never_becomes_an_answer() -> None:
    with pytest.raises(EngineBrokenError, match="end mark"):
        fold(event(**HEAD, **delta(content="Hel")))


def test_what_is_no_event_breaks_the_answer() -> None:
    with pytest.raises(EngineBrokenError, match="no event: 'data: 5"):
        fold(event(**HEAD, **delta(content="Hel")), b"data: 5\n\n", DONE)


def test_an_error_in_the_stream_breaks_the_answer() -> None:
    with pytest.raises(EngineBrokenError, match="out of memory"):
        fold(event(**HEAD, **delta(content="Hel")), event(error={"message": "out of memory"}), DONE)


@pytest.mark.parametrize("odd", [{"choices": None}, {"choices": 5}, {"choices": [1, {"delta": [2]}, {"delta": 3}]}])
def test_choices_of_another_kind_are_passed_over(odd: dict[str, Any]) -> None:
    whole = fold(event(**odd), event(**delta(content="Hi")), DONE)
    assert whole["choices"][0]["message"]["content"] == "Hi"


@pytest.mark.parametrize(
    "said", [event(**delta(content="x" * 100)), event(**delta(**{"x" * 101: ""})), event(**{"x" * 100: 1})]
)
def test_a_folded_answer_is_bounded(said: bytes) -> None:
    """Whatever grows: the text, the fields of a message, those of the answer."""

    async def body() -> AsyncIterator[bytes]:
        yield said

    with pytest.raises(AnswerTooLargeError, match="NEUROGATE_MAX_ANSWER_BYTES, 100"):
        asyncio.run(anext(folded(body(), 100)))


def test_the_stream_keeps_the_limit_of_the_request() -> None:
    call = streamed(EngineCall(PATH, b'{"messages":[]}', max_answer_bytes=7))
    assert call is not None
    assert call.max_answer_bytes == 7

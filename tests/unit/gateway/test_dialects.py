"""How each API reads a request and words an answer or an error."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurogate.channel import End
from neurogate.errors import (
    BadRequestError,
    GatewayError,
    ModelNotFoundError,
    NoWorkerError,
    StreamBrokenError,
    UnauthorizedError,
)
from neurogate.gateway.dialects import Dialect, Head
from neurogate.gateway.dialects.openai import ChatRequest, CompletionRequest, OpenAIDialect
from neurogate.gateway.dialects.prompt import PromptDialect
from neurogate.prompt_api import PromptAnswer

PROMPT = PromptDialect()
CHAT = OpenAIDialect(ChatRequest)
COMPLETION = OpenAIDialect(CompletionRequest)

DIALECTS: dict[str, tuple[Dialect, dict[str, Any]]] = {
    "prompt": (PROMPT, {"query": "Why?"}),
    "chat": (CHAT, {"messages": [{"role": "user", "content": "Why?"}]}),
    "completion": (COMPLETION, {"prompt": "Why?"}),
}
EVERY = pytest.mark.parametrize("name", list(DIALECTS))


class _Tool(msgspec.Struct):
    role: str


class _Nested(ChatRequest, kw_only=True):
    tools: list[_Tool]


def encoded(name: str, **fields: Any) -> tuple[Dialect, bytes]:
    dialect, least = DIALECTS[name]
    return dialect, msgspec.json.encode({**least, **fields})


def refused(dialect: Dialect, body: bytes) -> BadRequestError:
    with pytest.raises(BadRequestError) as caught:
        dialect.read(body)
    assert caught.value.status == 400
    return caught.value


# Reading


@EVERY
def test_the_least_body_is_enough(name: str) -> None:
    dialect, body = encoded(name)
    assert dialect.read(body) == Head("", stream=False)


@EVERY
def test_model_and_stream_are_read(name: str) -> None:
    dialect, body = encoded(name, model="tiny", stream=True)
    assert dialect.read(body) == Head("tiny", stream=True)


@EVERY
def test_everything_else_is_the_engines_to_judge(name: str) -> None:
    dialect, body = encoded(name, max_tokens=5, temperature=0, top_p=2, seed=[1], tools={"a": None}, unknown="x")
    assert dialect.read(body) == Head("", stream=False, max_tokens=5)


@EVERY
def test_null_is_as_good_as_nothing(name: str) -> None:
    dialect, body = encoded(name, model=None, max_tokens=None, temperature=None)
    assert dialect.read(body) == Head("", stream=False)


@EVERY
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"{",
        b'{"a":1,}',
        b"\xff\xfe",
        b'{"query":"\\ud800","prompt":"\\ud800","messages":["\\ud800"]}',
        b'{"query":"x","prompt":"x","messages":[1]} trailing',
    ],
)
def test_malformed_json_is_said_to_be_so(name: str, body: bytes) -> None:
    error = refused(DIALECTS[name][0], body)
    assert error.message.startswith("the body is not valid JSON: ")
    assert error.param is None


@EVERY
@pytest.mark.parametrize("field", ["model", "query", "max_tokens"])
def test_text_that_is_no_utf8_is_malformed(name: str, field: str) -> None:
    dialect, body = encoded(name)
    broken = body.replace(b'"Why?"', b'"\xff"') if field == "query" else body[:-1] + b',"%s":"\xff"}' % field.encode()
    if name != "prompt" and field == "query":
        assert dialect.read(broken) == Head("", stream=False)  # the engine's own business
    else:
        assert refused(dialect, broken).message


@EVERY
def test_nesting_without_end_is_malformed(name: str) -> None:
    dialect, body = encoded(name)
    deep = body[:-1] + b',"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    assert "not valid JSON" in refused(dialect, deep).message


@EVERY
@pytest.mark.parametrize("body", [b"[]", b'"text"', b"null", b"1"])
def test_a_body_that_is_no_object_is_said_to_be_so(name: str, body: bytes) -> None:
    error = refused(DIALECTS[name][0], body)
    assert error.message.startswith("body: expected `object`, got ")
    assert error.param is None


@EVERY
def test_a_missing_field_is_named(name: str) -> None:
    [field] = DIALECTS[name][1]
    error = refused(DIALECTS[name][0], b'{"model":"tiny"}')
    assert (error.message, error.param) == (f"{field}: is required", field)


@EVERY
@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("model", 1, "model: expected `str | null`, got `int`"),
        ("model", ["a"], "model: expected `str | null`, got `array`"),
        ("stream", "yes", "stream: expected `bool"),
        ("stream", 1, "stream: expected `bool"),
        ("max_tokens", "5", "max_tokens: expected `int | null`, got `str`"),
        ("max_tokens", 1.5, "max_tokens: expected `int | null`, got `float`"),
        ("max_tokens", -1, "max_tokens: expected `int` >= "),
        ("max_tokens", 1_000_001, "max_tokens: expected `int` <= 1000000"),
        ("temperature", "hot", "temperature: expected `float | null`, got `str`"),
        ("temperature", -0.1, "temperature: expected `float` >= 0"),
        ("temperature", 2.1, "temperature: expected `float` <= 2"),
    ],
)
def test_a_wrong_field_is_named_with_what_it_must_be(name: str, field: str, value: object, told: str) -> None:
    dialect, body = encoded(name, **{field: value})
    error = refused(dialect, body)
    assert error.message.startswith(told)
    assert error.param == field


@pytest.mark.parametrize(
    ("dialect", "body", "message", "param"),
    [
        (PROMPT, b'{"query":""}', "query: expected `str` of length >= 1", "query"),
        (PROMPT, b'{"query":null}', "query: expected `str`, got `null`", "query"),
        (PROMPT, b'{"query":"x","max_tokens":0}', "max_tokens: expected `int` >= 1", "max_tokens"),
        (
            PROMPT,
            b'{"query":"x","system_prompt":1}',
            "system_prompt: expected `str | null`, got `int`",
            "system_prompt",
        ),
        (CHAT, b'{"messages":[]}', "messages: expected `array` of length >= 1", "messages"),
        (CHAT, b'{"messages":"hi"}', "messages: expected `array`, got `str`", "messages"),
        (
            CHAT,
            b'{"messages":[1],"max_completion_tokens":-1}',
            "max_completion_tokens: expected `int` >= 1",
            "max_completion_tokens",
        ),
    ],
)
def test_what_one_api_alone_asks_for(dialect: Dialect, body: bytes, message: str, param: str) -> None:
    error = refused(dialect, body)
    assert (error.message, error.param) == (message, param)


def test_a_path_within_a_field_is_told_whole() -> None:
    """The words are those of a decoder that looked inside."""

    error = refused(OpenAIDialect(_Nested), b'{"messages":[1],"tools":[{"role":"a"},{"role":2}]}')
    assert error.param == "tools[1].role"
    assert error.message == "tools[1].role: expected `str`, got `int`"


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    for dialect, _ in DIALECTS.values():
        try:
            dialect.read(body)
        except BadRequestError as error:
            msgspec.json.decode(dialect.error(error, "r-1"))


# Answers


def test_an_openai_answer_passes_untouched() -> None:
    answer = CHAT.answer(
        End(http_status=201, content_type="text/x"), b"\x00 anything", worker_id="worker-0", latency_ms=5
    )
    assert answer == (201, b"text/x", b"\x00 anything")
    assert CHAT.answer(End(), b"{}", worker_id="", latency_ms=0) == (200, b"application/json", b"{}")


def test_an_openai_refusal_passes_untouched_and_is_worded_when_it_says_nothing() -> None:
    engine = b'{"error":{"message":"too long"}}'
    assert CHAT.answer(End(http_status=400), engine, worker_id="w", latency_ms=0).body == engine
    answer = CHAT.answer(End(http_status=404, message="no such model"), b"", worker_id="w", latency_ms=0)
    assert (answer.status, answer.content_type) == (404, b"application/json")
    assert msgspec.json.decode(answer.body)["error"] == {
        "message": "no such model",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
    silent = CHAT.answer(End(http_status=413), b"", worker_id="w", latency_ms=0)
    assert "status 413" in msgspec.json.decode(silent.body)["error"]["message"]


def test_a_prompt_answer_gets_what_only_the_gateway_knows() -> None:
    said = PromptAnswer(
        request_id="r-1",
        response="Hello",
        model="tiny",
        tokens=7,
        prompt_tokens=5,
        completion_tokens=2,
        finish_reason="stop",
        inference_time_ms=120,
    )
    answer = PROMPT.answer(End(http_status=200), msgspec.json.encode(said), worker_id="worker-1", latency_ms=150)
    assert (answer.status, answer.content_type) == (200, b"application/json")
    assert msgspec.json.decode(answer.body) == {
        **msgspec.to_builtins(said),
        "worker_id": "worker-1",
        "latency_ms": 150,
    }


@pytest.mark.parametrize(
    ("end", "body", "message", "code"),
    [
        (End(http_status=404, message="no such model"), b"", "no such model", "model_not_found"),
        (End(http_status=400), b"too long \xff", "too long \ufffd", "invalid_request"),
        (End(http_status=413), b"", "the engine refused the request with status 413", "invalid_request"),
    ],
)
def test_a_prompt_refusal_is_worded(end: End, body: bytes, message: str, code: str) -> None:
    answer = PROMPT.answer(end, body, worker_id="w", latency_ms=0)
    assert answer.status == end.http_status
    assert msgspec.json.decode(answer.body) == {"error": "invalid_request_error", "code": code, "message": message}


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"request_id":1}', b'{"request_id":"\xff"}'])
def test_a_prompt_answer_that_is_none_is_a_value_error(body: bytes) -> None:
    """What whoever asked for it can catch, whatever is wrong with the bytes."""
    with pytest.raises(ValueError):  # noqa: PT011 - the decoder words it
        PROMPT.answer(End(http_status=200), body, worker_id="w", latency_ms=0)


# Errors

ERRORS = [
    BadRequestError("query: is required", param="query"),
    ModelNotFoundError("no worker has the model 'x'", param="model"),
    UnauthorizedError("an API key is needed"),
    NoWorkerError('quotes " and \n lines', retry_after_s=2),
    GatewayError("bug"),
]


@pytest.mark.parametrize("error", ERRORS)
def test_errors_in_openais_words(error: GatewayError) -> None:
    assert msgspec.json.decode(CHAT.error(error, "r-1")) == {
        "error": {"message": error.message, "type": error.kind, "param": error.param, "code": error.code}
    }


@pytest.mark.parametrize("error", ERRORS)
def test_errors_in_our_own_words(error: GatewayError) -> None:
    said = {"error": error.kind, "code": error.code, "message": error.message}
    assert msgspec.json.decode(PROMPT.error(error, "r-1")) == {**said, "request_id": "r-1"}
    assert msgspec.json.decode(PROMPT.error(error, "")) == said


@pytest.mark.parametrize("dialect", [PROMPT, CHAT])
def test_an_error_event_stands_apart_from_whatever_came_before(dialect: Dialect) -> None:
    """The last event may have been cut: a blank line ends it."""
    event = dialect.error_event(StreamBrokenError("the answer broke off"), "r-1")
    assert event.startswith(b"\n\ndata: ")
    assert event.endswith(b"\n\n")
    assert b"\n" not in event[2:-2]
    said = msgspec.json.decode(event[8:-2])
    assert b"[DONE]" not in event
    if dialect is PROMPT:
        assert (said["done"], said["code"], said["request_id"]) == (False, "stream_broken", "r-1")
    else:
        assert said["error"]["code"] == "stream_broken"

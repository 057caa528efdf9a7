"""Anthropic's, llama.cpp's and OpenAI's other APIs: what is read of them, and errors in their clients' words."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from neurogate.channel import End
from neurogate.errors import (
    BadRequestError,
    BusyError,
    DeadlineError,
    EngineFailedError,
    ForbiddenError,
    GatewayError,
    ModelNotFoundError,
    RateLimitedError,
    StreamBrokenError,
    TooLargeError,
    UnauthorizedError,
    UnsupportedError,
)
from neurogate.gateway.dialects import Head
from neurogate.gateway.dialects.table import dialects
from neurogate.operations import OPERATIONS, Ending, Family

DIALECTS = dialects()
MESSAGES = [{"role": "user", "content": "Why?"}]
LEAST: dict[str, dict[str, Any]] = {
    "/prompt": {"query": "Why?"},
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": "Why?"},
    "/v1/responses": {"input": "Why?"},
    "/v1/embeddings": {"input": ["Why?"]},
    "/v1/rerank": {"query": "Why?", "documents": ["a"]},
    "/v1/messages": {"messages": MESSAGES},
    "/v1/messages/count_tokens": {"messages": MESSAGES},
    "/completion": {"prompt": [1, 2]},
    "/infill": {"input_prefix": "a", "input_suffix": "b"},
    "/tokenize": {"content": "Why?"},
    "/detokenize": {"tokens": [1, 2]},
    "/apply-template": {"messages": MESSAGES},
}
OURS = [path for path, operation in OPERATIONS.items() if operation.family is not Family.OLLAMA]
STREAMED = [path for path in OURS if OPERATIONS[path].ending is not Ending.NONE]


def read(path: str, **fields: Any) -> Head:
    return DIALECTS[path].read(msgspec.json.encode({**LEAST[path], **fields}))


def refusal(path: str, **fields: Any) -> BadRequestError:
    with pytest.raises(BadRequestError) as caught:
        read(path, **fields)
    return caught.value


def test_every_api_has_a_dialect() -> None:
    assert set(OURS) <= set(DIALECTS)


@pytest.mark.parametrize("path", OURS)
def test_the_least_body_is_enough(path: str) -> None:
    assert read(path) == Head("", stream=False)
    assert read(path, model="org/name").model == "org/name"


@pytest.mark.parametrize("path", OURS)
def test_only_what_can_be_streamed_is(path: str) -> None:
    """An embedding with `stream: true` is a whole answer all the same."""
    assert read(path, stream=True).stream == (path in STREAMED)


@pytest.mark.parametrize(
    ("path", "fields", "tokens"),
    [
        ("/v1/chat/completions", {"max_tokens": 3, "max_completion_tokens": 7}, 7),
        ("/v1/chat/completions", {"max_tokens": 7, "max_completion_tokens": 3}, 7),
        ("/v1/chat/completions", {"max_tokens": 7, "n_predict": 7}, 7),
        ("/v1/chat/completions", {"n_predict": 7}, 7),
        ("/v1/chat/completions", {"n_predict": -1}, None),
        ("/v1/responses", {"max_output_tokens": 7}, 7),
        ("/v1/messages", {"max_tokens": 7}, 7),
        ("/completion", {"n_predict": 7, "max_tokens": 3}, 7),
        ("/completion", {"max_tokens": 3}, 3),
        ("/completion", {"n_predict": -1, "max_tokens": 3}, None),
        ("/completion", {"n_predict": 0}, 0),
        ("/infill", {"n_predict": 7}, 7),
        ("/prompt", {"max_tokens": 7}, 7),
    ],
)
def test_the_most_tokens_asked_for_are_read(path: str, fields: dict[str, Any], tokens: int | None) -> None:
    assert read(path, **fields).max_tokens == tokens


@pytest.mark.parametrize(
    ("path", "fields", "n"),
    [
        ("/v1/chat/completions", {"n": 3}, 3),
        ("/v1/chat/completions", {"n": None}, 1),
        ("/completion", {"n": 3}, 3),
        ("/completion", {"n_cmpl": 4, "n": 3}, 4),
        ("/v1/completions", {"n": 2, "best_of": 5}, 5),
        ("/v1/completions", {"n": 5, "best_of": None}, 5),
        ("/v1/completions", {"prompt": ["a", "b"]}, 2),
        ("/v1/completions", {"prompt": ["a", "b", "c"], "n": 2, "best_of": 4}, 12),
        ("/v1/completions", {"prompt": [1, 2, 3]}, 1),
        ("/v1/completions", {"prompt": [[1, 2], [3]]}, 2),
        ("/completion", {"prompt": ["a", [1, 2], "c"]}, 3),
        ("/completion", {"prompt": ["a", "b"], "n": 3}, 6),
        ("/completion", {"prompt": ["a", 1, 2]}, 1),
        ("/completion", {"prompt": [-1]}, 1),
        ("/completion", {"prompt": []}, 1),
        ("/completion", {"prompt": {"prompt_string": "a"}}, 1),
    ],
)
def test_the_choices_asked_for_are_read(path: str, fields: dict[str, Any], n: int) -> None:
    assert read(path, **fields).n == n


@pytest.mark.parametrize(("prompt", "n"), [(b' [\n "a" ,\t"b"]', 2), (b"[    7 , 8 ]", 1), (b'  "[1]"', 1)])
def test_white_space_changes_nothing_about_how_many_prompts_there_are(prompt: bytes, n: int) -> None:
    assert DIALECTS["/completion"].read(b'{"prompt": ' + prompt + b"}").n == n


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/v1/chat/completions", {"max_tokens": 0}, "max_tokens"),
        ("/v1/chat/completions", {"max_tokens": 5, "n_predict": 9}, "n_predict"),
        ("/v1/completions", {"max_tokens": 5, "n_predict": -1}, "n_predict"),
        ("/v1/completions", {"n_predict": 0}, "n_predict"),
        ("/v1/completions", {"n_predict": -3}, "n_predict"),
        ("/v1/completions", {"n": 0}, "n"),
        ("/v1/completions", {"n": 129}, "n"),
        ("/v1/completions", {"best_of": 129}, "best_of"),
        ("/v1/responses", {"max_output_tokens": 0}, "max_output_tokens"),
        ("/v1/messages", {"max_tokens": 0}, "max_tokens"),
        ("/v1/messages", {"messages": []}, "messages"),
        ("/v1/messages", {"stream": "yes"}, "stream"),
        ("/v1/embeddings", {"model": 5}, "model"),
        ("/completion", {"n_predict": "many"}, "n_predict"),
        ("/infill", {"input_prefix": 5}, "input_prefix"),
        ("/detokenize", {"tokens": "text"}, "tokens"),
    ],
)
def test_what_no_engine_takes_is_refused_by_name(path: str, fields: dict[str, Any], param: str) -> None:
    error = refusal(path, **fields)
    assert error.param == param
    assert error.message.startswith(f"{param}: ")


# Answers


@pytest.mark.parametrize("path", [path for path in OURS if path != "/prompt"])
def test_an_answer_passes_untouched(path: str) -> None:
    answer = DIALECTS[path].answer(
        End(http_status=200, content_type="text/x"), b"\x00 anything", worker_id="w", latency_ms=1
    )
    assert answer == (200, b"text/x", b"\x00 anything")
    assert DIALECTS[path].answer(End(), b"{}", worker_id="", latency_ms=0) == (200, b"application/json", b"{}")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"code":400,"message":"too long","type":"x"}}', "too long"),
        (b'{"error":"too long"}', "too long"),
        (b'{"type":"error","error":"too long"}', "too long"),
        (b'{"detail":"too long"}', "too long"),
        (b'{"detail":[1]}', "the engine refused the request with status 400"),
        (b"too long\n", "too long"),
        (b"[1]", "the engine refused the request with status 400"),
        (b"", "the engine refused the request with status 400"),
    ],
)
def test_an_engines_refusal_is_reworded_for_anthropics_clients(body: bytes, message: str) -> None:
    answer = DIALECTS["/v1/messages"].answer(End(http_status=400), body, worker_id="w", latency_ms=1)
    assert (answer.status, answer.content_type) == (400, b"application/json")
    assert msgspec.json.decode(answer.body) == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": message},
    }


def test_a_refusal_in_anthropics_own_words_passes_untouched() -> None:
    body = b'{ "type":"error", "error":{"type":"not_found_error","message":"x"}}'
    assert DIALECTS["/v1/messages"].answer(End(http_status=404), body, worker_id="w", latency_ms=1).body == body


def test_llamacpps_refusals_pass_untouched_and_are_worded_when_they_say_nothing() -> None:
    said = b'{"error":{"code":400}}'
    native = DIALECTS["/completion"]
    assert native.answer(End(http_status=400), said, worker_id="w", latency_ms=1).body == said
    silent = native.answer(End(http_status=404, message="no such model"), b"", worker_id="w", latency_ms=1)
    assert msgspec.json.decode(silent.body) == {
        "error": {"code": 404, "message": "no such model", "type": "not_found_error"}
    }


# Errors


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BadRequestError("x"), "invalid_request_error"),
        (UnauthorizedError("x"), "authentication_error"),
        (ForbiddenError("x"), "permission_error"),
        (ModelNotFoundError("x"), "not_found_error"),
        (TooLargeError("x"), "request_too_large"),
        (RateLimitedError("x"), "rate_limit_error"),
        (EngineFailedError("x"), "api_error"),
        (UnsupportedError("x"), "api_error"),
        (BusyError("x"), "overloaded_error"),
        (DeadlineError("x"), "timeout_error"),
    ],
)
def test_errors_in_anthropics_words(error: GatewayError, kind: str) -> None:
    body = DIALECTS["/v1/messages"].error(error, "r-1")
    assert msgspec.json.decode(body) == {
        "type": "error",
        "error": {"type": kind, "message": "x"},
        "request_id": "r-1",
    }


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BadRequestError("x"), "invalid_request_error"),
        (UnauthorizedError("x"), "authentication_error"),
        (EngineFailedError("x"), "server_error"),
        (UnsupportedError("x"), "not_supported_error"),
        (BusyError("x"), "unavailable_error"),
        (RateLimitedError("x"), "rate_limit_error"),
    ],
)
def test_errors_in_llamacpps_words(error: GatewayError, kind: str) -> None:
    body = DIALECTS["/completion"].error(error, "r-1")
    assert msgspec.json.decode(body) == {"error": {"code": error.status, "message": "x", "type": kind}}


@pytest.mark.parametrize(
    ("path", "head"),
    [
        ("/v1/messages", b"\n\nevent: error\ndata: "),
        ("/v1/responses", b"\n\nevent: error\ndata: "),
        ("/completion", b"\n\ndata: "),
    ],
)
def test_an_error_event_stands_apart_and_is_seen(path: str, head: bytes) -> None:
    event = DIALECTS[path].error_event(StreamBrokenError("it broke"), "r-1")
    assert event.startswith(head)
    assert event.endswith(b"\n\n")
    said = msgspec.json.decode(event.removeprefix(head))
    assert said["error"]["message"] == "it broke"
    if path != "/completion":
        assert said["type"] == "error"

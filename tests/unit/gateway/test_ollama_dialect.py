"""Ollama's API at the gateway: what is read of a request, and errors in Ollama's words."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from neurogate.channel import End
from neurogate.errors import (
    BadRequestError,
    GatewayError,
    ModelNotFoundError,
    NoWorkerError,
    RateLimitedError,
    StreamBrokenError,
    UnauthorizedError,
)
from neurogate.gateway.dialects import Head
from neurogate.gateway.dialects.table import dialects
from neurogate.operations import OPERATIONS, Family
from neurogate.prompt_api import MAX_TOKENS

KNOWN = {"tiny", "big:latest"}
DIALECTS = dialects(lambda: KNOWN)
PATHS = [path for path, operation in OPERATIONS.items() if operation.family is Family.OLLAMA]
EVERY_PATH = pytest.mark.parametrize("path", PATHS)
GENERATING = pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])


def read(path: str, **fields: Any) -> Head:
    return DIALECTS[path].read(msgspec.json.encode(fields))


@EVERY_PATH
@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("tiny", "tiny"),
        ("tiny:latest", "tiny"),
        ("big", "big:latest"),
        ("big:latest", "big:latest"),
        ("other:latest", "other"),
        ("other:7b", "other:7b"),
    ],
)
def test_a_model_is_found_with_and_without_latest(path: str, asked: str, found: str) -> None:
    assert read(path, model=asked).model == found


def test_names_are_those_of_now() -> None:
    names = {"tiny"}
    dialect = dialects(lambda: names)["/api/chat"]
    assert dialect.read(b'{"model":"new"}').model == "new"
    names.add("new:latest")
    assert dialect.read(b'{"model":"new"}').model == "new:latest"


def test_without_a_fleet_the_tag_is_left_out() -> None:
    assert dialects()["/api/chat"].read(b'{"model":"tiny:latest"}').model == "tiny"


@GENERATING
@pytest.mark.parametrize(
    ("fields", "head"),
    [
        ({}, Head("tiny", stream=True)),
        ({"stream": None}, Head("tiny", stream=True)),
        ({"stream": True}, Head("tiny", stream=True)),
        ({"stream": False}, Head("tiny", stream=False)),
        ({"options": {"num_predict": 7}}, Head("tiny", stream=True, max_tokens=7)),
        ({"options": {"num_predict": -7}}, Head("tiny", stream=True)),
        ({"options": {"num_predict": 0, "num_ctx": 1}}, Head("tiny", stream=True)),
        ({"options": None, "unknown": 1}, Head("tiny", stream=True)),
    ],
)
def test_what_is_read_of_a_generation(path: str, fields: dict[str, Any], head: Head) -> None:
    assert read(path, model="tiny", **fields) == head


@pytest.mark.parametrize("path", ["/api/embed", "/api/embeddings", "/api/show"])
def test_the_rest_is_never_streamed(path: str) -> None:
    assert read(path, model="tiny", stream=True) == Head("tiny", stream=False)


def test_a_description_takes_the_former_name() -> None:
    assert read("/api/show", name="tiny:latest").model == "tiny"


@EVERY_PATH
@pytest.mark.parametrize("fields", [{}, {"model": ""}, {"model": 1}])
def test_a_model_must_be_named(path: str, fields: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError, match="model"):
        read(path, **fields)


@EVERY_PATH
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model":"\xff"}'])
def test_a_body_that_cannot_be_read_is_refused(path: str, body: bytes) -> None:
    with pytest.raises(BadRequestError):
        DIALECTS[path].read(body)


@GENERATING
@pytest.mark.parametrize("limit", [MAX_TOKENS + 1, "many"])
def test_an_absurd_limit_is_refused(path: str, limit: Any) -> None:
    with pytest.raises(BadRequestError) as refused:
        read(path, model="tiny", options={"num_predict": limit})
    assert refused.value.param == "options.num_predict"


@EVERY_PATH
@pytest.mark.parametrize(
    "error",
    [
        BadRequestError("stream: must be a boolean", param="stream"),
        UnauthorizedError("an API key is needed"),
        NoWorkerError("no worker can take the request now"),
        RateLimitedError("slow down"),
    ],
)
def test_an_error_is_one_message(path: str, error: GatewayError) -> None:
    assert json.loads(DIALECTS[path].error(error, "r-1")) == {"error": error.message}


def test_a_model_that_is_not_there_is_said_to_be_not_found() -> None:
    error = ModelNotFoundError("no worker has the model 'x'; the models are: tiny")
    assert json.loads(DIALECTS["/api/chat"].error(error, "")) == {"error": f"model not found: {error.message}"}
    told = ModelNotFoundError("model 'x' not found")
    assert json.loads(DIALECTS["/api/chat"].error(told, "")) == {"error": "model 'x' not found"}


@GENERATING
def test_an_error_in_a_stream_is_one_more_line(path: str) -> None:
    """Clients decode every line, so there is no empty one; after half a line, none that can be decoded is left."""
    line = DIALECTS[path].error_event(StreamBrokenError("broke off"), "r-1")
    assert line == b'{"error":"broke off"}\n'
    for half in (b'{"response":"H', b'{"response":', b'{"response":"Hi"', b"{", b'{"done":tru'):
        with pytest.raises(ValueError, match=r"Expecting|Unterminated|delimiter"):
            json.loads(half + line)


@EVERY_PATH
def test_answers_pass_as_they_are(path: str) -> None:
    answer = DIALECTS[path].answer(End(http_status=200), b'{"x": 1}', worker_id="w", latency_ms=1)
    assert answer == (200, b"application/json", b'{"x": 1}')
    assert DIALECTS[path].stream_type == b"application/x-ndjson"


@pytest.mark.parametrize(
    ("end", "body", "told"),
    [
        (End(http_status=404), b'{"error":"model \'x\' not found"}', "model 'x' not found"),
        (End(http_status=400, message="format: is wrong"), b"", "format: is wrong"),
        (End(http_status=400), b'{"error":{"message":"too long","code":400}}', "too long"),
        (End(http_status=400), b"nonsense", "nonsense"),
        (End(http_status=409), b"", "the engine refused the request with status 409"),
    ],
)
def test_refusals_are_worded_as_ollama_does(end: End, body: bytes, told: str) -> None:
    answer = DIALECTS["/api/chat"].answer(end, body, worker_id="w", latency_ms=1)
    assert (answer.status, json.loads(answer.body)) == (end.http_status, {"error": told})

"""The gateway's errors as the official clients of OpenAI and Anthropic take them: each raises what it documents."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx
import openai
import pytest

from neurogate.errors import (
    BadRequestError,
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
from neurogate.gateway.dialects.table import dialects

MESSAGES: Any = [{"role": "user", "content": "Why?"}]
CHAT = "/v1/chat/completions"
EVENTS = {
    CHAT: b'data: {"id":"1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n',
    "/v1/responses": b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"Hi"}\n\n',
    "/v1/messages": (
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":"Hi"}}\n\n'
    ),
}
DIALECTS = dialects(lambda: ())


@dataclass
class Answer:
    """What the gateway says, whichever HTTP library a client brings."""

    status: int
    body: bytes
    kind: str = "application/json"

    def through(self, library: Any) -> Any:
        headers = {"content-type": self.kind, "x-request-id": "r-1"}
        answer = library.Response(self.status, content=self.body, headers=headers)
        return library.Client(transport=library.MockTransport(lambda _: answer))


def refusing(path: str, error: GatewayError) -> Answer:
    return Answer(error.status, DIALECTS[path].error(error, "r-1"))


def breaking(path: str) -> Answer:
    event = DIALECTS[path].error_event(StreamBrokenError("worker-0 is gone"), "r-1")
    return Answer(200, EVENTS[path] + event, "text/event-stream")


def of_openai(answer: Answer) -> openai.OpenAI:
    http = answer.through(httpx)
    return openai.OpenAI(base_url="http://gateway/v1", api_key="k", http_client=http, max_retries=0)


def of_anthropic(answer: Answer) -> anthropic.Anthropic:
    library = importlib.import_module(anthropic.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0])
    http = answer.through(library)
    return anthropic.Anthropic(base_url="http://gateway", api_key="k", http_client=http, max_retries=0)


def until_it_breaks(stream: Iterable[Any]) -> int:
    return sum(1 for _ in stream)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BadRequestError("x", param="n"), openai.BadRequestError),
        (UnauthorizedError("x"), openai.AuthenticationError),
        (ForbiddenError("x"), openai.PermissionDeniedError),
        (ModelNotFoundError("x"), openai.NotFoundError),
        (RateLimitedError("x"), openai.RateLimitError),
        (EngineFailedError("x"), openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/v1/responses"])
def test_openais_client_raises_its_own_errors(
    path: str, error: GatewayError, kind: type[openai.APIStatusError]
) -> None:
    with of_openai(refusing(path, error)) as client:
        asking = (
            functools.partial(client.chat.completions.create, messages=MESSAGES)
            if path == CHAT
            else functools.partial(client.responses.create, input="Why?")
        )
        with pytest.raises(kind) as caught:
            asking(model="m")
    raised = caught.value
    assert (raised.code, raised.type, raised.param) == (error.code, error.kind, error.param)
    assert raised.request_id == "r-1"


@pytest.mark.parametrize(
    ("error", "kind", "word"),
    [
        (BadRequestError("x"), anthropic.BadRequestError, "invalid_request_error"),
        (UnauthorizedError("x"), anthropic.AuthenticationError, "authentication_error"),
        (ForbiddenError("x"), anthropic.PermissionDeniedError, "permission_error"),
        (ModelNotFoundError("x"), anthropic.NotFoundError, "not_found_error"),
        (TooLargeError("x"), anthropic.APIStatusError, "request_too_large"),
        (RateLimitedError("x"), anthropic.RateLimitError, "rate_limit_error"),
        (UnsupportedError("x"), anthropic.InternalServerError, "api_error"),
    ],
)
def test_anthropics_client_raises_its_own_errors(
    error: GatewayError, kind: type[anthropic.APIStatusError], word: str
) -> None:
    with of_anthropic(refusing("/v1/messages", error)) as client, pytest.raises(kind) as caught:
        client.messages.create(model="m", max_tokens=5, messages=MESSAGES)
    body: Any = caught.value.body
    assert (body["type"], body["error"], body["request_id"]) == ("error", {"type": word, "message": "x"}, "r-1")


def test_a_broken_stream_raises_in_openais_client() -> None:
    with of_openai(breaking(CHAT)) as client, pytest.raises(openai.APIError, match="worker-0 is gone"):
        until_it_breaks(client.chat.completions.create(model="m", messages=MESSAGES, stream=True))
    with of_openai(breaking("/v1/responses")) as client, pytest.raises(openai.APIError, match="worker-0 is gone"):
        until_it_breaks(client.responses.create(model="m", input="Why?", stream=True))


def test_a_broken_stream_raises_in_anthropics_client() -> None:
    with of_anthropic(breaking("/v1/messages")) as client, pytest.raises(anthropic.APIStatusError) as caught:
        until_it_breaks(client.messages.create(model="m", max_tokens=5, messages=MESSAGES, stream=True))
    assert "worker-0 is gone" in str(caught.value)

"""OpenAI's API: bodies and answers pass untouched, errors are `{"error": {message, type, param, code}}`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from neurogate.channel import End
from neurogate.errors import BadRequestError, GatewayError
from neurogate.gateway.dialects.dialect import (
    EVENT_STREAM,
    JSON,
    Answer,
    Choices,
    Head,
    Request,
    Tokens,
    UnboundedTokens,
    prompts_in,
    reader,
    refused,
)

_encode = msgspec.json.encode


class _Sampling(Request, kw_only=True):
    stream: bool | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    n_predict: UnboundedTokens | None = None
    """llama.cpp's own, which there overrides the other two."""
    n: Choices | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None

    def head(self) -> Head:
        """See Request.head."""
        most = self.max_tokens
        if self.max_completion_tokens is not None and (most is None or self.max_completion_tokens > most):
            most = self.max_completion_tokens
        if self.n_predict is not None:
            most = self._llamacpp_limit(self.n_predict, most)
        return Head(self.model or "", self.stream is True, most, self.n or 1)

    @staticmethod
    def _llamacpp_limit(n_predict: int, most: int | None) -> int | None:
        if most is not None and n_predict != most:
            raise BadRequestError("n_predict: contradicts max_tokens; give one of them", param="n_predict")
        if n_predict == 0:
            raise BadRequestError("n_predict: must not be 0", param="n_predict")
        return n_predict if n_predict > 0 else None


class ChatRequest(_Sampling, kw_only=True):
    """`/v1/chat/completions`."""

    messages: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1)]


class CompletionRequest(_Sampling, kw_only=True):
    """`/v1/completions`."""

    prompt: msgspec.Raw
    best_of: Choices | None = None
    """Answers that are generated for the sake of the best n."""

    def head(self) -> Head:
        """See Request.head."""
        head = super().head()
        return head._replace(n=prompts_in(self.prompt) * max(head.n, self.best_of or 1))


class ResponsesRequest(Request, kw_only=True):
    """`/v1/responses`."""

    stream: bool | None = None
    max_output_tokens: Tokens | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None

    def head(self) -> Head:
        """See Request.head."""
        return Head(self.model or "", self.stream is True, self.max_output_tokens)


class EmbeddingsRequest(Request, kw_only=True):
    """`/v1/embeddings`."""

    input: msgspec.Raw


class RerankRequest(Request, kw_only=True):
    """`/v1/rerank`."""

    query: msgspec.Raw
    documents: msgspec.Raw


class OpenAIDialect:
    """See the module."""

    stream_type = EVENT_STREAM
    id_header = b""

    def __init__(self, request: type[Request]) -> None:
        self._read = reader(request)

    def read(self, body: bytes) -> Head:
        """Validate a body. Raises BadRequestError saying what to change."""
        return self._read(body)

    def answer(self, end: End, body: bytes, *, worker_id: str, latency_ms: int) -> Answer:  # noqa: ARG002 - contract
        """The engine's bytes and status; a refusal without a body is worded here."""
        if body or end.http_status < 400:
            return Answer(end.http_status or 200, end.content_type.encode() or JSON, body)
        return Answer(end.http_status, JSON, self.error(refused(end, end.message), ""))

    def error(self, error: GatewayError, request_id: str) -> bytes:  # noqa: ARG002 - OpenAI's shape has no place for it
        """`{"error": {message, type, param, code}}`."""
        return _encode({"error": openai_error(error)})

    def error_event(self, error: GatewayError, request_id: str) -> bytes:
        """The same as an event, as OpenAI's clients expect it."""
        return b"\n\ndata: " + self.error(error, request_id) + b"\n\n"


class ResponsesDialect(OpenAIDialect):
    """`/v1/responses`, whose events are typed."""

    def error_event(self, error: GatewayError, request_id: str) -> bytes:  # noqa: ARG002 - as above
        """OpenAI's `error` event, with an `error` object as well: that one makes the official client raise."""
        said = openai_error(error)
        event = {"type": "error", "code": error.code, "message": error.message, "param": error.param, "error": said}
        return b"\n\nevent: error\ndata: " + _encode(event) + b"\n\n"


def openai_error(error: GatewayError) -> dict[str, object]:
    """The object under `error`."""
    return {"message": error.message, "type": error.kind, "param": error.param, "code": error.code}

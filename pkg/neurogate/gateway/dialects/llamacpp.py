"""llama.cpp's own endpoints: bodies and answers pass untouched, errors are `{"error": {code, message, type}}`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from neurogate.channel import End
from neurogate.errors import GatewayError
from neurogate.gateway.dialects.dialect import (
    EVENT_STREAM,
    JSON,
    Answer,
    Choices,
    Head,
    Request,
    UnboundedTokens,
    prompts_in,
    reader,
    told,
)

_encode = msgspec.json.encode

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    500: "server_error",
    501: "not_supported_error",
    502: "server_error",
    503: "unavailable_error",
}
"""`error.type` by status, as llama.cpp's server has it; the rest keep our own."""


class _Predicting(Request, kw_only=True):
    stream: bool | None = None
    n_predict: UnboundedTokens | None = None
    max_tokens: UnboundedTokens | None = None
    """Another name of n_predict, which wins."""
    n: Choices | None = None
    n_cmpl: Choices | None = None
    """Another name of n, which wins."""

    def head(self) -> Head:
        """See Request.head."""
        most = self.n_predict if self.n_predict is not None else self.max_tokens
        return Head(
            self.model or "",
            self.stream is True,
            most if most is not None and most >= 0 else None,
            self.n_cmpl or self.n or 1,
        )


class NativeCompletionRequest(_Predicting, kw_only=True):
    """`/completion`."""

    prompt: msgspec.Raw

    def head(self) -> Head:
        """See Request.head."""
        head = super().head()
        return head._replace(n=prompts_in(self.prompt) * head.n)


class InfillRequest(_Predicting, kw_only=True):
    """`/infill`."""

    input_prefix: str | None = None
    input_suffix: str | None = None


class TokenizeRequest(Request, kw_only=True):
    """`/tokenize`: its content is for the engine to judge."""


class DetokenizeRequest(Request, kw_only=True):
    """`/detokenize`."""

    tokens: list[int] | None = None


class TemplateRequest(Request, kw_only=True):
    """`/apply-template`."""

    messages: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1)]


class LlamaCppDialect:
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
        status = end.http_status or 200
        if body or status < 400:
            return Answer(status, end.content_type.encode() or JSON, body)
        message = told(end, body) or f"the engine refused the request with status {status}"
        return Answer(status, JSON, _encode(llamacpp_error(status, "invalid_request_error", message)))

    def error(self, error: GatewayError, request_id: str) -> bytes:  # noqa: ARG002 - the shape has no place for it
        """`{"error": {code, message, type}}`; the code is the status."""
        return _encode(llamacpp_error(error.status, error.kind, error.message))

    def error_event(self, error: GatewayError, request_id: str) -> bytes:
        """The same as an event."""
        return b"\n\ndata: " + self.error(error, request_id) + b"\n\n"


def llamacpp_error(status: int, kind: str, message: str) -> dict[str, object]:
    """The error body that goes with a status."""
    return {"error": {"code": status, "message": message, "type": _TYPES.get(status, kind)}}

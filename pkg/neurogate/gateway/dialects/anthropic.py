"""Anthropic's Messages API: bodies and answers pass untouched, errors are in Anthropic's shape whoever made them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from neurogate.channel import End
from neurogate.errors import GatewayError
from neurogate.gateway.dialects.dialect import (
    EVENT_STREAM,
    JSON,
    Answer,
    Head,
    Request,
    Tokens,
    reader,
    told,
)
from neurogate.prompt_api import UNDECODABLE

_encode = msgspec.json.encode

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""`error.type` by status; what is not here is an `invalid_request_error` below 500, an `api_error` above."""


class MessagesRequest(Request, kw_only=True):
    """`/v1/messages`."""

    messages: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1)]
    stream: bool | None = None
    max_tokens: Tokens | None = None

    def head(self) -> Head:
        """See Request.head."""
        return Head(self.model or "", self.stream is True, self.max_tokens)


class CountTokensRequest(Request, kw_only=True):
    """`/v1/messages/count_tokens`."""

    messages: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1)]


class AnthropicDialect:
    """See the module."""

    stream_type = EVENT_STREAM
    id_header = b"request-id"

    def __init__(self, request: type[Request]) -> None:
        self._read = reader(request)

    def read(self, body: bytes) -> Head:
        """Validate a body. Raises BadRequestError saying what to change."""
        return self._read(body)

    def answer(self, end: End, body: bytes, *, worker_id: str, latency_ms: int) -> Answer:  # noqa: ARG002 - contract
        """The engine's bytes and status; a refusal in other words is reworded."""
        status = end.http_status or 200
        if status < 400 or _is_anthropic(body):
            return Answer(status, end.content_type.encode() or JSON, body)
        message = told(end, body) or f"the engine refused the request with status {status}"
        return Answer(status, JSON, _encode(anthropic_error(status, message, "")))

    def error(self, error: GatewayError, request_id: str) -> bytes:
        """`{"type": "error", "error": {type, message}, "request_id"}`."""
        return _encode(anthropic_error(error.status, error.message, request_id))

    def error_event(self, error: GatewayError, request_id: str) -> bytes:
        """The same as the event `error`, which makes Anthropic's clients raise."""
        return b"\n\nevent: error\ndata: " + self.error(error, request_id) + b"\n\n"


def anthropic_error(status: int, message: str, request_id: str) -> dict[str, object]:
    """The error body that goes with a status."""
    kind = _TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")
    said: dict[str, object] = {"type": "error", "error": {"type": kind, "message": message}}
    if request_id:
        said["request_id"] = request_id
    return said


def _is_anthropic(body: bytes) -> bool:
    try:
        said: Any = msgspec.json.decode(body)
    except UNDECODABLE:
        return False
    return isinstance(said, dict) and said.get("type") == "error" and isinstance(said.get("error"), dict)

"""The APIs of the hot path: how each reads a request and words an answer or an error.

A dialect never touches a token: streamed bytes pass as they are. It reads the few fields the gateway needs, refuses
what no engine could take, and words the errors.
"""

from __future__ import annotations

import re
from typing import Annotated, NamedTuple, Protocol

import msgspec

from neurogate.channel import End
from neurogate.errors import BadRequestError, GatewayError, ModelNotFoundError
from neurogate.prompt_api import MAX_TOKENS, UNDECODABLE, PromptAnswer, PromptRequest

JSON = b"application/json"

_encode = msgspec.json.encode
_AT = re.compile(r"^(.*?)(?: - at `\$\.?(.*?)`)?$", re.DOTALL)


class Head(NamedTuple):
    """What the gateway needs to know of a request."""

    model: str
    stream: bool


class Answer(NamedTuple):
    """A whole answer, ready to be sent."""

    status: int
    content_type: bytes
    body: bytes


class Dialect(Protocol):
    """One API."""

    def read(self, body: bytes) -> Head:
        """Validate a body. Raises BadRequestError saying what to change."""
        ...

    def answer(self, end: End, body: bytes, *, worker_id: str, latency_ms: int) -> Answer:
        """Word a whole answer, also the engine's own refusals."""
        ...

    def error(self, error: GatewayError, request_id: str) -> bytes:
        """The body of an error."""
        ...

    def error_event(self, error: GatewayError, request_id: str) -> bytes:
        """The event that ends a broken stream. It begins with a blank line: the last event may be incomplete."""
        ...


class _Sampling(msgspec.Struct, kw_only=True):
    model: str | None = None
    stream: bool | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None


class ChatRequest(_Sampling, kw_only=True):
    """The fields of `/v1/chat/completions` that are checked here; the engine checks the rest."""

    messages: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1)]


class CompletionRequest(_Sampling, kw_only=True):
    """The fields of `/v1/completions` that are checked here; the engine checks the rest."""

    prompt: msgspec.Raw


class OpenAIDialect:
    """OpenAI's API: bodies and answers pass untouched."""

    def __init__(self, request: type[_Sampling]) -> None:
        self._decode = msgspec.json.Decoder(request).decode

    def read(self, body: bytes) -> Head:
        """Validate a body. Raises BadRequestError saying what to change."""
        try:
            request = self._decode(body)
        except UNDECODABLE as error:
            raise bad_body(error) from error
        return Head(request.model or "", request.stream is True)

    def answer(self, end: End, body: bytes, *, worker_id: str, latency_ms: int) -> Answer:  # noqa: ARG002 - contract
        """The engine's bytes and status; a refusal without a body is worded here."""
        if body or end.http_status < 400:
            return Answer(end.http_status or 200, end.content_type.encode() or JSON, body)
        return Answer(end.http_status, JSON, self.error(_refused(end, end.message), ""))

    def error(self, error: GatewayError, request_id: str) -> bytes:  # noqa: ARG002 - OpenAI's shape has no place for it
        """`{"error": {message, type, param, code}}`."""
        return _encode(_openai_error(error))

    def error_event(self, error: GatewayError, request_id: str) -> bytes:  # noqa: ARG002 - as above
        """The same as an event, as OpenAI's clients expect it."""
        return b"\n\ndata: " + _encode(_openai_error(error)) + b"\n\n"


class PromptDialect:
    """NeuroGate's own `/prompt`."""

    _decode = staticmethod(msgspec.json.Decoder(PromptRequest).decode)
    _decode_answer = staticmethod(msgspec.json.Decoder(PromptAnswer).decode)

    def read(self, body: bytes) -> Head:
        """Validate a body. Raises BadRequestError saying what to change."""
        try:
            request = self._decode(body)
        except UNDECODABLE as error:
            raise bad_body(error) from error
        return Head(request.model or "", request.stream)

    def answer(self, end: End, body: bytes, *, worker_id: str, latency_ms: int) -> Answer:
        """The worker's answer with what only the gateway knows."""
        if end.http_status >= 400:
            message = end.message or body.decode("utf-8", "replace")
            return Answer(end.http_status, JSON, self.error(_refused(end, message), ""))
        answer = self._decode_answer(body)
        answer.worker_id = worker_id
        answer.latency_ms = latency_ms
        return Answer(200, JSON, _encode(answer))

    def error(self, error: GatewayError, request_id: str) -> bytes:
        """`{"error", "code", "message"}`."""
        return _encode(plain_error(error, request_id))

    def error_event(self, error: GatewayError, request_id: str) -> bytes:
        """The same as an event, marked as not done."""
        return b"\n\ndata: " + _encode({**plain_error(error, request_id), "done": False}) + b"\n\n"


def bad_body(error: Exception) -> BadRequestError:
    """A decoder's complaint as an error that names the field."""
    if not isinstance(error, msgspec.ValidationError):
        return BadRequestError(f"the body is not valid JSON: {error}")
    match = _AT.match(str(error))
    told, field = (match.group(1), match.group(2)) if match else (str(error), None)
    missing = re.search(r"missing required field `(\w+)`", told)
    if missing:
        return BadRequestError(f"{missing.group(1)}: is required", param=missing.group(1))
    return BadRequestError(f"{field or 'body'}: {told[:1].lower()}{told[1:]}", param=field)


def plain_error(error: GatewayError, request_id: str) -> dict[str, object]:
    """The error body of NeuroGate's own routes."""
    body: dict[str, object] = {"error": error.kind, "code": error.code, "message": error.message}
    if request_id:
        body["request_id"] = request_id
    return body


def _openai_error(error: GatewayError) -> dict[str, object]:
    return {"error": {"message": error.message, "type": error.kind, "param": error.param, "code": error.code}}


def _refused(end: End, message: str) -> GatewayError:
    if end.http_status == 404:
        return ModelNotFoundError(message, param="model")
    return BadRequestError(message or f"the engine refused the request with status {end.http_status}")

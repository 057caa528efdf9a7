"""Ollama's API: bodies and answers pass untouched, errors are `{"error": "message"}` (ADR 0010)."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Annotated

import msgspec

from neurogate.channel import End
from neurogate.errors import BadRequestError, GatewayError, ModelNotFoundError
from neurogate.gateway.dialects.dialect import JSON, Answer, Head, Request, reader, told
from neurogate.model_names import known_as
from neurogate.prompt_api import MAX_TOKENS, UNDECODABLE

NDJSON = b"application/x-ndjson"

_encode = msgspec.json.encode

ModelName = Annotated[str, msgspec.Meta(min_length=1)]


class _Options(msgspec.Struct):
    num_predict: Annotated[int, msgspec.Meta(le=MAX_TOKENS)] | None = None


class OllamaRequest(Request, kw_only=True):
    """`/api/embed`, `/api/embeddings`; the engine, or the worker that translates for it, checks the rest."""

    model: ModelName
    """Ollama has no default model."""


class GenerationRequest(OllamaRequest, kw_only=True):
    """`/api/generate` and `/api/chat`."""

    stream: bool | None = None
    options: _Options | None = None

    def head(self) -> Head:
        """See Request.head. Streamed unless it says no; zero and less are no limit."""
        most = self.options.num_predict if self.options is not None else None
        return Head(self.model, self.stream is not False, most if most is not None and most > 0 else None)


class ShowRequest(Request, kw_only=True):
    """`/api/show`; `name` is what `model` was called formerly."""

    name: str | None = None

    def head(self) -> Head:
        """See Request.head. Raises BadRequestError when neither is given."""
        asked = self.model or self.name
        if not asked:
            raise BadRequestError("model: is required", param="model")
        return Head(asked, stream=False)


class OllamaDialect:
    """See the module. `models` are the names there are now: `NAME:latest` finds `NAME`, and the other way round."""

    stream_type = NDJSON
    id_header = b""

    def __init__(self, request: type[Request], models: Callable[[], Container[str]]) -> None:
        self._read = reader(request)
        self._models = models

    def read(self, body: bytes) -> Head:
        """Validate a body. Raises BadRequestError saying what to change."""
        head = self._read(body)
        return head._replace(model=known_as(head.model, self._models()))

    def answer(self, end: End, body: bytes, *, worker_id: str, latency_ms: int) -> Answer:  # noqa: ARG002 - contract
        """The engine's bytes and status; a refusal is worded here when the engine is not Ollama."""
        status = end.http_status or 200
        if status < 400 or (body and _is_error(body)):
            return Answer(status, end.content_type.encode() or JSON, body)
        message = told(end, body) or f"the engine refused the request with status {status}"
        return Answer(status, JSON, _encode({"error": message}))

    def error(self, error: GatewayError, request_id: str) -> bytes:  # noqa: ARG002 - the shape has no place for it
        """`{"error": "message"}`."""
        return _encode(ollama_error(error))

    def error_event(self, error: GatewayError, request_id: str) -> bytes:
        """The same as a line.

        No empty line before it: clients decode every line. After half a line, that line cannot be decoded, which is an
        error as well.
        """
        return self.error(error, request_id) + b"\n"


class _Error(msgspec.Struct):
    error: str


_ERRORS = msgspec.json.Decoder(_Error)


def _is_error(body: bytes) -> bool:
    try:
        _ERRORS.decode(body)
    except UNDECODABLE:
        return False
    return True


def ollama_error(error: GatewayError) -> dict[str, str]:
    """The body of an error. Clients look for `not found` to offer a download."""
    if isinstance(error, ModelNotFoundError) and "not found" not in error.message:
        return {"error": f"model not found: {error.message}"}
    return {"error": error.message}

"""What every API must tell the gateway, and what all of them share.

A dialect never touches a token: streamed bytes pass as they are. It reads the few fields the gateway needs, refuses
what no engine could take, and words the errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, NamedTuple, Protocol

import msgspec

from neurogate.channel import End
from neurogate.errors import BadRequestError, GatewayError, ModelNotFoundError
from neurogate.prompt_api import MAX_TOKENS, UNDECODABLE

JSON = b"application/json"
EVENT_STREAM = b"text/event-stream"

CHOICES_MAX = 128
"""The most answers that one request may ask for."""

Tokens = Annotated[int, msgspec.Meta(ge=1, le=MAX_TOKENS)]
"""A limit of an answer's length: at least one token, for that is what every engine generates."""
Choices = Annotated[int, msgspec.Meta(ge=1, le=CHOICES_MAX)]
UnboundedTokens = Annotated[int, msgspec.Meta(ge=-2, le=MAX_TOKENS)]
"""The same where negative numbers mean no limit."""

_NUMBER = frozenset(b"%c" % sign for sign in b"-0123456789")
_AT = re.compile(r"^(.*?)(?: - at `\$\.?(.*?)`)?$", re.DOTALL)
_MESSAGE_CHARS_MAX = 500


class Head(NamedTuple):
    """What the gateway needs to know of a request."""

    model: str
    """Empty when none is named."""
    stream: bool
    max_tokens: int | None = None
    """The most tokens of completion asked for, of each choice; None when the request sets no limit."""
    n: int = 1
    """Answers to generate: the choices, for each of several prompts."""


class Answer(NamedTuple):
    """A whole answer, ready to be sent."""

    status: int
    content_type: bytes
    body: bytes


class Dialect(Protocol):
    """One API."""

    @property
    def stream_type(self) -> bytes:
        """Content type of a streamed answer."""
        ...

    @property
    def id_header(self) -> bytes:
        """Where its clients look for the request's id, which `x-request-id` has as well; usually empty: only there."""
        ...

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
        """What ends a broken stream. It begins with a blank line: the last event may be incomplete."""
        ...


class Request(msgspec.Struct, kw_only=True):
    """The fields of a body that are checked here; the engine checks the rest."""

    model: str | None = None

    def head(self) -> Head:
        """What the gateway needs of it. Raises BadRequestError for fields that contradict each other."""
        return Head(self.model or "", stream=False)


def reader(request: type[Request]) -> Callable[[bytes], Head]:
    """Reads bodies of one kind; raises BadRequestError saying what to change."""
    decode = msgspec.json.Decoder(request).decode

    def read(body: bytes) -> Head:
        try:
            return decode(body).head()
        except UNDECODABLE as error:
            raise bad_body(error) from error

    return read


_parts = msgspec.json.Decoder(list[msgspec.Raw]).decode


def prompts_in(prompt: msgspec.Raw) -> int:
    """How many prompts a field `prompt` holds, at least 1, without reading their text.

    A list of texts, or of lists of tokens, is as many; tokens, also with texts between them, are one.
    """
    view = memoryview(prompt)
    if bytes(view[:1]) != b"[" or bytes(view[1:16]).lstrip()[:1] in _NUMBER:  # the usual text, or tokens
        return 1
    parts = _parts(prompt)
    return 1 if any(bytes(memoryview(part)[:1]) in _NUMBER for part in parts) else max(1, len(parts))


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


def refused(end: End, message: str) -> GatewayError:
    """An engine's refusal (4xx) as an error of ours, for APIs that cannot pass its body on."""
    if end.http_status == 404:
        return ModelNotFoundError(message, param="model")
    return BadRequestError(message or f"the engine refused the request with status {end.http_status}")


def told(end: End, body: bytes) -> str:
    """What an engine's refusal says, for a person; possibly nothing."""
    if end.message:
        return end.message
    try:
        value = msgspec.json.decode(body)
    except UNDECODABLE:
        return body[:_MESSAGE_CHARS_MAX].decode("utf-8", "replace").strip()
    for _ in range(2):
        if isinstance(value, dict):
            value = next((value[key] for key in ("error", "message", "detail") if value.get(key)), "")
    return value[:_MESSAGE_CHARS_MAX] if isinstance(value, str) else ""

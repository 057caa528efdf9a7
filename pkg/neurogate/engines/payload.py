"""The few fields of an engine's JSON that a worker reads, whatever server wrote it.

Engines differ in what they leave out, so every field here has a default and what cannot be decoded counts as absent:
a token count is never worth failing an answer for.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from neurogate.inference import Usage
from neurogate.prompt_api import UNDECODABLE

MESSAGE_CHARS_MAX = 500


class Delta(msgspec.Struct):
    """What one streamed chunk of a chat adds."""

    content: str | None = None
    reasoning_content: str | None = None


class Choice(msgspec.Struct):
    """One of the answers of a chunk; `text` is the form of `/v1/completions`."""

    index: int = 0
    delta: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None

    @property
    def content(self) -> str:
        """The text of the answer in this chunk, without reasoning."""
        return (self.delta and self.delta.content) or self.text or ""

    @property
    def generated(self) -> bool:
        """Whether this stands for a generated token, be it text or reasoning."""
        return bool(self.content or (self.delta and self.delta.reasoning_content))


class PromptDetails(msgspec.Struct):
    """OpenAI's `prompt_tokens_details`."""

    cached_tokens: int | None = None


class UsageFields(msgspec.Struct):
    """OpenAI's `usage`."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None


class Timings(msgspec.Struct):
    """llama.cpp's `timings`."""

    cache_n: int = 0
    prompt_n: int = 0
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0


class Chunk(msgspec.Struct):
    """One event of an OpenAI-like stream."""

    choices: list[Choice] = []
    model: str | None = None
    usage: UsageFields | None = None
    timings: Timings | None = None

    def total(self) -> Usage | None:
        """The tokens this event accounts for; None when it does not say."""
        if self.usage is not None:
            details = self.usage.prompt_tokens_details or PromptDetails()
            return Usage(self.usage.prompt_tokens or 0, self.usage.completion_tokens or 0, details.cached_tokens or 0)
        if self.timings is not None:
            timings = self.timings
            return Usage(timings.cache_n + timings.prompt_n, timings.predicted_n, timings.cache_n)
        return None


class _Told(msgspec.Struct, gc=False):
    """What tells an error from a token. Decoding walks over all of an object and builds only these."""

    error: msgspec.Raw = msgspec.Raw()
    object: str = ""


_CHUNKS = msgspec.json.Decoder(Chunk, strict=False)
_ANYTHING = msgspec.json.Decoder()
_SKIPPED = msgspec.json.Decoder(msgspec.Raw)
_told = msgspec.json.Decoder(_Told).decode


def chunk_of(data: bytes) -> Chunk | None:
    """The chunk in an event's data; None when it is something else."""
    try:
        return _CHUNKS.decode(data)
    except UNDECODABLE:
        return None


def json_of(data: bytes) -> Any:
    """Any JSON value, or None when it is not JSON."""
    try:
        return _ANYTHING.decode(data)
    except UNDECODABLE:
        return None


def is_json(data: bytes) -> bool:
    """Whether this is one whole JSON value; nothing is built from it, unless it is odd."""
    try:
        _SKIPPED.decode(data)
    except UNDECODABLE:
        return _is_odd_json(data)
    return data.isascii() or is_text(data)


def is_sound(data: bytes) -> bool:
    """Whether this is one whole object of JSON that is no error. False where it would take a closer look to tell."""
    if not (data.isascii() or is_text(data)):
        return False
    try:
        told = _told(data)
    except UNDECODABLE:
        return False
    return not told.error and told.object != "error"


def _is_odd_json(data: bytes) -> bool:
    """Whether Python's own parser takes it: of a character in UTF-16, one event may have half."""
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def is_text(data: bytes) -> bool:
    """Whether it is UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def message_of(body: bytes) -> str:
    """The message of an error body in OpenAI's, Ollama's or plain form, at most 500 characters, possibly empty."""
    value = json_of(body)
    for _ in range(2):
        if isinstance(value, dict):
            value = next((value[key] for key in ("error", "message", "detail") if value.get(key)), "")
    if value is None:
        value = body.decode(errors="replace").strip()
    try:
        return str(value)[:MESSAGE_CHARS_MAX]
    except RecursionError:  # no message, but a knot
        return ""

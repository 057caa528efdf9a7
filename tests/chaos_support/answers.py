"""What an answer says, read as a client of each API reads it.

The one idea: whatever the API, an answer is a sequence of `Said`: text, finish reason, usage, end mark, error. Nothing
here knows the product. A thing that is not the API's own form raises NotTheApiError.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


class NotTheApiError(Exception):
    """These bytes are nothing that the API says."""


@dataclass(frozen=True, slots=True)
class Said:
    """One event of an answer."""

    text: str = ""
    identity: tuple[object, ...] | None = None
    """What may not change over an answer; None where the event tells nothing of it."""
    shape: frozenset[str] | None = None
    """The fields of an event with text; None for others."""
    role: str | None = None
    finish: str | None = None
    usage: tuple[int, int] | None = None
    """Tokens of prompt and answer."""
    counted: int | None = None
    """Tokens so far, where each event tells."""
    end: bool = False
    error: str | None = None


Reader = Callable[[str], Said]
"""Reads one event's data."""


def server_sent(body: bytes, read: Reader) -> Iterator[Said]:
    """The events of an SSE body."""
    for block in _blocks(body):
        data = []
        for line in block.split("\n"):
            field, colon, value = line.partition(":")
            if field == "data" and colon:
                data.append(value.removeprefix(" "))
            elif field not in {"", "event", "id", "retry"}:
                raise NotTheApiError(f"no line of SSE: {line[:80]!r}")
        if data:
            yield read("\n".join(data))


def _blocks(body: bytes) -> Iterator[str]:
    text = _decoded(body).replace("\r\n", "\n")
    *blocks, rest = text.split("\n\n")
    yield from blocks
    if rest.strip():
        raise UnfinishedError(rest)


class UnfinishedError(Exception):
    """The body ends within an event."""


def lines(body: bytes, read: Reader) -> Iterator[Said]:
    """The events of a body of one JSON object a line."""
    *whole, rest = _decoded(body).split("\n")
    for line in whole:
        if line:
            yield read(line)
    if rest:
        raise UnfinishedError(rest)


def _decoded(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        if error.end >= len(body) - 3 and error.reason == "unexpected end of data":
            return body[: error.start].decode() + "\0"  # cut within a character, and so within an event
        raise NotTheApiError("no UTF-8") from error


def _object(data: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise NotTheApiError(f"no JSON: {data[:80]!r}") from error
    if not isinstance(value, dict):
        raise NotTheApiError(f"no object: {data[:80]!r}")
    return value


def _field(value: dict[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    if not isinstance(value.get(name), kind):
        raise NotTheApiError(f"{name} is {value.get(name)!r}")
    return value[name]


def _usage(value: dict[str, Any]) -> tuple[int, int]:
    prompt, answer = _field(value, "prompt_tokens", int), _field(value, "completion_tokens", int)
    if value.get("total_tokens", value.get("tokens")) != prompt + answer:
        raise NotTheApiError(f"the total is not the sum: {value}")
    return prompt, answer


def openai_event(data: str, *, chat: bool) -> Said:
    if data == "[DONE]":
        return Said(end=True)
    value = _object(data)
    if "error" in value:
        return Said(error=openai_error(value))
    _field(value, "created", int)  # llama.cpp tells the time of each event
    identity = tuple(value.get(name) for name in ("id", "object", "model", "system_fingerprint"))
    if identity[1] != ("chat.completion.chunk" if chat else "text_completion"):
        raise NotTheApiError(f"object is {identity[1]!r}")
    usage = _usage(value["usage"]) if value.get("usage") else None
    choices = _field(value, "choices", list)
    if not choices:
        return Said(identity=identity, usage=usage)
    (choice,) = choices
    if choice.get("index") != 0:
        raise NotTheApiError(f"choice {choice.get('index')!r}")
    said = _field(choice, "delta", dict) if chat else choice
    text = said.get("content" if chat else "text") or ""
    shape = frozenset(value) | frozenset(choice) | frozenset(said) if text else None
    role = said.get("role") if chat else None
    return Said(text, identity, shape, role, choice.get("finish_reason"), usage)


def openai_whole(data: str, *, chat: bool) -> Said:
    value = _object(data)
    (choice,) = _field(value, "choices", list)
    message = _field(choice, "message", dict) if chat else choice
    if chat and message.get("role") != "assistant":
        raise NotTheApiError(f"role is {message.get('role')!r}")
    text = _field(message, "content" if chat else "text", str)
    usage = _usage(_field(value, "usage", dict))
    return Said(text, finish=_field(choice, "finish_reason", str), usage=usage, end=True)


def openai_error(value: dict[str, Any]) -> str:
    error = _field(value, "error", dict)
    _field(error, "type", str)
    return f"{error.get('code')}: {_field(error, 'message', str)}"


def prompt_event(data: str) -> Said:
    value = _object(data)
    if "error" in value:
        return Said(error=prompt_error(value))
    identity = (_field(value, "request_id", str),)
    if _field(value, "done", bool):
        return Said(identity=identity, finish=_field(value, "finish_reason", str), usage=_usage(value), end=True)
    counted = _field(value, "tokens_generated", int)
    return Said(_field(value, "token", str), identity, frozenset(value), counted=counted)


def prompt_whole(data: str) -> Said:
    value = _object(data)
    text, finish = _field(value, "response", str), _field(value, "finish_reason", str)
    return Said(text, finish=finish, usage=_usage(value), end=True)


def prompt_error(value: dict[str, Any]) -> str:
    _field(value, "error", str)
    return f"{_field(value, 'code', str)}: {_field(value, 'message', str)}"


def ollama_event(data: str, *, chat: bool) -> Said:
    value = _object(data)
    if "error" in value:
        return Said(error=ollama_error(value))
    identity: tuple[object, ...] = (_field(value, "model", str),)
    _field(value, "created_at", str)
    message = _field(value, "message", dict) if chat else value
    text = _field(message, "content" if chat else "response", str)
    if chat:
        identity = (*identity, _field(message, "role", str))
    if _field(value, "done", bool):
        usage = _field(value, "prompt_eval_count", int), _field(value, "eval_count", int)
        return Said(text, identity, finish=_field(value, "done_reason", str), usage=usage, end=True)
    return Said(text, identity, frozenset(value) | frozenset(message))


def ollama_whole(data: str, *, chat: bool) -> Said:
    if "error" in _object(data):
        raise NotTheApiError("an error with status 200")
    return ollama_event(data, chat=chat)


def ollama_error(value: dict[str, Any]) -> str:
    return str(_field(value, "error", str))


def token_message(message: bytes) -> Said:
    """A TokenResponse of gRPC, by its field numbers."""
    fields = dict(protobuf_fields(message))
    text = bytes(fields.get(2, b"")).decode()
    identity = (fields.get(1),)
    if not fields.get(3):
        return Said(text, identity, frozenset({"token"}), counted=int(fields.get(4, 0)))
    usage = int(fields.get(5, 0)), int(fields.get(6, 0))
    return Said(text, identity, finish=bytes(fields.get(9, b"")).decode() or None, usage=usage, end=True)


def protobuf_fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value (int or bytes) of each field; fixed-width ones as bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        size, at = (_varint(data, at)) if kind == 2 else ({1: 8, 5: 4}[kind], at)
        if at + size > len(data):
            raise NotTheApiError("a message is cut")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data):
            raise NotTheApiError("a message is cut")
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at

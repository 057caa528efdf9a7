"""How Ollama words an answer: one object for each piece, and one that ends it with its account."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

import msgspec

from neurogate.inference import Usage

STREAM_TYPE = "application/x-ndjson"

_encode = msgspec.json.encode


class Said(NamedTuple):
    """A piece of an answer, or all of it."""

    text: str = ""
    thinking: str = ""
    tool_calls: list[dict[str, Any]] | None = None
    logprobs: list[dict[str, Any]] | None = None


class Account(NamedTuple):
    """What an answer took; durations in seconds."""

    total_s: float
    prompt_s: float
    decode_s: float
    usage: Usage


class Shape(Protocol):
    """Where one API puts what was said."""

    def __call__(self, said: Said) -> dict[str, Any]:
        """The fields that carry it."""
        ...


def as_message(said: Said) -> dict[str, Any]:
    """As `/api/chat` has it."""
    message: dict[str, Any] = {"role": "assistant", "content": said.text}
    if said.thinking:
        message["thinking"] = said.thinking
    if said.tool_calls:
        message["tool_calls"] = said.tool_calls
    return {"message": message}


def as_response(said: Said) -> dict[str, Any]:
    """As `/api/generate` has it, which knows no tools."""
    return {"response": said.text, "thinking": said.thinking} if said.thinking else {"response": said.text}


class Writer:
    """Words one answer. `now` is the wall clock in Unix seconds."""

    __slots__ = ("_model", "_now", "_shape")

    def __init__(self, model: str, shape: Shape, now: Callable[[], float]) -> None:
        self._model = model
        self._shape = shape
        self._now = now

    def piece(self, said: Said) -> bytes:
        """The line of a piece."""
        return _encode({**self._head(said), "done": False}) + b"\n"

    def last(self, said: Said, reason: str, account: Account | None = None) -> bytes:
        """The object that ends an answer, without a line break; `load` comes without an account."""
        end: dict[str, Any] = {**self._head(said), "done": True, "done_reason": reason}
        if account is not None:
            end |= _account(account)
        return _encode(end)

    def _head(self, said: Said) -> dict[str, Any]:
        head = {"model": self._model, "created_at": timestamp(self._now()), **self._shape(said)}
        if said.logprobs:
            head["logprobs"] = said.logprobs
        return head


def timestamp(unix_s: float) -> str:
    """RFC 3339, in UTC."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat().replace("+00:00", "Z")


def nanoseconds(seconds: float) -> int:
    """A duration as Ollama gives it."""
    return round(seconds * 1e9)


def _account(account: Account) -> dict[str, int]:
    """A model that serves was loaded before, so loading took nothing. A count that nobody made is left out."""
    counts = {
        "total_duration": nanoseconds(account.total_s),
        "load_duration": 0,
        "prompt_eval_count": account.usage.prompt_tokens,
        "prompt_eval_duration": nanoseconds(account.prompt_s),
        "eval_count": account.usage.completion_tokens,
        "eval_duration": nanoseconds(account.decode_s),
    }
    if not account.usage.prompt_tokens:
        del counts["prompt_eval_count"]
    return counts

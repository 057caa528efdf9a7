"""The few fields of a request that the worker itself looks at, and only where it must: the bytes pass as they are."""

from __future__ import annotations

from typing import Any

import msgspec

from neurogate.operations import Ending, Operation
from neurogate.prompt_api import UNDECODABLE


class Asked(msgspec.Struct, frozen=True):
    """What a request asks for; the defaults are those of every API."""

    model: str | None = None
    stream: bool | None = None


class _Native(msgspec.Struct, frozen=True):
    """What decides how many completions llama.cpp's own API streams at once."""

    prompt: Any = None
    n: int | None = None
    n_cmpl: int | None = None
    response_fields: list[str] | None = None


_decode = msgspec.json.Decoder(Asked).decode
_decode_native = msgspec.json.Decoder(_Native).decode


def asked(body: bytes) -> Asked:
    """What the body asks for; nothing in particular when it cannot be read, which the engine will say."""
    try:
        return _decode(body)
    except UNDECODABLE:
        return Asked()


def wants_stream(operation: Operation, body: bytes) -> bool:
    """Whether the answer should come as it is generated."""
    if operation.ending is Ending.NONE:
        return False
    stream = asked(body).stream
    return operation.streams_by_default if stream is None else stream


def end_marks(operation: Operation, body: bytes) -> int:
    """How many end marks make a stream whole: llama.cpp ends every completion of its own API by itself.

    A client may ask that API to leave the mark out; then there is none to wait for.
    """
    if operation.ending is not Ending.STOP:
        return 1
    try:
        request = _decode_native(body)
    except UNDECODABLE:
        return 1
    if request.response_fields and "stop" not in request.response_fields:
        return 0
    return _prompts(request.prompt) * max(1, request.n_cmpl or request.n or 1)


def _prompts(prompt: Any) -> int:
    """A list of texts, or of lists of tokens, is as many prompts; tokens, also with texts between them, are one."""
    if not isinstance(prompt, list) or not prompt or any(isinstance(part, int) for part in prompt):
        return 1
    return len(prompt)

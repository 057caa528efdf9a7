"""What a request asks for that not every engine does.

Engines ignore fields they do not know, and a client would take an ordinary answer for what it asked for. So a worker
looks for the features that its engine says it ignores (`Observation.unsupported`), and for those only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from neurogate.prompt_api import UNDECODABLE


class _Kind(msgspec.Struct):
    type: Any = None


class _Formatted(msgspec.Struct):
    format: _Kind | None = None


class _Request(msgspec.Struct):
    """The fields that ask for a feature, in OpenAI's, Anthropic's and llama.cpp's words."""

    n: Any = None
    n_cmpl: Any = None
    best_of: Any = None
    logprobs: Any = None
    n_probs: Any = None
    echo: Any = None
    suffix: Any = None
    tools: Any = None
    functions: Any = None
    grammar: Any = None
    json_schema: Any = None
    response_format: _Kind | None = None
    text: _Formatted | None = None
    output_config: _Formatted | None = None
    output_format: _Kind | None = None
    messages: msgspec.Raw = msgspec.Raw(b"null")
    input: msgspec.Raw = msgspec.Raw(b"null")


_decode = msgspec.json.Decoder(_Request).decode
_decode_any = msgspec.json.Decoder().decode

_IMAGES = frozenset({"image", "image_url", "input_image"})
_AUDIO = frozenset({"audio", "audio_url", "input_audio"})


def ignored_feature(body: bytes, unsupported: frozenset[str]) -> str:
    """The first feature of `unsupported` that the body asks for; empty when there is none.

    A body that cannot be read asks for nothing: the engine will say what is wrong with it.
    """
    try:
        request = _decode(body)
        media = _media(request) if {"images", "audio"} & unsupported and (b"image" in body or b"audio" in body) else ()
        return next((feature for feature in (*_asked_for(request), *media) if feature in unsupported), "")
    except UNDECODABLE:
        return ""


def _asked_for(request: _Request) -> Iterator[str]:
    if _above_one(request.n) or _above_one(request.n_cmpl):
        yield "n"
    if _above_one(request.best_of):
        yield "best_of"
    no_logprobs = request.logprobs is None or request.logprobs is False  # 0 asks for them, without alternatives
    if request.n_probs or not no_logprobs:
        yield "logprobs"
    for name in ("echo", "suffix", "grammar"):
        if getattr(request, name):
            yield name
    if request.tools or request.functions:
        yield "tools"
    yield from _formats(request)


def _formats(request: _Request) -> Iterator[str]:
    if request.json_schema:
        yield "json_schema"
    nested = [outer.format for outer in (request.text, request.output_config) if outer is not None]
    for kind in (request.response_format, request.output_format, *nested):
        if kind is not None and kind.type in ("json_schema", "json_object"):
            yield str(kind.type)


def _media(request: _Request) -> Iterator[str]:
    for raw in (request.messages, request.input):
        kinds = set(_part_types(_decode_any(raw)))
        if kinds & _IMAGES:
            yield "images"
        if kinds & _AUDIO:
            yield "audio"


def _part_types(messages: Any) -> Iterator[str]:
    """The types of the parts that messages are made of."""
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, dict) else None
            if isinstance(kind, str):
                yield kind


def _above_one(number: Any) -> bool:
    return isinstance(number, int) and number > 1

"""The HTTP calls: what is sent both ways, always the same for the same number."""

from __future__ import annotations

import json
import re
from typing import Any, Literal, NamedTuple

Api = Literal["openai", "llamacpp", "anthropic", "ollama"]

_MARKER = re.compile(rb"zq(\d{5})qz")
_SAMPLING = {"temperature": 0, "seed": 7}


class HttpCall(NamedTuple):
    """One request."""

    name: str
    path: str
    body: bytes
    stream: bool = False
    method: str = "POST"
    number: int = 0
    """Of its marker."""


def marker(number: int) -> str:
    """A word that is in the prompt of one call and no other."""
    return f"zq{number:05}qz"


def markers(data: bytes) -> set[int]:
    """The numbers of all markers in it."""
    return {int(number) for number in _MARKER.findall(data)}


def catalogue(apis: frozenset[Api], model: str) -> list[HttpCall]:
    """One call of every kind, to be made one after the other."""
    named = {"model": model} if model else {}
    text = "Tell me about zq00000qz, caf\u00e9s and \U0001f98a."
    ask = {"messages": [{"role": "user", "content": text}], "max_tokens": 16, **_SAMPLING, **named}
    complete = {"prompt": text, "max_tokens": 16, **_SAMPLING, **named}
    calls: list[HttpCall] = []
    if "openai" in apis:
        calls += [
            _call("chat", "/v1/chat/completions", ask),
            _call("chat, streamed", "/v1/chat/completions", ask, stream=True),
            _call(
                "chat, streamed with usage",
                "/v1/chat/completions",
                {**ask, "stream_options": {"include_usage": True}},
                stream=True,
            ),
            _call("chat, two choices, streamed", "/v1/chat/completions", {**ask, "n": 2}, stream=True),
            _call("completion", "/v1/completions", complete),
            _call("completion, streamed", "/v1/completions", complete, stream=True),
            _call("embeddings", "/v1/embeddings", {"input": [text, "two"], **named}),
            _call("rerank", "/v1/rerank", {"query": text, "documents": ["a fox", "a table"], **named}),
            _call("responses", "/v1/responses", {"input": text, "max_output_tokens": 16, **_SAMPLING, **named}),
            _call(
                "responses, streamed",
                "/v1/responses",
                {"input": text, "max_output_tokens": 16, **_SAMPLING, **named},
                stream=True,
            ),
        ]
    if "anthropic" in apis:
        calls += [
            _call("messages", "/v1/messages", ask),
            _call("messages, streamed", "/v1/messages", ask, stream=True),
        ]
    if "llamacpp" in apis:
        native = {"prompt": text, "n_predict": 16, **_SAMPLING}
        calls += [
            _call("tokenize", "/tokenize", {"content": text}),
            _call("detokenize", "/detokenize", {"tokens": [1, 2, 3]}),
            _call("apply-template", "/apply-template", {"messages": ask["messages"]}),
            _call("native completion", "/completion", native),
            _call("native completion, streamed", "/completion", native, stream=True),
        ]
    if "ollama" in apis:
        options = {"options": {"num_predict": 16, **_SAMPLING}, **named}
        calls += [
            _call("generate", "/api/generate", {"prompt": text, "stream": False, **options}),
            _call("generate, streamed", "/api/generate", {"prompt": text, **options}, stream=None),
            _call("ollama chat, streamed", "/api/chat", {"messages": ask["messages"], **options}, stream=None),
            _call("embed", "/api/embed", {"input": text, **named}),
        ]
    return calls


def refusals(apis: frozenset[Api]) -> list[HttpCall]:
    """Calls that a server must refuse."""
    if "ollama" in apis and "openai" not in apis:
        return [HttpCall("bad JSON", "/api/chat", b'{"messages": [')]
    return [
        HttpCall("bad JSON", "/v1/chat/completions", b'{"messages": ['),
        _call("no messages", "/v1/chat/completions", {"max_tokens": 1}),
        HttpCall("no body", "/v1/chat/completions", b""),
        HttpCall("no such path", "/v1/no/such/path", b"{}"),
    ]


def unknown_model(apis: frozenset[Api]) -> HttpCall:
    """A call for a model that nobody has."""
    body = {"model": "no-such-model-zq", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    return _call("unknown model", "/v1/chat/completions" if "openai" in apis else "/api/chat", body)


def models(apis: frozenset[Api]) -> HttpCall:
    """The list of models."""
    return HttpCall("models", "/v1/models" if "openai" in apis else "/api/tags", b"", method="GET")


def streams(count: int, apis: frozenset[Api], model: str) -> list[HttpCall]:
    """Streamed calls to be made at once, each with a marker of its own."""
    named = {"model": model} if model else {}
    calls = []
    for number in range(1, count + 1):
        said = f"Say something about {marker(number)}."
        length = 8 + number % 24
        if "openai" in apis and (number % 2 or "llamacpp" not in apis):
            body = {"messages": [{"role": "user", "content": said}], "max_tokens": length, **_SAMPLING, **named}
            calls.append(_call(f"stream {number}", "/v1/chat/completions", body, stream=True, number=number))
        elif "openai" in apis:
            body = {"prompt": said, "max_tokens": length, **_SAMPLING, **named}
            calls.append(_call(f"stream {number}", "/v1/completions", body, stream=True, number=number))
        else:
            body = {"prompt": said, "options": {"num_predict": length, **_SAMPLING}, **named}
            calls.append(_call(f"stream {number}", "/api/generate", body, stream=None, number=number))
    return calls


def long_stream(model: str) -> HttpCall:
    """A stream that goes on until somebody ends it, where the engine can."""
    named = {"model": model} if model else {}
    body = {"prompt": "Count to a million: 1 2 3", "max_tokens": 400, "ignore_eos": True, **_SAMPLING, **named}
    return _call("long stream", "/v1/completions", body, stream=True)


def large(size: int) -> HttpCall:
    """A body of `size` bytes that costs an engine little, and comes back."""
    empty = {"messages": [{"role": "user", "content": ""}]}
    padding = "x" * max(size - len(_encode(empty)), 0)
    return _call(f"{size} bytes", "/apply-template", {"messages": [{"role": "user", "content": padding}]})


def _call(name: str, path: str, body: dict[str, Any], *, stream: bool | None = False, number: int = 0) -> HttpCall:
    """`stream` None is streamed without being asked."""
    sent = {**body, "stream": True} if stream else body
    return HttpCall(name, path, _encode(sent), stream is not False, number=number)


def _encode(body: object) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()

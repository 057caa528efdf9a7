"""Whatever an answer says, in whatever pieces it comes and wherever it is cut: the text before the cut is read back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurogate.channel import Call, Resume
from neurogate.dataplane.recovery import CannotResumeError
from neurogate.gateway.resuming import Transcripts

PATHS = ["/v1/chat/completions", "/v1/completions", "/prompt", "/api/generate", "/api/chat"]

paths = st.sampled_from(PATHS)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
answers = st.lists(texts, max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def event_of(path: str, text: str, *, ascii_: bool) -> bytes:
    """One event of an API that says this text."""
    about: dict[str, Any] = {"id": "c-1", "created": 5, "model": "m"}
    said: dict[str, Any] = {
        "/v1/chat/completions": {**about, "choices": [{"index": 0, "delta": {"content": text}}]},
        "/v1/completions": {**about, "choices": [{"index": 0, "text": text}]},
        "/prompt": {"request_id": "c-1", "token": text, "tokens_generated": 1, "done": False},
        "/api/generate": {"model": "m", "response": text, "done": False},
        "/api/chat": {"model": "m", "message": {"role": "assistant", "content": text}, "done": False},
    }[path]
    data = json.dumps(said, ensure_ascii=ascii_).encode()
    return data + b"\n" if path.startswith("/api") else b"data: " + data + b"\n\n"


def expected(path: str, said: list[str]) -> Resume:
    about = {"completion_id": "c-1", "created": 5, "model": "m"} if said else {}
    if path == "/prompt":
        about = {"completion_id": "c-1"} if said else {}
    elif path.startswith("/api"):
        about = {"model": "m"} if said else {}
    lengths = [len(text) for text in said if text]
    known = bytes(lengths) if max(lengths, default=0) < 255 else b""
    return Resume("".join(said), len(lengths), **about, lengths=known)  # type: ignore[arg-type]


def split(events: list[bytes], sizes: list[int]) -> list[bytes]:
    """The events in chunks of so many each, in turns."""
    chunks = []
    at = turn = 0
    while at < len(events):
        size = sizes[turn % len(sizes)]
        chunks.append(b"".join(events[at : at + size]))
        at, turn = at + size, turn + 1
    return chunks


@settings(max_examples=300, deadline=None)
@given(
    path=paths,
    answer=answers,
    cut=st.integers(0, 12),
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    fold_every=st.integers(1, 5),
    comments=st.booleans(),
    ascii_=st.booleans(),
)
def test_the_text_before_the_cut_is_read_back(
    path: str, answer: list[str], cut: int, sizes: list[int], fold_every: int, comments: bool, ascii_: bool
) -> None:
    said = answer[:cut]
    events = [event_of(path, text, ascii_=ascii_) for text in said]
    if comments and not path.startswith("/api"):
        events = [b": ping\n\n" + event.replace(b"\n\n", b"\r\n\r\n") for event in events]
    transcript = Transcripts().transcript(Call(path, b"{}", stream=True, deadline=1.0))
    chunks = split(events, sizes)
    for first in range(0, len(chunks), fold_every):
        transcript.take(chunks[first : first + fold_every])
    assert transcript.resume() == expected(path, said)


@settings(max_examples=200, deadline=None)
@given(path=paths, answer=answers, size=st.integers(1, 7))
def test_events_that_come_in_parts_are_read_as_well(path: str, answer: list[str], size: int) -> None:
    stream = b"".join([event_of(path, text, ascii_=False) for text in answer])
    transcript = Transcripts().transcript(Call(path, b"{}", stream=True, deadline=1.0))
    for at in range(0, len(stream), size):
        transcript.take([stream[at : at + size]])
    assert transcript.resume() == expected(path, answer)


def try_to_read(path: str, body: bytes, chunks: list[bytes]) -> None:
    """Raises nothing but what a transcript may raise."""
    try:
        transcript = Transcripts().transcript(Call(path, body, stream=True, deadline=1.0))
        transcript.take(chunks)
        resume = transcript.resume()
    except CannotResumeError:
        return
    assert resume is None or resume.text.encode().decode() == resume.text  # it can go over the link


FIELDS = [
    *("choices", "delta", "content", "text", "index", "finish_reason", "logprobs", "usage", "id", "created", "model"),
    *("message", "response", "done", "error", "thinking", "tool_calls", "request_id", "token", "tokens_generated"),
    *("messages", "prompt", "n", "response_format", "type", "stream_options", "images", "modalities", "format"),
]
shaped = st.recursive(
    json_values,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None)
@given(path=paths, body=st.binary(max_size=40), chunks=st.lists(st.binary(max_size=40), max_size=4))
def test_arbitrary_bytes_raise_nothing_else(path: str, body: bytes, chunks: list[bytes]) -> None:
    try_to_read(path, body, chunks)
    try_to_read(path, b"{}", chunks)
    try_to_read(path, b"{}", [b"data: " + chunk + b"\n\n" for chunk in chunks])


@settings(max_examples=600, deadline=None)
@given(path=paths, body=shaped, events=st.lists(shaped, max_size=4))
def test_arbitrary_json_raises_nothing_else(path: str, body: Any, events: list[Any]) -> None:
    said = [json.dumps(event).encode() for event in events]
    framed = [line + b"\n" if path.startswith("/api") else b"data: " + line + b"\n\n" for line in said]
    try_to_read(path, json.dumps(body).encode(), framed)
    try_to_read(path, b"{}", framed)


@pytest.mark.parametrize("path", PATHS)
def test_bytes_that_nest_without_end_raise_nothing_else(path: str) -> None:
    nested = b'{"delta":' * 5000 + b"{}" + b"}" * 5000
    framed = nested + b"\n" if path.startswith("/api") else b"data: " + nested + b"\n\n"
    try_to_read(path, nested, [])
    try_to_read(path, b"{}", [framed])

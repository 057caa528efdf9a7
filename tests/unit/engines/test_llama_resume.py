"""What a llama.cpp server is asked to continue an answer, and what is made of what it says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from neurogate.channel import Resume
from neurogate.engines.engine import (
    EngineBrokenError,
    EngineCall,
    EngineRefusedError,
    EngineReply,
    EngineUnavailableError,
    EngineUnsupportedError,
)
from neurogate.engines.llama_resume import LlamaResume
from neurogate.inference import Finished, GenerationEvent, Token, Usage

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
MESSAGES = [{"role": "user", "content": "Hi"}]
ENDED: dict[str, Any] = {
    "content": "", "stop": True, "stop_type": "eos", "model": "m", "tokens_predicted": 3,
    "timings": {"cache_n": 1, "prompt_ms": 2.0, "predicted_ms": 3.4},
}  # fmt: skip
WHITE = "\n\n"


def sse(*events: object) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


ANSWER = sse({"content": " you", "stop": False}, ENDED)


@dataclass
class FakeServer:
    """A server whose tokens are a character each, but for two line breaks in a row, which are one."""

    answer: bytes = ANSWER
    status: int = 200
    rendered: bytes = b'{"prompt": "<Hi>"}'
    rendered_status: int = 200
    space: str = ""
    """What its tokenizer puts in front of every text."""
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @asynccontextmanager
    async def exchange(self, call: EngineCall) -> AsyncIterator[EngineReply]:
        body = json.loads(call.body)
        self.asked.append((call.path, body))
        match call.path:
            case "/apply-template":
                yield EngineReply(self.rendered_status, "application/json", said(self.rendered))
            case "/tokenize":
                yield EngineReply(200, "application/json", said(json.dumps(self.tokens(body["content"])).encode()))
            case _:
                yield EngineReply(self.status, "text/event-stream", said(self.answer))

    def tokens(self, text: str) -> dict[str, Any]:
        pieces = [WHITE if each == "\0" else each for each in (self.space + text).replace(WHITE, "\0")]
        return {
            "tokens": [
                {"id": number_of(piece), "piece": piece if piece.isascii() else list(piece.encode())}
                for piece in pieces
            ]
        }

    @property
    def completion(self) -> dict[str, Any]:
        path, body = self.asked[-1]
        assert path == "/completion"
        return body


def number_of(piece: str) -> int:
    return 1000 if piece == WHITE else ord(piece)


async def said(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


def numbers(*pieces: str) -> list[int]:
    return [number_of(piece) for piece in pieces]


def resumed(
    server: FakeServer, body: dict[str, Any], so_far: Resume, *, path: str = CHAT, template: str = ""
) -> list[GenerationEvent]:
    async def go() -> list[GenerationEvent]:
        call = EngineCall(path, json.dumps(body).encode(), "r-1")
        return [event async for event in LlamaResume(server.exchange, template).events(call, so_far)]

    return asyncio.run(go())


def test_the_text_follows_the_rendered_conversation() -> None:
    server = FakeServer()
    body = {"messages": MESSAGES, "max_tokens": 9, "top_k": 3, "stop": "x", "user": "u", "tools": [], "seed": None}
    events = resumed(server, body, Resume("ab", 2))
    assert events == [Token(" you"), Finished(Usage(4, 5, 1), "stop", "m", 5)]
    assert server.asked[0] == ("/apply-template", body)
    assert server.completion == {
        "prompt": numbers(*"<Hi>ab"), "stop": ["x"], "stream": True, "n_predict": 7, "top_k": 3,
    }  # fmt: skip


def test_each_event_is_a_token_where_the_text_alone_would_be_spelled_otherwise() -> None:
    server = FakeServer()
    resumed(server, {"messages": MESSAGES}, Resume("a\n\n", 3, lengths=b"\1\1\1"))
    assert server.completion["prompt"] == numbers(*"<Hi>a\n\n")
    resumed(server, {"messages": MESSAGES}, Resume("a\n\n", 2, lengths=b"\1\2"))
    assert server.completion["prompt"] == numbers(*"<Hi>a", WHITE)
    resumed(server, {"messages": MESSAGES}, Resume("\N{SNOWMAN}\n\n", 3, lengths=b"\1\1\1"))
    assert server.completion["prompt"] == numbers(*"<Hi>\N{SNOWMAN}\n\n")


def test_without_the_lengths_of_the_events_the_text_is_tokenized_as_it_is() -> None:
    server = FakeServer()
    resumed(server, {"messages": MESSAGES}, Resume("a\n\n", 3))
    assert server.completion["prompt"] == numbers(*"<Hi>a", WHITE)


def test_not_more_than_some_events_are_asked_for_one_by_one() -> None:
    server = FakeServer()
    pieces = [chr(300 + number) * 2 for number in range(300)]
    resumed(server, {"messages": MESSAGES}, Resume("".join(pieces), 300, lengths=b"\2" * 300))
    assert len(server.asked) < 270
    assert server.completion["prompt"] == numbers(*"<Hi>", *"".join(pieces))


def test_a_tokenizer_that_adds_a_space_gets_all_the_text_at_once() -> None:
    server = FakeServer(space=" ")
    events = resumed(server, {"messages": MESSAGES}, Resume("ab", 2, lengths=b"\1\1"))
    assert server.completion["prompt"] == numbers(*" <Hi>ab")
    assert isinstance(events[-1], Finished)
    assert events[-1].usage.prompt_tokens == 5
    with pytest.raises(EngineUnsupportedError):
        resumed(server, {"prompt": [1, 2]}, Resume("ab", 2), path=TEXT)


@pytest.mark.parametrize("prompt", ["<Hi>", ["<Hi>"], numbers(*"<Hi>"), [numbers(*"<Hi>")]])
def test_a_completions_prompt_is_text_or_tokens(prompt: object) -> None:
    server = FakeServer()
    resumed(server, {"model": "m", "prompt": prompt}, Resume("ab", 2), path=TEXT)
    assert server.completion["prompt"] == numbers(*"<Hi>ab")
    assert all(body["model"] == "m" for _, body in server.asked)


@pytest.mark.parametrize(
    ("body", "so_far", "finish_reason"),
    [
        ({"max_tokens": 2}, Resume("ab", 2), "length"),
        ({"n_predict": 1, "max_tokens": 9}, Resume("ab", 2), "length"),
        ({"max_completion_tokens": 2}, Resume("ab", 2), "length"),
        ({}, Resume("ab", 2, finish_reason="length"), "length"),
    ],
)
def test_where_nothing_is_left_only_the_usage_comes(body: dict[str, Any], so_far: Resume, finish_reason: str) -> None:
    server = FakeServer()
    [last] = resumed(server, {"messages": MESSAGES, **body}, so_far)
    assert last == Finished(Usage(4, len(so_far.text)), finish_reason, "", 0)
    assert "/completion" not in {path for path, _ in server.asked}


def test_a_text_that_is_whole_has_the_end_counted_as_the_engine_does() -> None:
    """It had a token of its own, without text; a server that counts otherwise tells so as well."""
    for predicted in (0, 1):
        end = {"content": "?", "stop": True, "stop_type": "eos", "tokens_predicted": predicted}
        server = FakeServer(answer=f"data: {json.dumps(end)}\n\n".encode())
        [last] = resumed(server, {"messages": MESSAGES}, Resume("ab", 2, finish_reason="stop"))
        assert last == Finished(Usage(4, 2 + predicted), "stop", "", 0)
        assert server.completion["n_predict"] == 1


def test_no_limit_stays_none() -> None:
    server = FakeServer()
    resumed(server, {"messages": MESSAGES, "max_tokens": -1}, Resume("ab", 2))
    assert "n_predict" not in server.completion


@pytest.mark.parametrize(("stop_type", "finish_reason"), [("eos", "stop"), ("word", "stop"), ("limit", "length")])
def test_an_end_is_told_in_openais_words(stop_type: str, finish_reason: str) -> None:
    *_, last = resumed(FakeServer(sse(ENDED | {"stop_type": stop_type})), {"messages": MESSAGES}, Resume("ab", 2))
    assert isinstance(last, Finished)
    assert last.finish_reason == finish_reason


def test_a_full_context_ends_the_answer() -> None:
    full = {"error": {"code": 400, "message": "too long", "type": "exceed_context_size_error"}}
    server = FakeServer(json.dumps(full).encode(), status=400)
    assert resumed(server, {"messages": MESSAGES}, Resume("ab", 2)) == [Finished(Usage(4, 2), "length", "", 0)]


@pytest.mark.parametrize(
    ("server", "error"),
    [
        (FakeServer(b'{"error": {"message": "no"}}', status=400), EngineRefusedError),
        (FakeServer(b"[]", status=500), EngineRefusedError),
        (FakeServer(rendered_status=404), EngineUnsupportedError),
        (FakeServer(b"", rendered_status=400, rendered=b'{"error": {"message": "no"}}'), EngineRefusedError),
        (FakeServer(rendered=b"{}"), EngineUnavailableError),
        (FakeServer(b""), EngineBrokenError),
        (FakeServer(sse({"content": "x", "stop": False})), EngineBrokenError),
        (FakeServer(sse({"content": "x"}, {"error": {"code": 500, "message": "gone"}})), EngineBrokenError),
        (FakeServer(b"data: nonsense\n\n"), EngineBrokenError),
    ],
)
def test_what_goes_wrong_is_in_its_place(server: FakeServer, error: type[Exception]) -> None:
    with pytest.raises(error):
        resumed(server, {"messages": MESSAGES}, Resume("ab", 2))


@pytest.mark.parametrize(
    "body",
    [
        {"messages": MESSAGES, "n": 2},
        {"messages": MESSAGES, "response_format": {"type": "json_object"}},
        {"messages": MESSAGES, "grammar": "root ::= [a-z]"},
        {"messages": MESSAGES, "max_tokens": "9"},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        {"messages": ["Hi"]},
        [],
    ],
)
def test_what_would_go_on_otherwise_is_not_continued(body: Any) -> None:
    with pytest.raises(EngineUnsupportedError):
        resumed(FakeServer(), body, Resume("ab", 2))


@pytest.mark.parametrize("prompt", [["a", "b"], [1, "a"], [], {"prompt_string": "a"}])
def test_several_prompts_are_not_continued(prompt: object) -> None:
    with pytest.raises(EngineUnsupportedError):
        resumed(FakeServer(), {"prompt": prompt}, Resume("ab", 2), path=TEXT)


def test_a_model_that_thinks_is_continued_only_when_its_thinking_is_over_or_in_the_text() -> None:
    template = "{{ '<think>' if enable_thinking }}"
    with pytest.raises(EngineUnsupportedError):
        resumed(FakeServer(), {"messages": MESSAGES}, Resume("ab", 2), template=template)
    over = FakeServer(rendered=json.dumps({"prompt": "<Hi><think></think>\n"}).encode())
    assert len(resumed(over, {"messages": MESSAGES}, Resume("ab", 2), template=template)) == 2
    bare = {"messages": MESSAGES, "reasoning_format": "none"}
    assert len(resumed(FakeServer(), bare, Resume("ab", 2), template=template)) == 2

"""What is continued on Ollama, and what is asked for it: a raw prompt with the text so far."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from engine_support import CHAT_PATH, leaving_nothing, running
from neurogate.channel import Resume
from neurogate.engines.engine import (
    EngineBrokenError,
    EngineCall,
    EngineRefusedError,
    EngineUnsupportedError,
)
from neurogate.engines.ollama import OllamaEngine
from neurogate.inference import Finished, GenerationEvent, Token, Usage
from neurogate.testing import fake_ollama
from neurogate.testing.fake_ollama import ANSWERS, FakeOllama

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi?"}]
RENDERED = "<|system|>Be brief.<|user|>Hi?<|assistant|>"
CHAT = {"model": "llama3.2", "messages": MESSAGES}
GENERATE = {"model": "llama3.2", "prompt": "Hi?"}
SAID = Resume("Hello from", 2)

REQUESTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "chat": ("/api/chat", CHAT, RENDERED),
    "chat in capitals": ("/api/chat", {"Model": "llama3.2", "Messages": MESSAGES}, RENDERED),
    "generate": ("/api/generate", GENERATE, "<|user|>Hi?<|assistant|>"),
    "a raw prompt": ("/api/generate", {**GENERATE, "raw": True, "prompt": "Hi<|assistant|>"}, "Hi<|assistant|>"),
    "OpenAI's chat": (CHAT_PATH, {**CHAT, "n": 1, "tools": [], "user": "u"}, RENDERED),
    "OpenAI's completion": ("/v1/completions", GENERATE, "<|user|>Hi?<|assistant|>"),
}


@asynccontextmanager
async def ready(**fields: Any) -> AsyncIterator[tuple[FakeOllama, OllamaEngine]]:
    async with (
        asyncio.timeout(20),
        leaving_nothing(),
        FakeOllama(**fields) as fake,
        running(OllamaEngine(fake.url)) as engine,
    ):
        yield fake, engine


async def resumed(engine: OllamaEngine, path: str, body: dict[str, Any], said: Resume = SAID) -> list[GenerationEvent]:
    call = EngineCall(path, json.dumps(body).encode(), "r-1")
    async with aclosing(engine.resume(call, said)) as events:
        return [event async for event in events]


@pytest.mark.parametrize("name", REQUESTS)
def test_the_text_so_far_follows_what_the_model_is_given(name: str) -> None:
    path, body, prompt = REQUESTS[name]

    async def go() -> None:
        async with ready() as (fake, engine):
            assert path in (await engine.observe()).resumes
            events = await resumed(engine, path, body)
            assert events[:-1] == [Token(" Ollama"), Token(".")]
            assert events[-1] == Finished(Usage(26, 4), "stop", "llama3.2", 530)
            asked = fake.asked[-1]
            assert (asked.path, asked.body["raw"], asked.body["prompt"]) == (
                "/api/generate", True, prompt + "Hello from",
            )  # fmt: skip
            assert fake.running == 0

    asyncio.run(go())


def test_a_text_without_a_beginning_is_answered_as_it_was_asked() -> None:
    async def go() -> None:
        async with ready() as (fake, engine):
            events = await resumed(engine, "/api/chat", CHAT, Resume(""))
            assert events[:-1] == [Token(text) for text in ANSWERS.tokens]
            assert [asked.path for asked in fake.asked] == ["/api/chat"]

    asyncio.run(go())


def test_settings_go_on_and_the_limit_is_what_is_left_of_it() -> None:
    async def go() -> None:
        async with ready() as (fake, engine):
            options = {"num_predict": 3, "top_k": 5}
            events = await resumed(engine, "/api/chat", {**CHAT, "options": options, "keep_alive": "1h"})
            assert events[:-1] == [Token(" Ollama")]
            assert isinstance(events[-1], Finished)
            assert (events[-1].finish_reason, events[-1].usage) == ("length", Usage(26, 3))
            assert fake.asked[-1].body["options"] == {"num_predict": 1, "top_k": 5}
            assert fake.asked[-1].body["keep_alive"] == "1h"
            openai = {**CHAT, "max_tokens": 4, "stop": "x", "seed": 1}
            await resumed(engine, CHAT_PATH, openai)
            told = {"num_predict": 2, "stop": ["x"], "seed": 1, "temperature": 1.0, "top_p": 1.0}
            assert fake.asked[-1].body["options"] == told
            parts = [{"role": "user", "content": [{"type": "text", "text": "Hi?"}]}]
            await resumed(engine, CHAT_PATH, {**CHAT, "messages": parts})
            assert fake.asked[-1].body["prompt"] == "<|user|>Hi?<|assistant|>Hello from"

    asyncio.run(go())


@pytest.mark.parametrize(
    ("said", "options", "finish_reason"),
    [(Resume("Hello from", 2, finish_reason="stop"), {}, "stop"), (SAID, {"num_predict": 2}, "length")],
)
def test_of_a_whole_text_only_the_usage_is_asked(said: Resume, options: dict[str, int], finish_reason: str) -> None:
    async def go() -> None:
        async with ready() as (_, engine):
            [finished] = await resumed(engine, "/api/chat", {**CHAT, "options": options}, said)
            assert finished == Finished(Usage(26, 2), finish_reason, "", 0)

    asyncio.run(go())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", {**CHAT, "format": "json"}),
        ("/api/chat", {**CHAT, "Tools": [{"type": "function"}]}),
        ("/api/chat", {**CHAT, "messages": [{"role": "user", "content": "x", "images": ["aGk="]}]}),
        ("/api/generate", {**GENERATE, "context": [1, 2]}),
        ("/api/generate", {**GENERATE, "suffix": "x"}),
        (CHAT_PATH, {**CHAT, "reasoning_effort": "low"}),
        (CHAT_PATH, {**CHAT, "response_format": {"type": "json_object"}}),
        ("/v1/completions", {"model": "llama3.2", "prompt": ["a"]}),
        ("/v1/responses", CHAT),
    ],
)
def test_what_would_go_on_otherwise_is_not_continued(path: str, body: dict[str, Any]) -> None:
    async def go() -> None:
        async with ready() as (fake, engine):
            with pytest.raises(EngineUnsupportedError):
                await resumed(engine, path, body)
            assert fake.asked == []

    asyncio.run(go())


@pytest.mark.parametrize(
    "shown",
    [
        {"parser": "harmony"},
        {"renderer": "qwen3"},
        {"remote_host": "https://models.example"},
        {"details": {"family": "gptoss"}},
        {"capabilities": ["completion", "thinking"]},
    ],
)
def test_a_model_with_something_between_it_and_its_client_is_not_continued(shown: dict[str, Any]) -> None:
    async def go() -> None:
        async with ready() as (fake, engine):
            fake.shown = shown
            with pytest.raises(EngineUnsupportedError):
                await resumed(engine, "/api/chat", CHAT)

    asyncio.run(go())


def test_a_model_that_is_told_not_to_think_is_continued() -> None:
    async def go() -> None:
        async with ready() as (fake, engine):
            fake.shown = {"capabilities": ["completion", "thinking"]}
            events = await resumed(engine, "/api/chat", {**CHAT, "think": False})
            assert len(events) == 3
            assert fake.asked[-1].body["think"] is False

    asyncio.run(go())


def test_an_old_ollama_continues_nothing_and_generates_one_token_at_most() -> None:
    async def go() -> None:
        async with ready(version="0.11.4") as (fake, engine):
            assert not (await engine.observe()).resumes
            with pytest.raises(EngineUnsupportedError):
                await resumed(engine, "/api/chat", CHAT)
            assert fake.asked[-1].body["options"]["num_predict"] == 1

    asyncio.run(go())


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (fake_ollama.REFUSES, EngineRefusedError),
        (fake_ollama.TRUNCATES, EngineBrokenError),
        (replace(fake_ollama.DIES, dies_after=1), EngineBrokenError),
        (replace(fake_ollama.REPORTS_ERROR, error_after=1), EngineBrokenError),
    ],
)
def test_a_continuation_fails_as_an_answer_does(script: fake_ollama.Script, error: type[Exception]) -> None:
    async def go() -> None:
        async with ready() as (fake, engine):
            fake.script = script
            with pytest.raises(error):
                await resumed(engine, "/api/chat", CHAT)
            await fake.until_running(0)

    asyncio.run(go())


def test_a_model_that_is_not_there_is_refused() -> None:
    async def go() -> None:
        async with ready() as (_, engine):
            for said in (SAID, Resume("")):
                with pytest.raises(EngineRefusedError) as caught:
                    await resumed(engine, "/api/chat", {**CHAT, "model": "other"}, said)
                assert caught.value.status == 404

    asyncio.run(go())

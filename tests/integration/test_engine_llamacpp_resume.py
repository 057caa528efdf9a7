"""The real llama.cpp with the real model continues what it began itself, as if nobody had broken it off."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from engine_support import CHAT_PATH, LogList, leaving_nothing, read, running, until_ready
from neurogate.channel import Resume
from neurogate.engines.engine import EngineCall
from neurogate.engines.llamacpp.engine import ManagedLlamaCppEngine
from neurogate.engines.settings import EngineSettings
from neurogate.inference import Finished, Token

pytestmark = pytest.mark.model

TEXT = "/v1/completions"

REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "a batch that differs": (CHAT_PATH, {"messages": [{"role": "user", "content": "Why is the sky blue?"}]}),
    "paragraphs": (CHAT_PATH, {"messages": [{"role": "user", "content": "Give me a recipe for pancakes."}]}),
    "odd spelling": (
        CHAT_PATH,
        {"messages": [{"role": "user", "content": "Translate 'good morning' into French, German and Spanish."}]},
    ),
    "a stop text": (
        CHAT_PATH,
        {"messages": [{"role": "user", "content": "Why is the sky blue?"}], "stop": "scattering of"},
    ),
    "a turn that has begun": (
        CHAT_PATH,
        {"messages": [{"role": "user", "content": "A story!"}, {"role": "assistant", "content": "Once upon"}]},
    ),
    "a completion": (TEXT, {"prompt": "Once upon a time", "frequency_penalty": 0.5}),
    "tokens": (TEXT, {"prompt": [504, 6376, 314]}),
}


async def told(engine: ManagedLlamaCppEngine, call: EngineCall) -> tuple[list[str], str, dict[str, Any]]:
    """The texts of an answer's events, its finish reason and its usage."""
    async with engine.forward(call) as reply:
        stream = await read(reply.body)
    chunks = [json.loads(line[6:]) for line in stream.decode().split("\n\n") if line.startswith("data: {")]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    texts = [choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices]
    return [text for text in texts if text], choices[-1]["finish_reason"], chunks[-1]["usage"]


def test_from_any_cut_the_answer_is_to_the_letter_what_it_would_have_been(smollm2_path: Path) -> None:
    async def check(engine: ManagedLlamaCppEngine, path: str, fields: dict[str, Any]) -> None:
        body = {"temperature": 0, "max_tokens": 48, "cache_prompt": False, "stream": True, **fields}
        call = EngineCall(path, json.dumps({**body, "stream_options": {"include_usage": True}}).encode())
        pieces, finish_reason, usage = await told(engine, call)
        for cut in {len(pieces) // 3 or 1, len(pieces) * 2 // 3, len(pieces) - 1}:
            said = Resume("".join(pieces[:cut]), cut, lengths=bytes(map(len, pieces[:cut])))
            async with aclosing(engine.resume(call, said)) as events:
                *tokens, last = [event async for event in events]
            assert said.text + "".join(each.text for each in tokens if isinstance(each, Token)) == "".join(pieces)
            assert isinstance(last, Finished)
            assert last.usage.prompt_tokens == usage["prompt_tokens"]
            assert last.usage.completion_tokens == usage["completion_tokens"]
            assert last.finish_reason == finish_reason

    async def go() -> None:
        settings = EngineSettings(slots=1, context_length=512, threads=1)
        engine = ManagedLlamaCppEngine(settings, smollm2_path, "smollm2", log=LogList())
        async with leaving_nothing(), running(engine):
            assert (await until_ready(engine)).resumes == {CHAT_PATH, TEXT}
            for path, fields in REQUESTS.values():
                await check(engine, path, fields)

    asyncio.run(go())


def test_an_answer_that_fills_the_context_is_at_its_end(smollm2_path: Path) -> None:
    async def go() -> None:
        settings = EngineSettings(slots=1, context_length=256, threads=1)
        engine = ManagedLlamaCppEngine(settings, smollm2_path, "smollm2", log=LogList())
        async with leaving_nothing(), running(engine):
            await until_ready(engine)
            messages = [{"role": "user", "content": "Tell me a story."}]
            call = EngineCall(CHAT_PATH, json.dumps({"messages": messages}).encode())
            text = " fox" * 300
            [last] = [event async for event in engine.resume(call, Resume(text, 300, lengths=b"\x04" * 300))]
            assert isinstance(last, Finished)
            assert (last.finish_reason, last.usage.completion_tokens) == ("length", 300)

    asyncio.run(go())

"""What is continued on vLLM, whose tokens here are the code points of a text."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from engine_support import CHAT_PATH, leaving_nothing, running
from neurogate.channel import Resume
from neurogate.engines.engine import EngineCall, EngineRefusedError, EngineUnavailableError, EngineUnsupportedError
from neurogate.engines.openai import OpenAIEngine
from neurogate.inference import Finished, GenerationEvent, Token, Usage

CONTEXT = 64
RENDERED = "<user>Hi?<assistant>"
ANSWER = "Hello you."
TEXT = "/v1/completions"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi?"}], "max_tokens": 20}


class FakeVllm:
    """As much of a vLLM server as continuing an answer takes."""

    def __init__(self, owner: str = "vllm", tokenize: web.Response | None = None) -> None:
        self.owner = owner
        self.tokenize = tokenize
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/v1/models":
            return web.json_response({"data": [{"id": "m", "owned_by": self.owner, "max_model_len": CONTEXT}]})
        body = await request.json()
        self.asked.append((request.path, body))
        if request.path == "/tokenize":
            text = "".join(f"<{message['role']}>{message['content']}" for message in body.get("messages", ()))
            tokens = [ord(each) for each in (text + "<assistant>" if text else body["prompt"])]
            told = {"count": len(tokens), "max_model_len": CONTEXT, "tokens": tokens}
            return self.tokenize or web.json_response(told)
        given = "".join(map(chr, body["prompt"])) if "prompt" in body else RENDERED
        left = ANSWER[len(given.partition("<assistant>")[2]) :]
        said = left[: body["max_tokens"]]
        reason = "stop" if said == left else "length"
        key = "text" if "prompt" in body else "delta"
        chunks: list[dict[str, Any]] = [
            {"model": "m", "choices": [{"index": 0, key: each if key == "text" else {"content": each}}]}
            for each in said
        ]
        chunks.append(
            {"model": "m", "choices": [{"index": 0, key: "" if key == "text" else {}, "finish_reason": reason}]}
        )
        usage = {"prompt_tokens": len(given), "completion_tokens": len(said)}
        chunks.append({"model": "m", "choices": [], "usage": usage | {"prompt_tokens_details": {"cached_tokens": 99}}})
        events = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
        return web.Response(text=events + "data: [DONE]\n\n", content_type="text/event-stream")


@asynccontextmanager
async def served(fake: FakeVllm) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.answer)
    runner = web.AppRunner(app, shutdown_timeout=0, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def ready(fake: FakeVllm) -> AsyncIterator[OpenAIEngine]:
    async with asyncio.timeout(20), leaving_nothing(), served(fake) as url, running(OpenAIEngine(url)) as engine:
        await engine.observe()
        yield engine


def resumed(
    body: dict[str, Any], said: Resume, *, path: str = CHAT_PATH, fake: FakeVllm | None = None
) -> list[GenerationEvent]:
    async def go() -> list[GenerationEvent]:
        async with (
            ready(fake or FakeVllm()) as engine,
            aclosing(engine.resume(EngineCall(path, json.dumps(body).encode()), said)) as events,
        ):
            return [event async for event in events]

    return asyncio.run(go())


def refused(
    error: type[Exception], body: dict[str, Any], *, path: str = CHAT_PATH, fake: FakeVllm | None = None
) -> None:
    async def go() -> None:
        async with ready(fake or FakeVllm()) as engine:
            with pytest.raises(error):
                await anext(engine.resume(EngineCall(path, json.dumps(body).encode()), Resume("Hello", 5)))

    asyncio.run(go())


def test_from_any_token_on_the_rest_is_what_it_would_have_been() -> None:
    for cut in range(len(ANSWER) + 1):
        *tokens, last = resumed(CHAT, Resume(ANSWER[:cut], cut))
        assert ANSWER[:cut] + "".join(token.text for token in tokens if isinstance(token, Token)) == ANSWER
        assert isinstance(last, Finished)
        assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (len(RENDERED), len(ANSWER))
        assert (last.usage.cached_tokens <= len(RENDERED)) is (cut > 0)
        assert (last.finish_reason, last.model) == ("stop", "m")


def test_settings_go_on_and_the_limit_is_what_is_left_of_it() -> None:
    fake = FakeVllm()
    body = {
        **CHAT,
        "max_tokens": 7,
        "min_tokens": 6,
        "top_k": 5,
        "presence_penalty": 0,
        "chat_template_kwargs": {"a": 1},
    }
    *_, last = resumed(body, Resume("Hello", 5), fake=fake)
    assert isinstance(last, Finished)
    assert (last.finish_reason, last.usage.completion_tokens) == ("length", 7)
    path, asked = fake.asked[-1]
    assert path == TEXT
    assert (asked["max_tokens"], asked["min_tokens"], asked["top_k"]) == (2, 1, 5)
    assert not {"messages", "chat_template_kwargs"} & asked.keys()
    assert fake.asked[0][1]["chat_template_kwargs"] == {"a": 1}


@pytest.mark.parametrize("prompt", ["<assistant>", [ord(each) for each in "<assistant>"]])
def test_a_completion_without_a_limit_has_vllms_own(prompt: object) -> None:
    fake = FakeVllm()
    *_, last = resumed({"prompt": prompt}, Resume("Hello", 5), path=TEXT, fake=fake)
    assert isinstance(last, Finished)
    assert last.usage.completion_tokens == len(ANSWER)
    assert fake.asked[-1][1]["max_tokens"] == 11


def test_a_chat_without_a_limit_has_the_rest_of_the_context() -> None:
    fake = FakeVllm()
    unlimited = {name: value for name, value in CHAT.items() if name != "max_tokens"}
    resumed(unlimited, Resume("Hello", 5), fake=fake)
    assert fake.asked[-1][1]["max_tokens"] == CONTEXT - len(RENDERED) - 5


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (Resume(ANSWER, 10, finish_reason="stop"), "stop"),
        (Resume("x" * 20, 20), "length"),
        (Resume("x" * 44, 9), "length"),
    ],
)
def test_where_nothing_is_left_only_the_usage_comes(said: Resume, reason: str) -> None:
    assert resumed(CHAT, said) == [Finished(Usage(len(RENDERED), len(said.text)), reason, "", 0)]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT_PATH, {**CHAT, "frequency_penalty": 0.5}),
        (CHAT_PATH, {**CHAT, "guided_json": {}}),
        (CHAT_PATH, {**CHAT, "n": 2}),
        (TEXT, {"prompt": ["a", "b"]}),
        ("/v1/embeddings", {}),
    ],
)
def test_what_would_go_on_otherwise_is_not_continued(path: str, body: dict[str, Any]) -> None:
    refused(EngineUnsupportedError, body, path=path)


def test_a_server_that_is_no_vllm_continues_nothing() -> None:
    async def go() -> None:
        async with ready(FakeVllm("library")) as engine:
            assert not (await engine.observe()).resumes

    asyncio.run(go())
    refused(EngineUnsupportedError, CHAT, fake=FakeVllm("library"))


@pytest.mark.parametrize(
    ("status", "text", "error"),
    [
        (404, "{}", EngineUnsupportedError),
        (400, '{"error": {"message": "no"}}', EngineRefusedError),
        (200, "{}", EngineUnavailableError),
    ],
)
def test_a_server_that_does_not_tokenize_continues_nothing(status: int, text: str, error: type[Exception]) -> None:
    told = web.Response(status=status, text=text, content_type="application/json")
    refused(error, CHAT, fake=FakeVllm(tokenize=told))

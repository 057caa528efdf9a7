"""The official Ollama client against a gateway and workers in one process, over real HTTP and gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import ollama
import pytest

from fleet_in_process import AUTH, Fleet, fleet
from neurogate.engines.settings import SimSettings
from real_loop import run_real

MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]
CHAT = {"model": "tiny", "messages": MESSAGES}
GENERATE = {"model": "tiny", "prompt": "Why is the sky blue?"}


@asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[tuple[Fleet, ollama.AsyncClient]]:
    async with fleet(**settings) as made:
        client = ollama.AsyncClient(made.url, headers=AUTH, timeout=20)
        try:
            yield made, client
        finally:
            await client.close()  # type: ignore[no-untyped-call]


async def collect(stream: AsyncIterator[ollama.ChatResponse], chunks: list[ollama.ChatResponse]) -> None:
    """Keep what comes, also when an error follows."""
    async for chunk in stream:
        chunks.append(chunk)  # noqa: PERF401 - a comprehension would lose them


def test_a_chat_is_the_same_streamed_whole_and_by_openais_api() -> None:
    async def main() -> None:
        async with served() as (made, client):
            whole = await client.chat("tiny", MESSAGES)
            stream = [chunk async for chunk in await client.chat("tiny", MESSAGES, stream=True)]
            assert "".join(chunk.message.content or "" for chunk in stream) == whole.message.content
            assert [chunk.done for chunk in stream] == [False] * (len(stream) - 1) + [True]
            openai = (await made.client.post("/v1/chat/completions", json=CHAT)).json()
            assert openai["choices"][0]["message"]["content"] == whole.message.content
            for last in (whole, stream[-1]):
                assert (last.model, last.done_reason, last.message.role) == ("tiny", "stop", "assistant")
                assert last.prompt_eval_count == openai["usage"]["prompt_tokens"]
                assert last.eval_count == openai["usage"]["completion_tokens"]
                assert last.total_duration is not None
                assert last.load_duration == 0

    run_real(main())


def test_a_prompt_is_answered_streamed_and_whole() -> None:
    async def main() -> None:
        async with served() as (_, client):
            options = {"num_predict": 7, "temperature": 0}
            whole = await client.generate("tiny", "Why?", system="Be brief.", options=options)
            stream = [part async for part in await client.generate("tiny", "Why?", "", stream=True, options=options)]
            assert (whole.done_reason, whole.eval_count) == ("length", 7)
            assert len(stream) == 8
            assert (stream[-1].done_reason, stream[-1].eval_count, stream[-1].response) == ("length", 7, "")
            raw = await client.generate("tiny", "The sky is", raw=True, options=options)
            assert raw.eval_count == 7

    run_real(main())


def test_durations_are_true() -> None:
    """Four tokens at forty a second take a tenth of a second, and so they are told."""

    async def main() -> None:
        async with served(sim=SimSettings(prefill_tps=200, decode_tps=40, slots=1)) as (_, client):
            answer = await client.generate("tiny", "Why is that so?", options={"num_predict": 4})
            assert answer.eval_duration is not None
            assert answer.prompt_eval_duration is not None
            assert answer.total_duration is not None
            assert 0.05e9 < answer.eval_duration < 10e9
            assert answer.prompt_eval_duration > 0
            assert answer.total_duration >= 0.05e9

    run_real(main())


def test_the_stream_is_ndjson_and_has_the_gateways_headers() -> None:
    async def main() -> None:
        async with served() as (made, _):
            for path, body in (("/api/chat", CHAT), ("/api/generate", GENERATE)):
                answer = await made.client.post(path, json=body)
                assert answer.headers["content-type"] == "application/x-ndjson"
                assert answer.headers["x-neurogate-worker"] == "worker-0"
                assert answer.content.endswith(b"\n")
                lines = [msgspec.json.decode(line) for line in answer.content.splitlines()]
                assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
                whole = await made.client.post(path, json={**body, "stream": False})
                assert whole.headers["content-type"] == "application/json"
                assert whole.json()["done"] is True

    run_real(main())


@pytest.mark.parametrize("name", ["tiny", "tiny:latest"])
@pytest.mark.parametrize("served_as", ["tiny", "tiny:latest"])
def test_a_model_is_found_with_and_without_latest(name: str, served_as: str) -> None:
    async def main() -> None:
        async with served(models=(served_as,)) as (made, client):
            answer = await client.generate(name, "Why?", options={"num_predict": 1})
            assert answer.done
            assert (await client.show(name)).modelinfo is not None
            assert msgspec.json.decode(made.calls[-1].body)["model"] == served_as

    run_real(main())


def test_a_model_is_shown_and_loaded() -> None:
    async def main() -> None:
        async with served() as (_, client):
            shown = await client.show("tiny")
            assert shown.capabilities is not None
            assert "completion" in shown.capabilities
            assert (shown.modelinfo or {})["general.context_length"] > 0
            for loaded in (await client.generate("tiny"), await client.generate("tiny", keep_alive=0)):
                assert (loaded.done, loaded.done_reason, loaded.response) == (True, "load", "")
            assert (await client.chat("tiny")).done_reason == "load"

    run_real(main())


def test_the_fleets_models_are_listed() -> None:
    async def main() -> None:
        async with served(workers=3, models=("big", "tiny")) as (made, client):
            for models in ((await client.list()).models, (await client.ps()).models):
                assert [model.model for model in models] == ["big", "tiny"]
            assert (await client.ps()).models[0].context_length
            assert (await made.client.get("/api/version")).json()["version"]
            assert (await made.client.get("/")).text == "Ollama is running"
            assert (await made.client.head("/")).status_code == 200
            for asking in (client.pull("x"), client.push("x"), client.delete("x"), client.copy("x", "y")):
                with pytest.raises(ollama.ResponseError, match="Ollama of the worker itself") as refused:
                    await asking
                assert refused.value.status_code == 501

    run_real(main())


def test_texts_are_embedded() -> None:
    async def main() -> None:
        async with served() as (_, client):
            one = await client.embed("tiny", "a fox")
            two = await client.embed("tiny", ["a fox", "a dog"])
            assert len(one.embeddings) == 1
            assert one.embeddings[0] == two.embeddings[0] != two.embeddings[1]
            assert two.prompt_eval_count is not None
            assert len((await client.embed("tiny", "a fox", dimensions=3)).embeddings[0]) == 3
            assert list((await client.embeddings("tiny", "a fox")).embedding) == list(one.embeddings[0])

    run_real(main())


def test_tools_are_called() -> None:
    async def main() -> None:
        function = {
            "name": "weather",
            "description": "The weather of a town",
            "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
        }
        tools: Any = [{"type": "function", "function": function}]
        async with served() as (_, client):
            whole = await client.chat("tiny", [{"role": "user", "content": "Weather?"}], tools=tools)
            calls = whole.message.tool_calls or []
            assert [call.function.name for call in calls] == ["weather"]
            assert set(calls[0].function.arguments) == {"town"}
            streamed = await client.chat("tiny", [{"role": "user", "content": "Weather?"}], tools=tools, stream=True)
            chunks = [chunk async for chunk in streamed]
            told = [call for chunk in chunks for call in chunk.message.tool_calls or ()]
            assert told == calls
            again = [
                {"role": "user", "content": "Weather?"},
                whole.message,
                {"role": "tool", "tool_name": "weather", "content": "sunny"},
            ]
            assert (await client.chat("tiny", again)).message.content

    run_real(main())


def test_json_comes_by_its_schema() -> None:
    async def main() -> None:
        schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        async with served() as (_, client):
            answer = await client.chat("tiny", MESSAGES, format=schema)
            assert isinstance(msgspec.json.decode(answer.message.content or "")["n"], int)

    run_real(main())


# Refusals


def test_the_official_client_understands_our_errors() -> None:
    async def main() -> None:
        async with served() as (_, client):
            for asking, status, told in (
                (client.generate("other", "Why?"), 404, "not found"),
                (client.chat("other", MESSAGES), 404, "not found"),
                (client.show("other"), 404, "not found"),
                (client.generate("tiny", "Why?", suffix="x"), 501, "suffix"),
                (client.generate("tiny", "Why?", context=[1]), 501, "/api/chat"),
                (client.chat("tiny", MESSAGES, options={"num_predict": 10**9}), 400, "num_predict"),
                (client.chat("tiny", MESSAGES, options={"temperature": "hot"}), 400, "temperature"),
            ):
                with pytest.raises(ollama.ResponseError, match=told) as refused:
                    await asking
                assert refused.value.status_code == status

    run_real(main())


def test_a_stream_that_breaks_ends_with_an_error_and_is_not_done() -> None:
    async def main() -> None:
        for fault in ("cut_after=3", "error_after=3"):
            sim = SimSettings(prefill_tps=0, decode_tps=0, faults=fault)
            async with served(sim=sim) as (made, client):
                chunks: list[ollama.ChatResponse] = []
                with pytest.raises(ollama.ResponseError, match="broke off"):
                    await collect(await client.chat("tiny", MESSAGES, stream=True), chunks)
                assert chunks
                assert not any(chunk.done for chunk in chunks)
                body = (await made.client.post("/api/generate", json=GENERATE)).content
                lines = [msgspec.json.decode(line) for line in body.splitlines()]
                assert "error" in lines[-1]
                assert not any(line.get("done") for line in lines)

    run_real(main())


def test_an_engine_that_fails_is_asked_elsewhere_and_then_a_502() -> None:
    async def main() -> None:
        sim = SimSettings(prefill_tps=0, decode_tps=0, faults="error=1")
        async with served(workers=2, sim=sim) as (made, client):
            with pytest.raises(ollama.ResponseError) as failed:
                await client.generate("tiny", "Why?")
            assert failed.value.status_code == 502
            assert len(made.calls) == 2

    run_real(main())


def test_a_client_that_leaves_frees_its_slot() -> None:
    async def main() -> None:
        async with served(sim=SimSettings(prefill_tps=0, decode_tps=200, slots=1)) as (made, client):
            endless = {**CHAT, "options": {"num_predict": 100_000}}
            async with made.client.stream("POST", "/api/chat", json=endless) as answer:
                await anext(answer.aiter_bytes())
            await made.settled()
            assert (await client.generate("tiny", "Why?", options={"num_predict": 1})).done

    run_real(main())


def test_nobody_is_let_in_without_the_key() -> None:
    async def main() -> None:
        async with served() as (made, _), httpx.AsyncClient(base_url=made.url) as stranger:
            for path in ("/api/chat", "/api/generate", "/api/embed", "/api/show"):
                answer = await stranger.post(path, json=CHAT)
                assert answer.status_code == 401
                assert set(answer.json()) == {"error"}
            assert made.calls == []

    run_real(main())

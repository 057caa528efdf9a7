"""The engine for Ollama, against a server with Ollama's habits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx
import ollama
import pytest

from engine_support import chat_call, http_answer, leaving_nothing, raw_server, read, running, sse_answer
from neurogate.engines.engine import (
    EngineBrokenError,
    EngineCall,
    EngineRefusedError,
    EngineUnavailableError,
    EngineUnsupportedError,
    ModelInfo,
)
from neurogate.engines.ollama import OllamaEngine, parameters_of
from neurogate.engines.ollama_lines import LINE_BYTES_MAX
from neurogate.inference import Finished, GenerationEvent, Prompt, Token, Usage
from neurogate.testing import fake_ollama
from neurogate.testing.fake_ollama import FakeOllama, Script


@asynccontextmanager
async def connected(model: str = "", **fields: Any) -> AsyncIterator[tuple[FakeOllama, OllamaEngine]]:
    async with (
        leaving_nothing(),
        FakeOllama(**fields) as fake,
        running(OllamaEngine(fake.url, model=model, slots=2)) as engine,
    ):
        yield fake, engine


async def generated(
    engine: OllamaEngine, prompt: Prompt, said: list[GenerationEvent] | None = None
) -> list[GenerationEvent]:
    """The events, also put into `said` as they come."""
    said = [] if said is None else said
    async with aclosing(engine.generate(prompt)) as events:
        async for event in events:
            said.append(event)
    return said


# --- observe --------------------------------------------------------------------------------------------------------


def test_installed_models_are_told_with_the_loaded_ones_and_both_names() -> None:
    async def go() -> None:
        async with connected() as (_fake, engine):
            observation = await engine.observe()

        assert observation.ready
        assert observation.version == "0.12.9"
        told: dict[str, Any] = {
            "family": "llama",
            "parameters": 3_200_000_000,
            "quantization": "Q4_K_M",
            "size_bytes": 2 << 30,
            "digest": "a80c4f17acd5",
        }
        assert observation.models == (
            ModelInfo("llama3.2:latest", loaded=True, context_length=4096, **told),
            ModelInfo("llama3.2", loaded=True, context_length=4096, **told),
            ModelInfo("qwen3:0.6b", loaded=False, **told),
        )
        assert (observation.slots_total, observation.slots_busy, observation.queued) == (2, None, None)

    asyncio.run(go())


def test_without_any_model_it_is_not_ready_and_says_what_to_pull() -> None:
    async def go() -> None:
        async with connected(models=(), loaded=()) as (_fake, engine):
            observation = await engine.observe()
            assert (observation.ready, observation.detail) == (
                False,
                "Ollama has no model: run `ollama pull llama3.2`",
            )
            with pytest.raises(EngineRefusedError, match=r"`ollama pull llama3\.2`") as caught:
                await generated(engine, Prompt("Hi"))
            assert caught.value.status == 404

    asyncio.run(go())


def test_it_is_ready_again_once_ollama_is_back() -> None:
    async def go() -> None:
        async with connected() as (fake, engine):
            assert (await engine.observe()).ready
            port = int(fake.url.rpartition(":")[2])
            await fake.stop()
            gone = await engine.observe()
            await fake.start(port)
            fake.version = "0.13.0"
            back = await engine.observe()

        assert not gone.ready
        assert "OLLAMA_URL" in gone.detail
        assert (back.ready, back.version) == (True, "0.13.0")

    asyncio.run(go())


@pytest.mark.parametrize(
    ("version", "tags", "detail"),
    [
        (b"<html>", b"", "no Ollama answers"),
        (b'{"version":"1"}', b"<html>", "does not list its models"),
        (b'{"version":"1"}', b'{"models": 5}', "does not list its models"),
    ],
)
def test_a_server_that_is_no_ollama_is_not_ready(version: bytes, tags: bytes, detail: str) -> None:
    async def go() -> None:
        async def answer(writer: asyncio.StreamWriter) -> None:
            writer.write(http_answer(version if "/api/version" in server.requests[-1][0] else tags))

        async with leaving_nothing(), raw_server(answer=answer) as server, running(OllamaEngine(server.url)) as engine:
            observation = await engine.observe()
            assert not observation.ready
            assert detail in observation.detail

    asyncio.run(go())


@pytest.mark.parametrize("hanging", ["/api/version", "/api/tags"])
def test_an_ollama_that_hangs_is_not_ready_after_two_seconds(hanging: str) -> None:
    async def go() -> None:
        async def answer(writer: asyncio.StreamWriter) -> None:
            if hanging in server.requests[-1][0]:
                await asyncio.Event().wait()
            writer.write(http_answer(b'{"version":"1"}'))

        async with leaving_nothing(), raw_server(answer=answer) as server, running(OllamaEngine(server.url)) as engine:
            loop = asyncio.get_running_loop()
            began = loop.time()
            observation = await engine.observe()
            assert loop.time() - began < 4
            assert not observation.ready
            assert "no answer in time" in observation.detail
            await engine.stop()

    asyncio.run(go())


def test_an_error_status_in_the_list_of_models_is_an_observation() -> None:
    async def go() -> None:
        async def answer(writer: asyncio.StreamWriter) -> None:
            is_version = "/api/version" in server.requests[-1][0]
            writer.write(http_answer(b'{"version":"1"}', status="200 OK" if is_version else "500 Oops"))

        async with leaving_nothing(), raw_server(answer=answer) as server, running(OllamaEngine(server.url)) as engine:
            assert "does not list its models" in (await engine.observe()).detail

    asyncio.run(go())


def test_before_the_start_it_is_not_ready() -> None:
    async def go() -> None:
        engine = OllamaEngine("http://127.0.0.1:1")
        assert "not started" in (await engine.observe()).detail
        engine._version = "1"
        assert "not started" in (await engine.observe()).detail
        await engine.stop()

    asyncio.run(go())


# --- forward --------------------------------------------------------------------------------------------------------


def test_openai_bytes_go_to_ollamas_openai_endpoints() -> None:
    async def go() -> None:
        async with connected() as (fake, engine):
            async with engine.forward(chat_call(model="llama3.2", stream=True)) as reply:
                assert (reply.status, reply.content_type) == (200, "text/event-stream")
                assert (await read(reply.body)).endswith(b"data: [DONE]\n\n")
            async with engine.forward(chat_call(model="gone")) as reply:
                assert reply.status == 404
                assert b"not_found_error" in await read(reply.body)
            assert [asked.path for asked in fake.asked] == ["/v1/chat/completions"] * 2

    asyncio.run(go())


@pytest.mark.parametrize("path", ["/api/pull", "/api/delete", "/tokenize"])
def test_what_manages_models_is_not_for_clients(path: str) -> None:
    async def go() -> None:
        async with connected() as (fake, engine):
            with pytest.raises(EngineUnsupportedError):
                async with engine.forward(EngineCall(path, b"{}")):
                    pass
            assert fake.asked == []

    asyncio.run(go())


# --- generate -------------------------------------------------------------------------------------------------------


def test_a_prompt_is_answered_token_by_token_with_ollamas_own_figures() -> None:
    async def go() -> None:
        async with connected() as (fake, engine):
            prompt = Prompt("Hi", model="qwen3:0.6b", system="Be brief", max_tokens=8, temperature=0)
            answer = await generated(engine, prompt)

        assert answer == [
            *map(Token, fake_ollama.ANSWERS.tokens),
            Finished(Usage(26, 4), "stop", "qwen3:0.6b", inference_time_ms=530),
        ]
        assert fake.asked[0].body == {
            "model": "qwen3:0.6b",
            "messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}],
            "stream": True,
            "options": {"num_predict": 8, "temperature": 0},
        }

    asyncio.run(go())


def test_what_a_prompt_leaves_open_is_not_sent_and_what_ollama_leaves_out_is_zero() -> None:
    async def go() -> None:
        async with connected() as (fake, engine):
            fake.script = fake_ollama.TERSE
            *_, finished = await generated(engine, Prompt("Hi"))

        assert finished == Finished(Usage(0, 4), "stop", "llama3.2:latest", inference_time_ms=0)
        assert set(fake.asked[0].body) == {"model", "messages", "stream"}

    asyncio.run(go())


@pytest.mark.parametrize(("told", "meant"), [("length", "length"), ("stop", "stop"), ("load", "stop")])
def test_only_length_is_a_finish_reason_besides_stop(told: str, meant: str) -> None:
    async def go() -> None:
        async with connected() as (fake, engine):
            fake.script = Script(done_reason=told)
            *_, finished = await generated(engine, Prompt("Hi"))
            assert isinstance(finished, Finished)
            assert finished.finish_reason == meant

    asyncio.run(go())


@pytest.mark.parametrize(
    ("installed", "configured", "asked"),
    [
        (("a:1", "llama3.2:latest"), "", "llama3.2:latest"),
        (("a:1", "llama3.2:1b"), "", "llama3.2:1b"),
        (("a:1", "b:1"), "", "a:1"),
        (("a:1", "b:1"), "b:1", "b:1"),
    ],
)
def test_the_default_is_the_configured_model_then_llama_then_the_first(
    installed: tuple[str, ...], configured: str, asked: str
) -> None:
    async def go() -> None:
        async with connected(configured, models=installed, loaded=()) as (fake, engine):
            await generated(engine, Prompt("Hi"))
            await generated(engine, Prompt("Hi"))
            assert [call.body["model"] for call in fake.asked] == [asked, asked]

    asyncio.run(go())


def test_a_model_that_is_not_installed_is_refused_with_the_command_to_pull_it() -> None:
    async def go() -> None:
        async with connected() as (_fake, engine):
            with pytest.raises(EngineRefusedError, match=r"'nope'.*`ollama pull nope`") as caught:
                await generated(engine, Prompt("Hi", model="nope"))
            assert caught.value.status == 404

    asyncio.run(go())


def test_a_failure_before_the_first_byte_is_refused_with_its_status() -> None:
    async def go() -> None:
        async with connected() as (fake, engine):
            fake.script = fake_ollama.REFUSES
            with pytest.raises(EngineRefusedError, match="exit status 2") as caught:
                await generated(engine, Prompt("Hi"))
            assert caught.value.status == 500

    asyncio.run(go())


def test_a_full_queue_is_refused_as_busy() -> None:
    async def go() -> None:
        async with connected(queue_max=0) as (fake, engine):
            fake.script = fake_ollama.HOLDS
            async with aclosing(engine.generate(Prompt("Hi"))) as events:
                await anext(events)
                with pytest.raises(EngineRefusedError, match="server busy") as caught:
                    await generated(engine, Prompt("Hi"))
                assert caught.value.status == 503
                assert caught.value.retry_after_s == 1.0
                async with engine.forward(chat_call(model="llama3.2")) as reply:
                    assert reply.status == 503
                    assert reply.retry_after_s == 1.0
            await fake.until_running(0)

    asyncio.run(go())


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (fake_ollama.REPORTS_ERROR, "unexpected EOF"),
        (fake_ollama.TRUNCATES, "ended before it was done"),
        (fake_ollama.DIES, "broke off"),
    ],
)
def test_an_answer_that_breaks_never_finishes(script: Script, message: str) -> None:
    async def go() -> None:
        async with connected() as (fake, engine):
            fake.script = script
            said: list[GenerationEvent] = []
            with pytest.raises(EngineBrokenError, match=message):
                await generated(engine, Prompt("Hi"), said)
            assert said == [Token("Hello"), Token(" from")]

    asyncio.run(go())


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([b"nonsense\n"], "nonsense"),
        ([b'{"message":{"content":"a"}}\n', b'{"mess'], "broke off or is no answer"),
        ([b"x" * (LINE_BYTES_MAX + 1)], "a line of more than"),
    ],
)
def test_what_is_no_line_of_ollamas_is_broken(pieces: list[bytes], message: str) -> None:
    async def go() -> None:
        async with (
            leaving_nothing(),
            raw_server(*sse_answer(*pieces)) as server,
            running(OllamaEngine(server.url, model="m")) as engine,
        ):
            with pytest.raises(EngineBrokenError, match=message):
                await generated(engine, Prompt("Hi"))

    asyncio.run(go())


def test_lines_may_come_in_any_pieces_and_the_last_without_its_end() -> None:
    async def go() -> None:
        pieces = [
            b'{"message":{"con',
            b'tent":"a"}}\n\n{"message":{"content":"b"}}',
            b'\n{"done":true,"done_reason":"length"}',
        ]
        async with (
            leaving_nothing(),
            raw_server(*sse_answer(*pieces)) as server,
            running(OllamaEngine(server.url, model="m")) as engine,
        ):
            assert await generated(engine, Prompt("Hi")) == [
                Token("a"),
                Token("b"),
                Finished(Usage(), "length", "m", 0),
            ]

    asyncio.run(go())


def test_closing_the_generator_aborts_ollamas_generation() -> None:
    async def go() -> None:
        async with connected() as (fake, engine):
            fake.script = fake_ollama.HOLDS
            async with aclosing(engine.generate(Prompt("Hi"))) as events:
                await anext(events)
                await fake.until_running(1)
            async with asyncio.timeout(5):
                await fake.until_running(0)

    asyncio.run(go())


def test_cancelling_while_ollama_hangs_before_its_head_aborts_it() -> None:
    async def go() -> None:
        async with connected() as (fake, engine), asyncio.timeout(5):
            fake.script = fake_ollama.HANGS
            async with asyncio.TaskGroup() as tasks:
                asking = tasks.create_task(generated(engine, Prompt("Hi", model="llama3.2")))
                await fake.until_running(1)
                asking.cancel()
            await fake.until_running(0)

    asyncio.run(go())


def test_a_dead_ollama_is_unavailable() -> None:
    async def go() -> None:
        async with connected("m") as (fake, engine):
            await fake.stop()
            with pytest.raises(EngineUnavailableError, match="NEUROGATE_ENGINE_URL or OLLAMA_URL"):
                await generated(engine, Prompt("Hi"))

    asyncio.run(go())


@pytest.mark.parametrize(
    ("version", "apis", "logprobs"),
    [
        ("0.0.0", {"/v1/embeddings", "/v1/responses", "/v1/messages"}, True),
        ("0.14.0-rc1", {"/v1/embeddings", "/v1/responses", "/v1/messages"}, True),
        ("0.13.3", {"/v1/embeddings", "/v1/responses"}, True),
        ("0.12.10", {"/v1/embeddings"}, False),
        ("unheard of", {"/v1/embeddings", "/v1/responses", "/v1/messages"}, True),
    ],
)
def test_what_ollama_can_do_depends_on_its_release(version: str, apis: set[str], logprobs: bool) -> None:
    """One that does not tell a release was built from source, and is taken for the newest."""

    async def go() -> None:
        async with connected(version=version) as (_fake, engine):
            observation = await engine.observe()
        assert observation.apis == apis
        assert ("logprobs" in observation.unsupported) is not logprobs
        assert "n" in observation.unsupported

    asyncio.run(go())


@pytest.mark.parametrize(
    ("size", "count"),
    [("3.2B", 3_200_000_000), ("134.52m", 134_520_000), ("22K", 22_000), ("", 0), ("big", 0), ("infB", 0)],
)
def test_numbers_of_parameters_are_read(size: str, count: int) -> None:
    assert parameters_of(size) == count


# --- the fake itself ------------------------------------------------------------------------------------------------


def test_the_official_client_understands_the_fake() -> None:
    async def go() -> None:
        async with leaving_nothing(), FakeOllama() as fake:
            client = ollama.AsyncClient(fake.url, timeout=5)
            try:
                assert [model.model for model in (await client.list()).models] == list(fake.models)
                assert (await client.ps()).models[0].context_length == 4096
                chunks = [chunk async for chunk in await client.generate("llama3.2", "Hi", stream=True)]
                assert "".join(chunk.response for chunk in chunks) == "Hello from Ollama."
                assert chunks[-1].done_reason == "stop"
                whole = await client.chat("llama3.2", [{"role": "user", "content": "Hi"}])
                assert whole.message.content == "Hello from Ollama."
                assert whole.eval_count == 4
                with pytest.raises(ollama.ResponseError, match="model 'x' not found"):
                    await client.chat("x")
                fake.script = fake_ollama.REPORTS_ERROR
                with pytest.raises(ollama.ResponseError, match="unexpected EOF"):
                    async for _ in await client.chat("llama3.2", [{"role": "user", "content": "Hi"}], stream=True):
                        pass
            finally:
                await client.close()  # type: ignore[no-untyped-call]

    asyncio.run(go())


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_the_fakes_whole_answers_fail_as_its_script_says(path: str) -> None:
    async def go() -> None:
        body = {"model": "llama3.2", "messages": [{"role": "user", "content": "Hi"}], "stream": False}
        async with leaving_nothing(), FakeOllama() as fake, httpx.AsyncClient(base_url=fake.url) as client:
            fake.script = fake_ollama.REPORTS_ERROR
            assert (await client.post(path, json=body)).status_code == 500
            fake.script = fake_ollama.DIES
            with pytest.raises(httpx.TransportError):
                await client.post(path, json=body)
            assert (await client.get("/")).text == "Ollama is running"
            assert len((await client.get("/v1/models")).json()["data"]) == 2

    asyncio.run(go())


def test_the_fake_holds_and_queues_until_released() -> None:
    async def go() -> None:
        async with connected() as (fake, engine), asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            fake.script = fake_ollama.HOLDS
            answers = [tasks.create_task(generated(engine, Prompt("Hi", model="llama3.2"))) for _ in range(2)]
            await fake.until_running(1)
            fake.release()
            assert [len(await answer) for answer in answers] == [5, 5]

    asyncio.run(go())

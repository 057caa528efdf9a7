"""Gateway and workers together, over real gRPC and real HTTP: what clients get is what engines said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import msgspec
import openai
import pytest

from fleet_in_process import AUTH, KEY, Fleet, fleet
from neurogate.engines.settings import SimSettings
from neurogate.inference import Finished, Prompt, Token
from neurogate.testing.engines import ScriptedEngine
from real_loop import eventually, run_real

CHAT = "/v1/chat/completions"
REQUESTS: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "Why is the sky blue?"}], "seed": 1},
    "/v1/completions": {"prompt": "The sky is", "seed": 1},
}
EVERY_PATH = pytest.mark.parametrize("path", list(REQUESTS))
DONE = b"data: [DONE]\n\n"


async def spoken(made: Fleet, prompt: Prompt) -> tuple[str, Finished]:
    """What the engine says to a prompt."""
    events = [event async for event in made.engines[0].generate(prompt)]
    last = events[-1]
    assert isinstance(last, Finished)
    return "".join(event.text for event in events if isinstance(event, Token)), last


def events_of(body: bytes) -> list[Any]:
    """The JSON of each event, without the end mark."""
    events = [event.removeprefix(b"data: ") for event in body.split(b"\n\n") if event]
    return [msgspec.json.decode(event) for event in events if event != b"[DONE]"]


# Answers


@EVERY_PATH
def test_a_whole_answer_is_the_engines_byte_for_byte(path: str) -> None:
    async def main() -> None:
        async with fleet() as made:
            answer = await made.client.post(path, json=REQUESTS[path])
            assert answer.status_code == 200
            assert [answer.content] == made.said
            assert answer.json()["usage"]["completion_tokens"] > 0
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["x-request-id"] == "req-42"
            assert answer.headers["x-neurogate-worker"] == "worker-0"
            assert answer.headers["x-neurogate-attempts"] == "1"

    run_real(main())


@EVERY_PATH
def test_a_streamed_answer_is_the_engines_byte_for_byte(path: str) -> None:
    async def main() -> None:
        async with fleet() as made:
            answer = await made.client.post(path, json={**REQUESTS[path], "stream": True})
            assert answer.status_code == 200
            assert [answer.content] == made.said
            assert answer.content.endswith(DONE)
            assert answer.headers["content-type"] == "text/event-stream"
            assert answer.headers["x-neurogate-worker"] == "worker-0"
            assert len(events_of(answer.content)) > 10

    run_real(main())


def test_the_engine_gets_the_clients_own_bytes() -> None:
    async def main() -> None:
        async with fleet() as made:
            body = b'{ "messages" : [ {"role":"user","content":"caf\\u00e9 \xc3\xa9"} ],\n "max_tokens":3, "x": 1e2 }'
            answer = await made.client.post(CHAT, content=body, headers={"X-Request-Id": "mine-1"})
            assert answer.headers["x-request-id"] == "mine-1"
            [call] = made.calls
            assert (call.path, call.body, call.request_id) == (CHAT, body, "mine-1")

    run_real(main())


def test_a_prompt_is_answered_whole() -> None:
    async def main() -> None:
        async with fleet() as made:
            asked = {"query": "Why?", "model": "tiny", "system_prompt": "Be brief.", "temperature": 0}
            answer = (await made.client.post("/prompt", json=asked)).json()
            text, finished = await spoken(made, Prompt("Why?", "tiny", "Be brief.", temperature=0.0))
            assert (answer["response"], answer["model"], answer["worker_id"]) == (text, "tiny", "worker-0")
            assert answer["tokens"] == finished.usage.total_tokens
            assert answer["finish_reason"] == finished.finish_reason
            assert answer["request_id"] == "req-42"
            assert answer["latency_ms"] >= 0

    run_real(main())


def test_a_prompt_is_answered_as_a_stream() -> None:
    async def main() -> None:
        async with fleet() as made:
            answer = await made.client.post("/prompt", json={"query": "Why?", "stream": True, "max_tokens": 7})
            *tokens, last = events_of(answer.content)
            text, finished = await spoken(made, Prompt("Why?", max_tokens=7))
            assert "".join(event["token"] for event in tokens) == text
            assert [event["tokens_generated"] for event in tokens] == list(range(1, 8))
            assert not any(event["done"] for event in tokens)
            assert (last["done"], last["completion_tokens"], last["finish_reason"]) == (True, 7, "length")
            assert last["prompt_tokens"] == finished.usage.prompt_tokens

    run_real(main())


def test_many_streams_at_once_over_several_workers() -> None:
    async def main() -> None:
        async with fleet(3) as made, asyncio.TaskGroup() as tasks:
            asked = [
                tasks.create_task(
                    made.client.post(
                        CHAT, json={"messages": [{"role": "user", "content": f"{number}"}], "stream": True}
                    )
                )
                for number in range(90)
            ]
            answers = [await task for task in asked]
            assert sorted(answer.content for answer in answers) == sorted(made.said)
            assert all(answer.content.endswith(DONE) for answer in answers)
            assert [len(engine.calls) for engine in made.engines] == [30, 30, 30]

    run_real(main())


def test_a_body_of_megabytes_goes_through() -> None:
    async def main() -> None:
        async with fleet() as made:
            text = "word " * 600_000
            answer = await made.client.post("/v1/completions", json={"prompt": text, "max_tokens": 2})
            assert answer.status_code == 200
            assert len(made.calls[0].body) > 3_000_000
            assert answer.json()["usage"]["prompt_tokens"] >= 600_000

    run_real(main())


# Clients


def test_a_client_that_leaves_frees_its_slot() -> None:
    async def main() -> None:
        sim = SimSettings(prefill_tps=0, decode_tps=200, slots=1)
        async with fleet(sim=sim) as made:
            endless = {**REQUESTS[CHAT], "stream": True, "ignore_eos": True, "max_tokens": 100_000}
            async with made.client.stream("POST", CHAT, json=endless) as answer:
                assert answer.status_code == 200
                await anext(answer.aiter_bytes())
                assert not await made.engines[0].is_idle()
            await made.settled()
            short = await made.client.post(CHAT, json={**REQUESTS[CHAT], "max_tokens": 2})
            assert short.status_code == 200

    run_real(main())


def test_the_official_client_is_served() -> None:
    async def main() -> None:
        async with fleet() as made, openai.AsyncOpenAI(base_url=f"{made.url}/v1", api_key=KEY) as client:
            question: Any = REQUESTS[CHAT]["messages"]
            whole = await client.chat.completions.create(model="tiny", messages=question)
            text = whole.choices[0].message.content
            assert whole.usage is not None
            assert whole.usage.completion_tokens > 0
            stream = await client.chat.completions.create(
                model="tiny", messages=question, stream=True, stream_options={"include_usage": True}
            )
            said, usage = "", None
            async for chunk in stream:
                said += "".join(choice.delta.content or "" for choice in chunk.choices)
                usage = chunk.usage or usage
            assert said == text
            assert usage == whole.usage
            completed = await client.completions.create(model="tiny", prompt="The sky is", max_tokens=5)
            pieces = await client.completions.create(model="tiny", prompt="The sky is", max_tokens=5, stream=True)
            assert "".join([piece.choices[0].text async for piece in pieces]) == completed.choices[0].text
            assert [model.id async for model in client.models.list()] == ["tiny"]

    run_real(main())


def test_the_official_client_understands_our_errors() -> None:
    async def main() -> None:
        async with fleet() as made:
            question: Any = REQUESTS[CHAT]["messages"]
            async with openai.AsyncOpenAI(base_url=f"{made.url}/v1", api_key="wrong", max_retries=0) as stranger:
                with pytest.raises(openai.AuthenticationError) as refused:
                    await stranger.chat.completions.create(model="tiny", messages=question)
                assert refused.value.code == "invalid_api_key"
            async with openai.AsyncOpenAI(base_url=f"{made.url}/v1", api_key=KEY, max_retries=0) as client:
                with pytest.raises(openai.NotFoundError) as missing:
                    await client.chat.completions.create(model="other", messages=question)
                assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
                with pytest.raises(openai.BadRequestError) as bad:
                    await client.chat.completions.create(model="tiny", messages=question, temperature=3)
                assert bad.value.param == "temperature"

    run_real(main())


def test_the_official_client_sees_a_broken_stream_as_an_error() -> None:
    async def main() -> None:
        sim = SimSettings(prefill_tps=0, decode_tps=0, faults="cut_after=3")
        async with fleet(sim=sim) as made, openai.AsyncOpenAI(base_url=f"{made.url}/v1", api_key=KEY) as client:
            question: Any = REQUESTS[CHAT]["messages"]
            stream = await client.chat.completions.create(model="tiny", messages=question, stream=True)
            with pytest.raises(openai.APIError, match="broke off"):
                async for _ in stream:
                    pass

    run_real(main())


# Refusals


@EVERY_PATH
def test_an_unknown_model_is_told_which_there_are(path: str) -> None:
    async def main() -> None:
        async with fleet(2, models=("big", "tiny")) as made:
            answer = await made.client.post(path, json={**REQUESTS[path], "model": "other"})
            assert answer.status_code == 404
            error = answer.json()["error"]
            assert (error["code"], error["param"]) == ("model_not_found", "model")
            assert "'other'" in error["message"]
            assert "big, tiny" in error["message"]
            assert made.calls == []

    run_real(main())


def test_a_model_is_asked_of_who_has_it() -> None:
    async def main() -> None:
        async with fleet(2, models=("big", "tiny")) as made:
            for _ in range(4):
                answer = await made.client.post(CHAT, json={**REQUESTS[CHAT], "model": "tiny"})
                assert answer.headers["x-neurogate-worker"] == "worker-1"
                assert answer.json()["model"] == "tiny"

    run_real(main())


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"X-Api-Key": "wrong"}])
def test_nobody_is_let_in_without_the_key(headers: dict[str, str]) -> None:
    async def main() -> None:
        async with fleet() as made, httpx.AsyncClient(base_url=made.url) as stranger:
            for path, body in [*REQUESTS.items(), ("/prompt", {"query": "Why?"})]:
                answer = await stranger.post(path, json=body, headers=headers)
                assert answer.status_code == 401
                assert "x-request-id" in answer.headers
            assert (await stranger.get("/v1/models", headers=headers)).status_code == 401
            assert (await stranger.post("/prompt", json={"query": "Why?"}, headers=AUTH)).status_code == 200
            assert made.calls == []

    run_real(main())


def test_a_body_over_the_limit_is_refused() -> None:
    """Announced or not; the connection is closed, for the rest of the body is not read."""

    async def main() -> None:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(40):
                yield b"x" * 1000

        async with fleet(max_body_bytes=20_000) as made:
            for content in (b"x" * 20_001, chunks()):
                answer = await made.client.post(CHAT, content=content)
                assert answer.status_code == 413
                assert answer.json()["error"]["code"] == "request_too_large"
                assert answer.headers["connection"] == "close"
            assert made.calls == []

    run_real(main())


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("POST", "/v1/nothing", 404, "not_found"),
        ("GET", CHAT, 405, "method_not_allowed"),
        ("DELETE", "/prompt", 405, "method_not_allowed"),
    ],
)
def test_routes_that_do_not_exist(method: str, path: str, status: int, code: str) -> None:
    async def main() -> None:
        async with fleet() as made:
            answer = await made.client.request(method, path)
            assert answer.status_code == status
            said = answer.json()
            assert (said["error"] if path.startswith("/v1") else said)["code"] == code

    run_real(main())


def test_an_engine_that_fails_everywhere_is_a_502_after_every_worker_was_asked() -> None:
    async def main() -> None:
        sim = SimSettings(prefill_tps=0, decode_tps=0, faults="error=1")
        async with fleet(3, sim=sim) as made:
            answer = await made.client.post(CHAT, json=REQUESTS[CHAT])
            assert answer.status_code == 502
            assert answer.headers["x-neurogate-attempts"] == "3"
            assert sorted(len(engine.calls) for engine in made.engines) == [1, 1, 1]

    run_real(main())


# Looking in


def test_the_fleet_can_be_looked_at() -> None:
    async def main() -> None:
        async with fleet(2) as made:
            await made.client.post("/prompt", json={"query": "Why?"})
            health = await made.client.get("/health")
            assert (health.status_code, health.json()["status"]) == (200, "healthy")
            workers = (await made.client.get("/workers")).json()
            assert workers["count"] == 2
            assert all(worker["ready"] and worker["engine"]["kind"] == "sim" for worker in workers["workers"])
            assert {worker["in_flight"] for worker in workers["workers"]} == {0}
            assert {worker["name"].partition(":")[0] for worker in workers["workers"]} != {""}
            models = (await made.client.get("/v1/models")).json()["data"]
            assert [model["id"] for model in models] == ["tiny"]

    run_real(main())


def test_what_an_engine_said_when_it_died_is_for_operators_only() -> None:
    """It may name paths and models; clients are told that the engine died, and no more."""

    async def main() -> None:
        engine = ScriptedEngine()
        async with fleet(1, engines_of=[engine], failfast_s=0) as made:
            engine.observation = replace(
                engine.observation,
                ready=False,
                loading=True,
                detail="the engine is restarted in 0.5 s because it was killed by SIGABRT",
                last_words="ggml.c:1: GGML_ASSERT failed in /models/secret.gguf",
            )
            await eventually(lambda: not made.gateway.pool.snapshot.admitting(""))
            refused = await made.client.post(CHAT, json=REQUESTS[CHAT])
            assert refused.status_code == 503
            assert "because it was killed by SIGABRT" in refused.text
            assert "secret" not in refused.text
            assert "GGML" not in refused.text
            [worker] = (await made.client.get("/workers")).json()["workers"]
            assert worker["last_words"] == engine.observation.last_words
            [member] = made.gateway.pool.snapshot.members
            assert member.report.loading

    run_real(main())


def test_a_worker_that_stops_as_announced_is_no_failure() -> None:
    async def main() -> None:
        async with fleet(2) as made:
            await made.engines[0].stop()
            await eventually(lambda: len(made.gateway.pool.snapshot.admitting("")) == 1)
            for _ in range(4):
                answer = await made.client.post(CHAT, json=REQUESTS[CHAT])
                assert answer.headers["x-neurogate-worker"] == "worker-1"
            assert (await made.client.get("/health")).json()["status"] == "degraded"

    run_real(main())

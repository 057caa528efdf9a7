"""The engine for llama.cpp's own server: what it observes, and answers that stop when nobody wants them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engine_support import (
    CHAT_PATH,
    RawServer,
    chat_call,
    http_answer,
    leaving_nothing,
    raw_server,
    read,
    running,
    sse_answer,
)
from neurogate.engines.engine import (
    EngineBrokenError,
    EngineCall,
    EngineRefusedError,
    EngineUnsupportedError,
    ModelInfo,
    Observation,
)
from neurogate.engines.llama_server import LlamaServerEngine

PROPS = {"total_slots": 3, "build_info": "b9999-abc", "default_generation_settings": {"n_ctx": 2048}}
MODELS = {"data": [{"id": "tiny", "meta": {"n_ctx_train": 8192, "n_ctx": 6144}}]}
METRICS = (
    b"# TYPE x gauge\nllamacpp:requests_processing 2\nllamacpp:requests_deferred 5\nllamacpp:n_decode_total 9e+06\n"
    b"llamacpp:prompt_tokens_total 2000\nllamacpp:prompt_seconds_total 12.5\n"
)
SLOTS = [{"id": 0, "is_processing": True}, {"id": 1, "is_processing": False}, "odd"]

NOT_SUPPORTED = http_answer(b'{"error":{"message":"disabled","type":"not_supported_error"}}', status="501 No")
LOADING = http_answer(b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}', status="503 No")


def told(value: object) -> bytes:
    return http_answer(json.dumps(value).encode())


REFUSED = http_answer(b'{"error":{"message":"it is required","type":"invalid_request_error"}}', status="400 Bad")
UNKNOWN = http_answer(b'{"error":{"message":"File Not Found","type":"not_found_error","code":404}}', status="404 No")
APIS = {
    "/v1/embeddings": REFUSED,
    "/v1/rerank": NOT_SUPPORTED,
    "/v1/responses": REFUSED,
    "/v1/messages/count_tokens": REFUSED,
    "/infill": NOT_SUPPORTED,
    "/apply-template": REFUSED,
}
"""What a server of today answers to an empty request, when it was started for chat and embeddings."""
PROBED = [*APIS, "/apply-template"]

HEALTHY = {
    **APIS,
    "/health": told({"status": "ok"}),
    "/props": told(PROPS),
    "/v1/models": told(MODELS),
    "/metrics": http_answer(METRICS, kind="text/plain"),
    "/slots": told(SLOTS),
}


@asynccontextmanager
async def connected(
    paths: dict[str, bytes] | None = None,
    *,
    answer: Callable[[asyncio.StreamWriter], Awaitable[None]] | None = None,
    **fields: Any,
) -> AsyncIterator[tuple[RawServer, LlamaServerEngine]]:
    """A server with these answers by path; a path without one hangs."""

    async def by_path(writer: asyncio.StreamWriter) -> None:
        path = server.requests[-1][0].split()[1]
        if path not in (paths or {}):
            await asyncio.Event().wait()
        writer.write((paths or {})[path])

    async with (
        leaving_nothing(),
        raw_server(answer=answer or by_path) as server,
        running(LlamaServerEngine(server.url, **fields)) as engine,
    ):
        yield server, engine
        await engine.stop()


async def observed(**changes: bytes | None) -> Observation:
    paths = {**HEALTHY, **{f"/{name}": answer for name, answer in changes.items()}}
    async with connected({path: answer for path, answer in paths.items() if answer is not None}) as (_server, engine):
        return await engine.observe()


def test_a_healthy_server_tells_slots_load_version_and_context() -> None:
    observation = asyncio.run(observed())

    assert observation == Observation(
        ready=True,
        version="b9999-abc",
        models=(ModelInfo("tiny", context_length=2048),),
        slots_total=3,
        slots_busy=2,
        queued=5,
        work_done=9_000_000,
        step_tokens=2048,
        prompt_tokens_per_s=160.0,
        apis=frozenset(
            {
                "/v1/embeddings", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens", "/completion",
                "/tokenize", "/detokenize", "/apply-template",
            }
        ),
        resumes=frozenset({"/v1/chat/completions", "/v1/completions"}),
        unsupported=frozenset({"best_of", "echo", "suffix", "tools"}),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "has", "has_not"),
    [
        ({"v1/rerank": REFUSED}, {"/v1/rerank"}, {"/v1/embeddings"}),
        ({"v1/rerank": REFUSED, "v1/embeddings": told({"data": [{"embedding": [0.5]}]})},
         {"/v1/rerank"}, {"/v1/embeddings"}),
        ({"v1/rerank": REFUSED, "v1/embeddings": told({"data": [{"embedding": [0.5, 0.1]}]})},
         {"/v1/rerank", "/v1/embeddings"}, set()),
        ({"infill": REFUSED}, {"/infill"}, set()),
        ({"v1/embeddings": NOT_SUPPORTED}, set(), {"/v1/embeddings"}),
        ({"v1/embeddings": http_answer(b'{"error":{"message":"Pooling type \'none\' is not OAI"}}', status="400 No")},
         set(), {"/v1/embeddings"}),
        ({"v1/responses": UNKNOWN, "v1/messages/count_tokens": UNKNOWN, "apply-template": UNKNOWN},
         {"/completion"}, {"/v1/responses", "/v1/messages", "/v1/messages/count_tokens", "/apply-template"}),
    ],
)  # fmt: skip
def test_the_apis_are_those_that_refuse_an_empty_request(
    changes: dict[str, bytes], has: set[str], has_not: set[str]
) -> None:
    apis = asyncio.run(observed(**changes)).apis

    assert has <= apis
    assert not has_not & apis


def test_tools_are_taken_when_the_template_tells_of_them() -> None:
    tool = http_answer(b'{"prompt":"You may call neurogate_probe."}')

    assert "tools" not in asyncio.run(observed(**{"apply-template": tool})).unsupported


def test_only_the_apis_that_were_found_are_forwarded() -> None:
    async def go() -> None:
        async with connected({**HEALTHY, "/tokenize": told({"tokens": []})}) as (_server, engine):
            for path in ("/tokenize", "/infill"):
                with pytest.raises(EngineUnsupportedError):
                    async with engine.forward(EngineCall(path, b"{}")):
                        pass
                if path == "/tokenize":
                    await engine.observe()
                    async with engine.forward(EngineCall(path, b"{}")) as reply:
                        assert await read(reply.body) == b'{"tokens": []}'

    asyncio.run(go())


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_no_tokens_at_all_is_refused_since_there_would_be_one(field: str) -> None:
    async def go() -> None:
        async with connected() as (server, engine):
            for call in (chat_call(**{field: 0}), chat_call(stream=True, **{field: 0.0})):
                with pytest.raises(EngineRefusedError, match=f"{field}: must be at least 1") as caught:
                    async with engine.forward(call):
                        pass
                assert caught.value.status == 400
            assert not server.requests

    asyncio.run(go())


@pytest.mark.parametrize(
    "call", [chat_call('say "max_tokens": 0', stream=True), chat_call(max_tokens=0.5, stream=True)]
)
def test_what_only_looks_like_no_tokens_passes(call: EngineCall) -> None:
    async def go() -> None:
        async with connected({CHAT_PATH: b"".join(sse_answer(SAID, DONE))}) as (server, engine):
            async with engine.forward(call) as reply:
                assert await read(reply.body) == SAID + DONE
            assert server.requests[0][2] == call.body

    asyncio.run(go())


def test_without_metrics_the_slots_tell_who_is_busy() -> None:
    observation = asyncio.run(observed(metrics=NOT_SUPPORTED))

    assert (observation.slots_busy, observation.queued) == (1, None)


@pytest.mark.parametrize("slots", [NOT_SUPPORTED, told({"odd": 1})])
def test_with_both_switched_off_the_load_is_unknown_and_the_server_ready(slots: bytes) -> None:
    observation = asyncio.run(observed(metrics=NOT_SUPPORTED, slots=slots))

    assert (observation.ready, observation.slots_busy, observation.queued) == (True, None, None)


@pytest.mark.parametrize("gauge", [b"1e999", b"1e", b"+.+"])
def test_a_gauge_that_is_no_number_leaves_the_load_unknown(gauge: bytes) -> None:
    metrics = http_answer(b"llamacpp:requests_processing " + gauge + b"\nllamacpp:requests_deferred 2\n")
    observation = asyncio.run(observed(metrics=metrics))

    assert (observation.ready, observation.slots_busy, observation.queued) == (True, None, 2)


@pytest.mark.parametrize("body", [b'{"data":[{"id":"\xff"}]}', b"[" * 100_000])
def test_a_list_of_models_that_cannot_be_read_is_none(body: bytes) -> None:
    observation = asyncio.run(observed(**{"v1/models": http_answer(body)}))

    assert (observation.ready, [model.name for model in observation.models]) == (True, [""])


def test_a_long_decode_step_leaves_the_load_unknown_and_the_server_ready() -> None:
    observation = asyncio.run(observed(metrics=None))

    assert (observation.ready, observation.slots_busy, observation.queued) == (True, None, None)


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"health": LOADING}, "Loading model"),
        ({"health": http_answer(b"", status="500 Oops")}, "HTTP 500"),
        ({"health": None}, "no answer in time"),
        ({"props": http_answer(b'{"error":"Invalid API Key"}', status="401 No")}, "check NEUROGATE_ENGINE_API_KEY"),
        ({"props": told({"total_slots": "many"})}, "is it a llama-server?"),
        ({"props": http_answer(b'{"build_info":"\xff"}')}, "is it a llama-server?"),
        ({"props": LOADING}, "Loading model"),
    ],
)
def test_a_server_that_cannot_serve_is_not_ready_and_says_why(changes: dict[str, bytes | None], detail: str) -> None:
    observation = asyncio.run(observed(**changes))

    assert not observation.ready
    assert detail in observation.detail


def test_a_server_without_props_or_models_counts_on_the_settings() -> None:
    async def go() -> None:
        gone = http_answer(b"{}", status="404 Not Found")
        async with connected({**HEALTHY, "/props": gone, "/v1/models": gone}, model="mine", slots=7) as (_, engine):
            observation = await engine.observe()
            assert (observation.models, observation.slots_total) == ((ModelInfo("mine"),), 7)

    asyncio.run(go())


def test_what_cannot_change_is_asked_once_per_life_of_the_server() -> None:
    async def go() -> None:
        paths = dict(HEALTHY)
        async with connected(paths) as (server, engine):
            await engine.observe()
            await engine.observe()
            first = [line.split()[1] for line, _, _ in server.requests]
            paths["/health"] = LOADING
            assert not (await engine.observe()).ready
            paths.update(HEALTHY, **{"/props": told({**PROPS, "total_slots": 9})})
            assert (await engine.observe()).slots_total == 9

        assert first == ["/health", "/props", "/v1/models", *PROBED, "/metrics", "/health", "/metrics"]

    asyncio.run(go())


# --- whole answers --------------------------------------------------------------------------------------------------


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


SAID = event(choices=[{"index": 0, "delta": {"content": "Hi"}}], object="chat.completion.chunk")
DONE = b"data: [DONE]\n\n"


def test_a_whole_answer_is_asked_as_a_stream_and_given_whole() -> None:
    async def go() -> None:
        async with connected({CHAT_PATH: b"".join(sse_answer(SAID, DONE))}) as (server, engine):
            async with engine.forward(chat_call()) as reply:
                assert (reply.status, reply.content_type) == (200, "application/json")
                answer = json.loads(await read(reply.body))
            assert json.loads(server.requests[0][2])["stream"] is True
            assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Hi"}

    asyncio.run(go())


@pytest.mark.parametrize("call", [chat_call(stream=True), chat_call(tools=[{}]), EngineCall(CHAT_PATH, b"{oops")])
def test_other_requests_go_out_and_come_back_unchanged(call: EngineCall) -> None:
    async def go() -> None:
        answer = b"".join(sse_answer(SAID, DONE))
        async with connected({CHAT_PATH: answer}) as (server, engine):
            async with engine.forward(call) as reply:
                assert await read(reply.body) == SAID + DONE
            assert server.requests[0][2] == call.body

    asyncio.run(go())


def test_a_refusal_of_a_whole_answer_passes_unchanged() -> None:
    async def go() -> None:
        refusal = http_answer(b'{"error":{"message":"too long"}}', status="400 Bad Request")
        async with connected({CHAT_PATH: refusal}) as (_, engine), engine.forward(chat_call()) as reply:
            assert (reply.status, await read(reply.body)) == (400, b'{"error":{"message":"too long"}}')

    asyncio.run(go())


def test_a_whole_answer_that_is_cut_is_broken_before_any_byte() -> None:
    async def go() -> None:
        answer = b"".join(sse_answer(SAID))
        async with connected({CHAT_PATH: answer}) as (_, engine), engine.forward(chat_call()) as reply:
            with pytest.raises(EngineBrokenError):
                await anext(reply.body)

    asyncio.run(go())


def test_every_request_has_a_connection_of_its_own() -> None:
    """llama.cpp closes a connection after a stream without saying so, and a request sent into that is lost."""

    async def go() -> None:
        async with connected({CHAT_PATH: b"".join(sse_answer(SAID, DONE))}) as (server, engine):
            for _ in range(3):
                async with engine.forward(chat_call(stream=True)) as reply:
                    await read(reply.body)
            assert [headers["connection"] for _, headers, _ in server.requests] == ["close"] * 3

    asyncio.run(go())


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("Failed to parse messages: Missing 'role' in message", 400),
        ("image input is not supported - hint: you may need to provide the mmproj", 400),
        ("input (601 tokens) is too large to process. increase the physical batch size", 400),
        ("'messages' is required", 400),
        ("Compute error.", 500),
    ],
)
def test_a_500_that_blames_the_request_is_a_400(message: str, status: int) -> None:
    """Three bad requests of a client must not open the breaker of a good worker."""

    async def go() -> None:
        body = json.dumps({"error": {"code": 500, "message": message, "type": "server_error"}}).encode()
        paths = {CHAT_PATH: http_answer(body, status="500 Internal Server Error")}
        async with connected(paths) as (_server, engine), engine.forward(chat_call(stream=True)) as reply:
            told = b"".join([piece async for piece in reply.body])
            assert reply.status == status
            assert json.loads(told)["error"]["message"] == message
            assert json.loads(told)["error"]["code"] == status

    asyncio.run(go())

"""What the bundled llama.cpp can do with the default model, asked of the real thing."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine_support import LogList, leaving_nothing, read, running, until_ready
from neurogate.engines.engine import EngineCall, EngineFatalError, EngineRefusedError, EngineUnsupportedError
from neurogate.engines.llamacpp.engine import ManagedLlamaCppEngine
from neurogate.engines.settings import EngineSettings

CHAT = [{"role": "user", "content": "Say hello."}]
GREEDY = {"temperature": 0, "max_tokens": 4}
COLOUR = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@asynccontextmanager
async def ready(path: Path, **fields: Any) -> AsyncIterator[ManagedLlamaCppEngine]:
    settings = EngineSettings(**{"slots": 2, "context_length": 1024, "threads": 1, **fields})
    engine = ManagedLlamaCppEngine(settings, path, "smollm2", log=LogList())
    async with asyncio.timeout(60), leaving_nothing(), running(engine):
        await until_ready(engine)
        yield engine


async def asked(engine: ManagedLlamaCppEngine, path: str, **body: Any) -> tuple[int, Any]:
    """The answer to one request, as JSON or, when it is streamed, as text."""
    async with engine.forward(EngineCall(path, json.dumps(body).encode())) as reply:
        content = await read(reply.body)
        return reply.status, content.decode() if reply.content_type == "text/event-stream" else json.loads(content)


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


@pytest.mark.model
def test_the_default_model_does_what_the_engine_says(smollm2_path: Path) -> None:
    """Chat and embeddings at once, and the rest of llama.cpp's APIs; what it cannot do it does not claim."""

    async def go() -> None:
        async with ready(smollm2_path) as engine:
            seen = await engine.observe()
            assert seen.apis == {
                "/v1/embeddings", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens", "/completion",
                "/tokenize", "/detokenize", "/apply-template",
            }  # fmt: skip
            assert seen.unsupported == {"best_of", "echo", "suffix", "tools"}
            await check_embeddings(engine)
            await check_answers(engine)
            await check_tokens(engine)
            await check_features(engine)
            await check_refusals(engine)
            assert (await engine.observe()).restarts == 0

    asyncio.run(go())


async def check_embeddings(engine: ManagedLlamaCppEngine) -> None:
    texts = ["The cat sat on the mat.", "A kitten rests on a rug.", "Stock markets fell sharply today."]
    status, answer = await asked(engine, "/v1/embeddings", input=texts)
    cat, kitten, stocks = [item["embedding"] for item in answer["data"]]
    assert status == 200
    assert answer["usage"]["prompt_tokens"] > 0
    assert math.hypot(*cat) == pytest.approx(1, abs=1e-3)
    assert cosine(cat, kitten) > cosine(cat, stocks)
    status, answer = await asked(engine, "/v1/embeddings", input="Hello", encoding_format="base64")
    assert (status, type(answer["data"][0]["embedding"])) == (200, str)


async def check_answers(engine: ManagedLlamaCppEngine) -> None:
    status, answer = await asked(engine, "/v1/responses", input="Say hello.", temperature=0, max_output_tokens=4)
    assert (status, answer["output"][0]["content"][0]["type"]) == (200, "output_text")
    status, stream = await asked(engine, "/v1/responses", input="Hi", max_output_tokens=2, stream=True)
    assert "event: response.completed\n" in stream
    status, answer = await asked(engine, "/v1/messages", messages=CHAT, **GREEDY)
    assert (status, answer["type"], answer["stop_reason"]) == (200, "message", "max_tokens")
    status, stream = await asked(engine, "/v1/messages", messages=CHAT, stream=True, **GREEDY)
    assert stream.rstrip().endswith('{"type":"message_stop"}')
    status, stream = await asked(engine, "/completion", prompt="Hello", n_predict=2, stream=True)
    assert '"stop":true' in stream


async def check_tokens(engine: ManagedLlamaCppEngine) -> None:
    status, answer = await asked(engine, "/tokenize", content="Hello world")
    assert status == 200
    status, answer = await asked(engine, "/detokenize", tokens=answer["tokens"])
    assert (status, answer) == (200, {"content": "Hello world"})
    status, answer = await asked(engine, "/v1/messages/count_tokens", messages=CHAT)
    assert (status, answer["input_tokens"] > 0) == (200, True)
    status, answer = await asked(engine, "/apply-template", messages=CHAT)
    assert "Say hello." in answer["prompt"]


async def check_features(engine: ManagedLlamaCppEngine) -> None:
    path = "/v1/chat/completions"
    _, answer = await asked(engine, path, messages=CHAT, n=2, **GREEDY)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    _, answer = await asked(engine, path, messages=CHAT, logprobs=True, top_logprobs=2, **GREEDY)
    assert len(answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) == 2
    schema = {"type": "json_schema", "json_schema": {"name": "c", "schema": COLOUR}}
    _, answer = await asked(engine, path, messages=CHAT, response_format=schema, max_tokens=40)
    assert json.loads(answer["choices"][0]["message"]["content"])["colour"] in {"red", "blue"}
    _, answer = await asked(engine, path, messages=CHAT, grammar='root ::= "yes" | "no"', max_tokens=8)
    assert answer["choices"][0]["message"]["content"] in {"yes", "no"}


async def check_refusals(engine: ManagedLlamaCppEngine) -> None:
    for path in ("/v1/rerank", "/infill"):
        with pytest.raises(EngineUnsupportedError):
            await asked(engine, path)
    with pytest.raises(EngineRefusedError):
        await asked(engine, "/v1/chat/completions", messages=CHAT, max_tokens=0)
    for path, body in (
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [PICTURE]}]}),
        ("/v1/embeddings", {"input": "hello " * 600}),
        ("/v1/messages", {}),
        ("/v1/responses", {}),
        ("/detokenize", {"tokens": [1 << 30]}),
    ):
        status, answer = await asked(engine, path, **body)
        assert (status, bool(answer["error"]["message"])) == (400, True), path


@pytest.mark.model
def test_a_reranker_ranks_and_does_not_embed(smollm2_path: Path) -> None:
    async def go() -> None:
        async with ready(smollm2_path, pooling="rank") as engine:
            apis = (await engine.observe()).apis
            assert "/v1/rerank" in apis
            assert "/v1/embeddings" not in apis
            status, answer = await asked(engine, "/v1/rerank", query="cats", documents=["a cat", "a stone"])
            assert (status, len(answer["results"])) == (200, 2)

    asyncio.run(go())


@pytest.mark.model
def test_embeddings_can_be_switched_off(smollm2_path: Path) -> None:
    async def go() -> None:
        async with ready(smollm2_path, pooling="none") as engine:
            assert "/v1/embeddings" not in (await engine.observe()).apis

    asyncio.run(go())


@pytest.mark.model
def test_a_longer_text_is_embedded_when_more_is_computed_at_once(smollm2_path: Path) -> None:
    async def go() -> None:
        async with ready(smollm2_path, ubatch=1024) as engine:
            status, _ = await asked(engine, "/v1/embeddings", input="hello " * 600)
            assert status == 200

    asyncio.run(go())


@pytest.mark.model
@pytest.mark.parametrize(
    ("field", "name"),
    [("mmproj", "NEUROGATE_ENGINE_MMPROJ"), ("chat_template", "NEUROGATE_ENGINE_CHAT_TEMPLATE")],
)
def test_a_file_that_is_not_there_is_named_before_a_child_is_started(field: str, name: str, smollm2_path: Path) -> None:
    settings = EngineSettings(**{field: "/nowhere/file"})
    engine = ManagedLlamaCppEngine(settings, smollm2_path, "smollm2", log=LogList())
    with pytest.raises(EngineFatalError, match=f"{name}: there is no file /nowhere/file"):
        asyncio.run(engine.start())

"""`/api/embed` and the older `/api/embeddings`, on an engine that has `/v1/embeddings`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

import msgspec

from neurogate.channel import End
from neurogate.engines.engine import Engine, EngineBrokenError, EngineCall
from neurogate.engines.http import refusal
from neurogate.inference import Usage
from neurogate.prompt_api import UNDECODABLE
from neurogate.rpc.backend import IncomingCall, Outlet
from neurogate.worker.ollama_api.requests import EMBED, EMBEDDINGS, read
from neurogate.worker.ollama_api.wording import nanoseconds
from neurogate.worker.relaying import read_whole

EMBEDDINGS_PATH = "/v1/embeddings"

_encode = msgspec.json.encode


class _Embedding(msgspec.Struct):
    embedding: list[float]
    index: int = 0


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0


class _Answer(msgspec.Struct):
    data: list[_Embedding]
    usage: _Usage | None = None


class _Embedded(msgspec.Struct):
    """What came of it."""

    vectors: list[list[float]]
    usage: Usage | None = None


_ANSWERS = msgspec.json.Decoder(_Answer, strict=False)


async def embed(
    engine: Engine, call: IncomingCall, outlet: Outlet, *, known_as: Callable[[str], str], max_answer_bytes: int
) -> End:
    """Answer `/api/embed`; `known_as` gives the engine's name of a model. Raises EngineError as the engine does."""
    request = read(EMBED, call.body)
    began_at = asyncio.get_running_loop().time()
    texts = [request.input] if isinstance(request.input, str) and request.input else request.input or []
    embedded = await _ask(engine, call, texts, known_as(request.model), max_answer_bytes)
    if request.dimensions:
        embedded.vectors = [_shortened(vector, request.dimensions) for vector in embedded.vectors]
    answer: dict[str, object] = {
        "model": request.model,
        "embeddings": embedded.vectors,
        "total_duration": nanoseconds(asyncio.get_running_loop().time() - began_at),
        "load_duration": 0,
    }
    if embedded.usage is not None:
        answer["prompt_eval_count"] = embedded.usage.prompt_tokens
    outlet.chunk(_encode(answer))
    return End(http_status=200, usage=embedded.usage)


async def embed_formerly(
    engine: Engine, call: IncomingCall, outlet: Outlet, *, known_as: Callable[[str], str], max_answer_bytes: int
) -> End:
    """Answer `/api/embeddings`, which takes one text and tells nothing but the vector."""
    request = read(EMBEDDINGS, call.body)
    texts = [request.prompt] if request.prompt else []
    embedded = await _ask(engine, call, texts, known_as(request.model), max_answer_bytes)
    outlet.chunk(_encode({"embedding": embedded.vectors[0] if embedded.vectors else []}))
    return End(http_status=200, usage=embedded.usage)


async def _ask(
    engine: Engine, call: IncomingCall, texts: Sequence[str], model: str, max_answer_bytes: int
) -> _Embedded:
    if not texts:
        return _Embedded([])
    body = _encode({"model": model, "input": texts, "encoding_format": "float"})
    async with engine.forward(EngineCall(EMBEDDINGS_PATH, body, call.request_id, max_answer_bytes)) as reply:
        if not 200 <= reply.status < 300:
            raise await refusal(reply)
        answered = await read_whole(reply.body, max_answer_bytes)
    try:
        answer = _ANSWERS.decode(answered)
    except UNDECODABLE as error:
        raise EngineBrokenError("the engine's answer is no list of embeddings") from error
    if len(answer.data) != len(texts):
        raise EngineBrokenError(f"the engine gave {len(answer.data)} embeddings for {len(texts)} texts")
    vectors = [entry.embedding for entry in sorted(answer.data, key=lambda entry: entry.index)]
    usage = Usage(prompt_tokens=answer.usage.prompt_tokens) if answer.usage is not None else None
    return _Embedded(vectors, usage)


def _shortened(vector: list[float], dimensions: int) -> list[float]:
    """The first dimensions at length 1 again, as Ollama does it."""
    if dimensions >= len(vector):
        return vector
    kept = vector[:dimensions]
    length = math.hypot(*kept)
    return [value / length for value in kept] if length else kept

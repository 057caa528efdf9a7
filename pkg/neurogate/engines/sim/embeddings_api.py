"""OpenAI's embeddings and the usual rerank API, as the simulated engine answers them.

Both take an engine's time for their prompts and say nothing, so they are answers of no tokens: queue, speed and faults
are those of every other request.
"""

from __future__ import annotations

import base64
import struct
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any, Literal

import msgspec

from neurogate.engines.engine import EngineReply
from neurogate.engines.sim import tokenizer
from neurogate.engines.sim.core import SimCore, SimRefusedError, Summary
from neurogate.engines.sim.openai_api import require_model
from neurogate.engines.sim.openai_forms import refusal
from neurogate.engines.sim.reply import Computed, read_json, reply
from neurogate.engines.sim.vectors import DIMENSIONS, DIMENSIONS_MAX, embedding, relevance

INPUTS_MAX = 2048

Inputs = str | list[str | int | list[int]]


class EmbeddingsRequest(msgspec.Struct, kw_only=True):
    """The body of /v1/embeddings."""

    input: Inputs
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=DIMENSIONS_MAX)] | None = None


class _Document(msgspec.Struct):
    text: str


class RerankRequest(msgspec.Struct, kw_only=True):
    """The body of /v1/rerank."""

    query: str
    documents: Annotated[list[str | _Document], msgspec.Meta(min_length=1, max_length=INPUTS_MAX)]
    model: str | None = None
    top_n: Annotated[int, msgspec.Meta(ge=1)] | None = None
    return_documents: bool | None = None


_EMBEDDINGS = msgspec.json.Decoder(EmbeddingsRequest)
_RERANK = msgspec.json.Decoder(RerankRequest)


def embeddings(core: SimCore, body: bytes) -> AbstractAsyncContextManager[EngineReply]:
    """Answer /v1/embeddings."""

    def opened() -> Computed:
        request = read_json(_EMBEDDINGS, body)
        require_model(core, request.model)
        texts = texts_of(request.input)

        def told(summary: Summary) -> object:
            vectors = [embedding(text, request.dimensions or DIMENSIONS) for text in texts]
            data = [
                {"object": "embedding", "index": index, "embedding": _encoded(vector, request.encoding_format)}
                for index, vector in enumerate(vectors)
            ]
            return {"object": "list", "data": data, "model": core.model, "usage": _usage(summary)}

        return Computed(texts, told)

    return reply(core, opened, refusal)


def rerank(core: SimCore, body: bytes) -> AbstractAsyncContextManager[EngineReply]:
    """Answer /v1/rerank."""

    def opened() -> Computed:
        request = read_json(_RERANK, body)
        require_model(core, request.model)
        documents = [document if isinstance(document, str) else document.text for document in request.documents]

        def told(summary: Summary) -> object:
            scores = [relevance(request.query, document) for document in documents]
            best = sorted(range(len(scores)), key=lambda index: (-scores[index], index))[: request.top_n]
            results: list[dict[str, Any]] = [{"index": index, "relevance_score": scores[index]} for index in best]
            if request.return_documents:
                results = [{**result, "document": {"text": documents[result["index"]]}} for result in results]
            return {"model": core.model, "object": "list", "usage": _usage(summary), "results": results}

        return Computed([f"{request.query}\n{document}" for document in documents], told)

    return reply(core, opened, refusal)


def texts_of(inputs: Inputs) -> list[str]:
    """The texts to embed; token ids stand for themselves where they are not this engine's.

    Raises SimRefusedError (400) when there is nothing, or too much.
    """
    if isinstance(inputs, list) and inputs and isinstance(inputs[0], int):
        inputs = [[number for number in inputs if isinstance(number, int)]] if _all_ids(inputs) else []
    texts = [inputs] if isinstance(inputs, str) else [_text(one) for one in inputs]
    if not texts or not all(texts) or len(texts) > INPUTS_MAX:
        message = f"input: must be a text, a list of token ids, or a list of these, not empty, {INPUTS_MAX} at most"
        raise SimRefusedError(400, message, code="invalid_request", param="input")
    return texts


def _all_ids(inputs: list[Any]) -> bool:
    return all(isinstance(number, int) for number in inputs)


def _text(one: str | int | list[int]) -> str:
    if isinstance(one, str):
        return one
    if isinstance(one, int):
        return ""
    try:
        return tokenizer.decode(one)
    except ValueError:
        return " ".join(map(str, one))


def _encoded(vector: list[float], encoding: str | None) -> list[float] | str:
    if encoding != "base64":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _usage(summary: Summary) -> dict[str, int]:
    return {"prompt_tokens": summary.usage.prompt_tokens, "total_tokens": summary.usage.prompt_tokens}

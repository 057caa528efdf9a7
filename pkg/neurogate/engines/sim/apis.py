"""Every operation the simulated engine has, by its path: one table for its direct forward and for its HTTP server."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

from starlette.routing import Route

from neurogate.engines.engine import EngineReply
from neurogate.engines.sim import anthropic_api, embeddings_api, llamacpp_api, openai_api, openai_forms, responses_api
from neurogate.engines.sim.core import SimCore, SimRefusedError
from neurogate.engines.sim.http_answer import AnswerEndpoint

Answering = Callable[[SimCore, bytes], AbstractAsyncContextManager[EngineReply]]

_OPENAI: dict[str, Answering] = {
    "/v1/chat/completions": openai_api.chat,
    "/v1/completions": openai_api.completion,
    "/v1/responses": responses_api.responses,
    "/v1/embeddings": embeddings_api.embeddings,
    "/v1/rerank": embeddings_api.rerank,
}
_ANTHROPIC: dict[str, Answering] = {
    "/v1/messages": anthropic_api.messages,
    "/v1/messages/count_tokens": anthropic_api.count_tokens,
}
_LLAMACPP: dict[str, Answering] = {
    "/completion": llamacpp_api.completion,
    "/infill": llamacpp_api.infill,
    "/tokenize": llamacpp_api.tokenize,
    "/detokenize": llamacpp_api.detokenize,
    "/apply-template": llamacpp_api.apply_template,
}

APIS = {**_OPENAI, **_ANTHROPIC, **_LLAMACPP}


def refusal_of(path: str) -> Callable[[SimRefusedError], bytes]:
    """How the API that a path belongs to words an error."""
    if path in _OPENAI:
        return openai_forms.refusal
    return anthropic_api.refusal if path in _ANTHROPIC else llamacpp_api.refusal


def routes(core: SimCore) -> list[Route]:
    """Every path, for the server."""
    return [
        Route(path, AnswerEndpoint(partial(answering, core), refusal_of(path)), methods=["POST"])
        for path, answering in APIS.items()
    ]

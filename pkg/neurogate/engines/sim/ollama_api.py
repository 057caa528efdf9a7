"""Ollama's HTTP API, as the simulated engine speaks it.

One model is there and loaded until a client unloads it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from hashlib import blake2b
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from neurogate import __version__
from neurogate.engines.engine import EngineReply
from neurogate.engines.sim import chat_template, tokenizer
from neurogate.engines.sim.core import CONTEXT_TOKENS, SimCore, SimRefusedError
from neurogate.engines.sim.http_answer import AnswerEndpoint, JsonEndpoint
from neurogate.engines.sim.ollama_forms import OllamaForm, OllamaToolForm, as_message, as_response, timestamp
from neurogate.engines.sim.ollama_requests import (
    ChatRequest,
    EmbedRequest,
    GenerateRequest,
    KeepAlive,
    OldEmbedRequest,
    ShowRequest,
    images_of,
)
from neurogate.engines.sim.reply import Form, read_json, reply
from neurogate.engines.sim.speech import FREE, Speech, Tool, json_of, tool_call
from neurogate.engines.sim.vectors import DIMENSIONS, embedding

_KEEP_ALIVE_S = 300.0
_DETAILS = {
    "parent_model": "",
    "format": "sim",
    "family": "sim",
    "families": ["sim"],
    "parameter_size": "0",
    "quantization_level": "none",
}

_NUMBER = re.compile(r"\d+(?:\.\d+)?")

_GENERATE = msgspec.json.Decoder(GenerateRequest)
_CHAT = msgspec.json.Decoder(ChatRequest)
_EMBED = msgspec.json.Decoder(EmbedRequest)
_OLD_EMBED = msgspec.json.Decoder(OldEmbedRequest)
_SHOW = msgspec.json.Decoder(ShowRequest)


def refusal(error: SimRefusedError) -> bytes:
    """Ollama's error body."""
    return msgspec.json.encode({"error": str(error)})


class OllamaApi:
    """The API of one engine; it remembers only whether the model is loaded."""

    def __init__(self, core: SimCore) -> None:
        self._core = core
        self._loaded = True

    def routes(self) -> list[Route]:
        """Every path of this API."""

        async def root(request: Request) -> PlainTextResponse:
            del request
            return PlainTextResponse("Ollama is running")

        return [
            Route("/", root, methods=["GET"]),
            Route("/api/version", JsonEndpoint(self._version, refusal), methods=["GET"]),
            Route("/api/tags", JsonEndpoint(self._tags, refusal), methods=["GET"]),
            Route("/api/ps", JsonEndpoint(self._ps, refusal), methods=["GET"]),
            Route("/api/show", JsonEndpoint(self._show, refusal), methods=["POST"]),
            Route("/api/embed", JsonEndpoint(self._embed, refusal), methods=["POST"]),
            Route("/api/embeddings", JsonEndpoint(self._old_embed, refusal), methods=["POST"]),
            Route("/api/generate", AnswerEndpoint(self.generate, refusal), methods=["POST"]),
            Route("/api/chat", AnswerEndpoint(self.chat, refusal), methods=["POST"]),
        ]

    def generate(self, body: bytes) -> AbstractAsyncContextManager[EngineReply]:
        """Answer /api/generate."""
        return reply(self._core, partial(self._open_generate, body), refusal)

    def chat(self, body: bytes) -> AbstractAsyncContextManager[EngineReply]:
        """Answer /api/chat."""
        return reply(self._core, partial(self._open_chat, body), refusal)

    def _open_generate(self, body: bytes) -> Form | bytes:
        request = read_json(_GENERATE, body)
        self._require_model(request.model)
        if not request.prompt:
            return self._load(request, as_response(""))
        if request.raw and (request.system or request.context):
            raise SimRefusedError(400, "raw mode does not support template, system, or context", code="invalid_request")
        prompt = request.prompt
        if not request.raw:
            turns = [("system", request.system)] if request.system else []
            prompt = _decoded(request.context or []) + chat_template.render([*turns, ("user", prompt)])
        self._loaded = True
        prompt = images_of(request.images) + prompt + request.suffix
        return OllamaForm(self._core, request, prompt, as_response, _formatted(request.format))

    def _open_chat(self, body: bytes) -> Form | bytes:
        request = read_json(_CHAT, body)
        self._require_model(request.model)
        if not request.messages:
            return self._load(request, as_message(""))
        self._loaded = True
        prompt = chat_template.render((message.role, message.text) for message in request.messages)
        last = request.messages[-1]
        tools = [Tool(spec.function.name, spec.function.parameters) for spec in request.tools or ()]
        speech = tool_call(tools, choice="auto", asked=last.content if last.role == "user" else "")
        if speech.tool:
            return OllamaToolForm(self._core, request, prompt, as_message, speech)
        return OllamaForm(self._core, request, prompt, as_message, _formatted(request.format))

    def _load(self, request: GenerateRequest | ChatRequest, empty: dict[str, Any]) -> bytes:
        self._loaded = not _unloads(request.keep_alive)
        return msgspec.json.encode(
            {
                "model": request.model,
                "created_at": timestamp(self._core.now()),
                **empty,
                "done": True,
                "done_reason": "load" if self._loaded else "unload",
            }
        )

    def _require_model(self, model: str) -> None:
        if not model:
            raise SimRefusedError(400, "model is required", code="invalid_request", param="model")
        if not self._core.knows(model):
            raise SimRefusedError(404, f"model '{model}' not found", code="model_not_found", param="model")

    def _version(self, body: bytes, query: Mapping[str, str]) -> object:
        del body, query
        return {"version": f"{__version__}-sim"}

    def _tags(self, body: bytes, query: Mapping[str, str]) -> object:
        del body, query
        return {"models": [{**self._listed(), "modified_at": timestamp(self._core.now())}]}

    def _ps(self, body: bytes, query: Mapping[str, str]) -> object:
        del body, query
        if not self._loaded:
            return {"models": []}
        loaded = {
            "expires_at": timestamp(self._core.now() + _KEEP_ALIVE_S),
            "size_vram": 0,
            "context_length": CONTEXT_TOKENS,
        }
        return {"models": [{**self._listed(), **loaded}]}

    def _show(self, body: bytes, query: Mapping[str, str]) -> object:
        del query
        request = read_json(_SHOW, body)
        self._require_model(request.model or request.name)
        return {
            "modelfile": f"# simulated\nFROM {self._core.model}\n",
            "parameters": "",
            "template": chat_template.TEMPLATE,
            "details": _DETAILS,
            "model_info": {"general.architecture": "sim", "sim.context_length": CONTEXT_TOKENS},
            "capabilities": ["completion", "embedding"],
            "modified_at": timestamp(self._core.now()),
        }

    def _embed(self, body: bytes, query: Mapping[str, str]) -> object:
        del query
        request = read_json(_EMBED, body)
        self._require_model(request.model)
        texts = [request.input] if isinstance(request.input, str) else request.input
        return {
            "model": request.model,
            "embeddings": [embedding(text, request.dimensions or DIMENSIONS) for text in texts],
            "prompt_eval_count": sum(map(tokenizer.count, texts)),
        }

    def _old_embed(self, body: bytes, query: Mapping[str, str]) -> object:
        del query
        request = read_json(_OLD_EMBED, body)
        self._require_model(request.model)
        return {"embedding": embedding(request.prompt)}

    def _listed(self) -> dict[str, Any]:
        name = self._core.model if ":" in self._core.model else f"{self._core.model}:latest"
        digest = blake2b(name.encode(), digest_size=32).hexdigest()
        return {"name": name, "model": name, "size": 0, "digest": digest, "details": _DETAILS}


def _formatted(wanted: str | dict[str, Any] | None) -> Speech:
    """What `format` asks for: anything, any JSON, or an instance of a schema."""
    if not wanted:
        return FREE
    if isinstance(wanted, str) and wanted != "json":
        raise SimRefusedError(400, "format: must be json or a JSON schema", code="invalid_request", param="format")
    return json_of(None if isinstance(wanted, str) else wanted)


def _unloads(keep_alive: KeepAlive) -> bool:
    """Whether a keep-alive such as 0, "0" or "0s" asks to unload at once."""
    numbers = [float(number) for number in _NUMBER.findall(str(keep_alive))]
    return bool(numbers) and not any(numbers)


def _decoded(context: list[int]) -> str:
    try:
        return tokenizer.decode(context)
    except ValueError as error:
        raise SimRefusedError(400, f"context: {error}", code="invalid_request", param="context") from error

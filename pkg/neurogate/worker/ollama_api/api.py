"""Ollama's API on one worker: which way each call of it goes.

On Ollama everything passes through. On other engines a conversation is translated, and what loads, unloads or describes
a model is answered from what the engine says of itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import msgspec

from neurogate.channel import End
from neurogate.engines.engine import Engine, EngineRefusedError, EngineUnsupportedError, Observation
from neurogate.model_names import known_as
from neurogate.operations import OPERATIONS, Family
from neurogate.rpc.backend import IncomingCall, Outlet
from neurogate.worker.features import ignored_feature
from neurogate.worker.ollama_api import requests, showing
from neurogate.worker.ollama_api.asking import Question, chat_question, generate_question
from neurogate.worker.ollama_api.conversing import Conversation, Terms
from neurogate.worker.ollama_api.embedding import EMBEDDINGS_PATH, embed, embed_formerly
from neurogate.worker.ollama_api.passing import pass_through
from neurogate.worker.ollama_api.requests import ChatRequest, GenerateRequest
from neurogate.worker.ollama_api.wording import Said, Shape, Writer, as_message, as_response
from neurogate.worker.progress import Progress

PATHS = frozenset(path for path, operation in OPERATIONS.items() if operation.family is Family.OLLAMA)

_EMBEDDING = frozenset({"/api/embed", "/api/embeddings"})


def apis_of(seen: Observation) -> frozenset[str]:
    """The non-universal paths that a worker offers: its engine's, and those that are translated to them."""
    return seen.apis | _EMBEDDING if EMBEDDINGS_PATH in seen.apis else seen.apis


class OllamaApi:
    """See the module. `now` is the wall clock in Unix seconds."""

    def __init__(self, engine: Engine, *, now: Callable[[], float], max_answer_bytes: int) -> None:
        self._engine = engine
        self._now = now
        self._max_answer_bytes = max_answer_bytes

    async def answer(self, call: IncomingCall, outlet: Outlet, progress: Progress, seen: Observation) -> End:
        """Answer a call of PATHS, on an engine that was last seen so.

        Raises EngineError as the engine does, and for requests that it cannot follow; CancelledError stops the engine.
        """
        limit = self._max_answer_bytes
        if self._engine.kind == "ollama":
            return await pass_through(self._engine, call, outlet, progress, max_answer_bytes=limit)
        match call.path:
            case "/api/chat" | "/api/generate":
                return await self._converse(call, outlet, progress, seen)
            case "/api/embed" | "/api/embeddings":
                answer = embed if call.path == "/api/embed" else embed_formerly
                return await answer(self._engine, call, outlet, known_as=partial(_name, seen), max_answer_bytes=limit)
            case _:
                return self._show(call, outlet, seen)

    async def _converse(self, call: IncomingCall, outlet: Outlet, progress: Progress, seen: Observation) -> End:
        asked = read_conversation(call.path, call.body)
        request = asked.request
        writer = Writer(request.model, asked.shape, self._now)
        if not request.asks:
            return _loaded(request, writer, outlet)
        question = question_of(asked, seen, self._engine.kind)
        terms = Terms(request.streamed, call.request_id, self._max_answer_bytes)
        return await Conversation(writer, terms, outlet=outlet, progress=progress).hold(self._engine, question)

    def _show(self, call: IncomingCall, outlet: Outlet, seen: Observation) -> End:
        request = requests.read(requests.SHOW, call.body)
        asked = request.model or request.name or ""
        if not asked:
            raise EngineRefusedError(400, "model is required")
        name = _name(seen, asked)
        for model in seen.models:
            if model.name == name:
                outlet.chunk(msgspec.json.encode(showing.shown(model, seen, self._engine.kind)))
                return End(http_status=200)
        raise EngineRefusedError(404, f"model '{asked}' not found")


class Asked(NamedTuple):
    """A request of a path that converses."""

    request: ChatRequest | GenerateRequest
    shape: Shape
    """Where its API puts an answer."""
    translated: Callable[[str, str], Question]
    """What it asks of a model and an engine of a kind."""


def read_conversation(path: str, body: bytes) -> Asked:
    """A request for `/api/chat` or `/api/generate`. Raises EngineRefusedError (400) naming what is wrong."""
    if path == "/api/chat":
        chat = requests.read(requests.CHAT, body)
        return Asked(chat, as_message, partial(chat_question, chat))
    generate = requests.read(requests.GENERATE, body)
    return Asked(generate, as_response, partial(generate_question, generate))


def question_of(asked: Asked, seen: Observation, kind: str) -> Question:
    """What to ask an engine of this kind, last seen so, that is not Ollama.

    Raises EngineRefusedError (400) and EngineUnsupportedError for what it cannot follow.
    """
    try:
        question = asked.translated(_name(seen, asked.request.model), kind)
    except RecursionError as error:  # what could just be read is nested deeper in the question
        raise EngineRefusedError(400, "invalid request: it is nested too deeply") from error
    ignored = ignored_feature(question.body, seen.unsupported) if seen.unsupported else ""
    if ignored:
        raise EngineUnsupportedError(f"the engine {kind} does not do {ignored!r}")
    return question


def _loaded(request: ChatRequest | GenerateRequest, writer: Writer, outlet: Outlet) -> End:
    """Nothing was asked: that loads a model, or with keep_alive 0 unloads it. Here it is loaded, and stays."""
    line = writer.last(Said(), "load")
    outlet.chunk(line + b"\n" if request.streamed else line)
    return End(http_status=200)


def _name(seen: Observation, asked: str) -> str:
    return known_as(asked, {model.name for model in seen.models})

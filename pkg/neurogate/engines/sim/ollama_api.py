"""Ollama's HTTP API, as the simulated engine speaks it.

It streams one JSON object a line, gives durations in nanoseconds and leaves out what is zero, as Ollama does. One model
is there and loaded until a client unloads it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from neurogate import __version__
from neurogate.engines.engine import EngineReply
from neurogate.engines.sim import chat_template, tokenizer
from neurogate.engines.sim.core import CONTEXT_TOKENS, Question, SimCore, SimRefusedError, Summary
from neurogate.engines.sim.http_answer import AnswerEndpoint, JsonEndpoint
from neurogate.engines.sim.openai_api import limit_of, mark_of, stops_of
from neurogate.engines.sim.reply import Form, joined, read_json, reply
from neurogate.engines.sim.speech import FREE, Speech, Tool, json_of, tool_call
from neurogate.engines.sim.vectors import DIMENSIONS, DIMENSIONS_MAX, embedding

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

KeepAlive = str | float | None


class Options(msgspec.Struct):
    """The sampling options that mean something here."""

    num_predict: int | None = None
    """Tokens; negative is no limit."""
    ignore_eos: bool | None = None
    stop: str | list[str] | None = None


class GenerateRequest(msgspec.Struct, kw_only=True):
    """The body of /api/generate."""

    model: str = ""
    prompt: str = ""
    system: str = ""
    context: list[int] | None = None
    raw: bool = False
    images: list[str] | None = None
    suffix: str = ""
    format: str | dict[str, Any] | None = None
    stream: bool | None = None
    options: Options | None = None
    keep_alive: KeepAlive = None


class ChatMessage(msgspec.Struct):
    """One turn of a conversation."""

    role: str
    content: str = ""
    images: list[str] | None = None
    tool_calls: list[dict[str, Any]] | None = None

    @property
    def text(self) -> str:
        """The content as the model sees it."""
        return _images(self.images) + self.content + "".join(map(mark_of, self.tool_calls or ()))


class _Function(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None


class _ToolSpec(msgspec.Struct):
    function: _Function


class ChatRequest(msgspec.Struct, kw_only=True):
    """The body of /api/chat."""

    model: str = ""
    messages: list[ChatMessage] = msgspec.field(default_factory=list)
    tools: list[_ToolSpec] | None = None
    format: str | dict[str, Any] | None = None
    stream: bool | None = None
    options: Options | None = None
    keep_alive: KeepAlive = None


class _EmbedRequest(msgspec.Struct, kw_only=True):
    model: str = ""
    input: str | list[str] = ""
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=DIMENSIONS_MAX)] | None = None


class _OldEmbedRequest(msgspec.Struct, kw_only=True):
    model: str = ""
    prompt: str = ""


class _ShowRequest(msgspec.Struct, kw_only=True):
    model: str = ""
    name: str = ""


_GENERATE = msgspec.json.Decoder(GenerateRequest)
_CHAT = msgspec.json.Decoder(ChatRequest)
_EMBED = msgspec.json.Decoder(_EmbedRequest)
_OLD_EMBED = msgspec.json.Decoder(_OldEmbedRequest)
_SHOW = msgspec.json.Decoder(_ShowRequest)


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
            return self._load(request, _as_response(""))
        if request.raw and (request.system or request.context):
            raise SimRefusedError(400, "raw mode does not support template, system, or context", code="invalid_request")
        prompt = request.prompt
        if not request.raw:
            turns = [("system", request.system)] if request.system else []
            prompt = _decoded(request.context or []) + chat_template.render([*turns, ("user", prompt)])
        self._loaded = True
        prompt = _images(request.images) + prompt + request.suffix
        return _OllamaForm(self._core, request, prompt, _as_response, _formatted(request.format))

    def _open_chat(self, body: bytes) -> Form | bytes:
        request = read_json(_CHAT, body)
        self._require_model(request.model)
        if not request.messages:
            return self._load(request, _as_message(""))
        self._loaded = True
        prompt = chat_template.render((message.role, message.text) for message in request.messages)
        last = request.messages[-1]
        tools = [Tool(spec.function.name, spec.function.parameters) for spec in request.tools or ()]
        speech = tool_call(tools, choice="auto", asked=last.content if last.role == "user" else "")
        if speech.tool:
            return _OllamaToolForm(self._core, request, prompt, _as_message, speech)
        return _OllamaForm(self._core, request, prompt, _as_message, _formatted(request.format))

    def _load(self, request: GenerateRequest | ChatRequest, empty: dict[str, Any]) -> bytes:
        self._loaded = not _unloads(request.keep_alive)
        return msgspec.json.encode(
            {
                "model": request.model,
                "created_at": _timestamp(self._core.now()),
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
        return {"models": [{**self._listed(), "modified_at": _timestamp(self._core.now())}]}

    def _ps(self, body: bytes, query: Mapping[str, str]) -> object:
        del body, query
        if not self._loaded:
            return {"models": []}
        loaded = {
            "expires_at": _timestamp(self._core.now() + _KEEP_ALIVE_S),
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
            "modified_at": _timestamp(self._core.now()),
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


class _OllamaForm:
    """One object a line, and the account at the end. `wrapped` puts text where the path has it."""

    stream_type = "application/x-ndjson"

    def __init__(
        self,
        core: SimCore,
        request: GenerateRequest | ChatRequest,
        prompt: str,
        wrapped: Callable[[str], dict[str, Any]],
        speech: Speech,
    ) -> None:
        options = request.options or Options()
        question = Question(
            prompt,
            limit_of(options.num_predict),
            ignore_eos=bool(options.ignore_eos),
            stop=stops_of(options.stop),
            says=speech.text,
        )
        self.questions = [question]
        self.streamed = request.stream is None or request.stream
        self._model = request.model
        self._now = core.now
        self._wrapped = wrapped
        self._gives_context = isinstance(request, GenerateRequest) and not request.raw
        # The context is told at the end of a stream; it is bounded as the answer is.
        self._said = bytearray()

    def opening(self) -> bytes:
        return b""

    def tokens(self, tokens: list[bytes], choice: int) -> bytes:
        del choice
        about = {"model": self._model, "created_at": _timestamp(self._now())}
        self._said += b"".join(tokens)
        return b"".join([_line({**about, **self._wrapped(token.decode()), "done": False}) for token in tokens])

    def closing(self, summary: Summary) -> bytes:
        return _line(self._ended("", self._said.decode(), summary))

    def failure(self, message: str) -> bytes:
        return _line({"error": message})

    def whole(self, answers: list[list[bytes]], summary: Summary) -> bytes:
        text = joined(answers[0])
        return msgspec.json.encode(self._ended(text, text, summary))

    def _ended(self, shown: str, said: str, summary: Summary) -> dict[str, Any]:
        account = {
            "context": tokenizer.encode(self.questions[0].prompt + said) if self._gives_context else [],
            "total_duration": _nanoseconds(summary.total_s),
            "prompt_eval_count": summary.usage.prompt_tokens,
            "prompt_eval_duration": _nanoseconds(summary.prefill_s),
            "eval_count": summary.usage.completion_tokens,
            "eval_duration": _nanoseconds(summary.decode_s),
        }
        return {
            "model": self._model,
            "created_at": _timestamp(self._now()),
            **self._wrapped(shown),
            "done": True,
            "done_reason": summary.finish_reason,
            **{name: value for name, value in account.items() if value},
        }


class _OllamaToolForm(_OllamaForm):
    """A tool's call: Ollama tells it as one, once its arguments are complete."""

    def __init__(
        self,
        core: SimCore,
        request: ChatRequest,
        prompt: str,
        wrapped: Callable[[str], dict[str, Any]],
        speech: Speech,
    ) -> None:
        super().__init__(core, request, prompt, wrapped, speech)
        self._tool = speech.tool

    def tokens(self, tokens: list[bytes], choice: int) -> bytes:
        del choice
        self._said += b"".join(tokens)
        return b""

    def closing(self, summary: Summary) -> bytes:
        said = self._said.decode()
        about = {"model": self._model, "created_at": _timestamp(self._now())}
        called = _line({**about, "message": self._message(said), "done": False})
        return called + _line(self._ended("", said, summary))

    def whole(self, answers: list[list[bytes]], summary: Summary) -> bytes:
        text = joined(answers[0])
        return msgspec.json.encode({**self._ended("", text, summary), "message": self._message(text)})

    def _message(self, text: str) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": ""}
        try:
            call = {"function": {"name": self._tool, "arguments": msgspec.json.decode(text)}}
        except msgspec.DecodeError:  # the limit cut the call short
            return {**message, "content": text}
        return {**message, "tool_calls": [call]}


def _formatted(wanted: str | dict[str, Any] | None) -> Speech:
    """What `format` asks for: anything, any JSON, or an instance of a schema."""
    if not wanted:
        return FREE
    if isinstance(wanted, str) and wanted != "json":
        raise SimRefusedError(400, "format: must be json or a JSON schema", code="invalid_request", param="format")
    return json_of(None if isinstance(wanted, str) else wanted)


def _images(images: list[str] | None) -> str:
    return "".join([mark_of({"type": "image", "data": image}) for image in images or ()])


def _as_response(text: str) -> dict[str, Any]:
    return {"response": text}


def _as_message(text: str) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}}


def _line(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def _timestamp(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat().replace("+00:00", "Z")


def _unloads(keep_alive: KeepAlive) -> bool:
    """Whether a keep-alive such as 0, "0" or "0s" asks to unload at once."""
    numbers = [float(number) for number in _NUMBER.findall(str(keep_alive))]
    return bool(numbers) and not any(numbers)


def _decoded(context: list[int]) -> str:
    try:
        return tokenizer.decode(context)
    except ValueError as error:
        raise SimRefusedError(400, f"context: {error}", code="invalid_request", param="context") from error

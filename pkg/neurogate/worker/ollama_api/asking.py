"""From a request of Ollama's API to the one an OpenAI-like engine takes.

It always asks for a stream, with usage, whatever the client wants: the answer is then worded alike for both, and an
abandoned one is aborted at the next token.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from neurogate.engines.engine import EngineRefusedError, EngineUnsupportedError
from neurogate.engines.http import CHAT_PATH
from neurogate.worker.ollama_api.requests import ChatRequest, Format, GenerateRequest, Message, Options

COMPLETION_PATH = "/v1/completions"

_OPTIONS = ("temperature", "top_p", "top_k", "min_p", "seed", "presence_penalty", "frequency_penalty")
_LLAMACPP_OPTIONS = {
    "num_keep": "n_keep",
    "typical_p": "typical_p",
    "repeat_last_n": "repeat_last_n",
    "repeat_penalty": "repeat_penalty",
    "mirostat": "mirostat",
    "mirostat_tau": "mirostat_tau",
    "mirostat_eta": "mirostat_eta",
}
_OTHERS_OPTIONS = {"repeat_penalty": "repetition_penalty"}
"""As vLLM and SGLang call it; they have none of the rest."""

_IMAGE_TYPES = ((b"\x89PNG", "png"), (b"\xff\xd8\xff", "jpeg"), (b"GIF8", "gif"), (b"RIFF", "webp"), (b"BM", "bmp"))


class Question(NamedTuple):
    """What to ask the engine."""

    path: str
    body: bytes
    max_tokens: int | None
    """As far as the request names a limit."""


def chat_question(request: ChatRequest, model: str, kind: str) -> Question:
    """What `/api/chat` asks of an engine of this kind. Raises EngineRefusedError (400) for what none could take."""
    asked = _asked(request, model=model, kind=kind)
    asked["messages"] = list(_messages(request.messages or ()))
    if request.tools:
        asked["tools"] = [{"type": "function", **tool} for tool in request.tools]
    return _question(CHAT_PATH, asked, request.options)


def generate_question(request: GenerateRequest, model: str, kind: str) -> Question:
    """The same for `/api/generate`. Raises EngineUnsupportedError for what only Ollama can do, too."""
    _refuse_what_is_ollamas(request, kind)
    asked = _asked(request, model=model, kind=kind)
    prompt = request.prompt or ""
    if request.raw:
        asked["prompt"] = prompt
        return _question(COMPLETION_PATH, asked, request.options)
    turns = [Message("user", prompt, images=request.images)]
    if request.system:
        turns.insert(0, Message("system", request.system))
    asked["messages"] = list(_messages(turns))
    return _question(CHAT_PATH, asked, request.options)


def _refuse_what_is_ollamas(request: GenerateRequest, kind: str) -> None:
    if request.raw and (request.system or request.template or request.context):
        raise EngineRefusedError(400, "raw mode does not support template, system, or context")
    unsupported = {
        "template": bool(request.template),
        "suffix": bool(request.suffix),
        "context": bool(request.context),
        "images with raw": bool(request.raw and request.images),
        "format with raw": bool(request.raw and request.format),
        "logprobs with raw": bool(request.raw and request.logprobs),
    }
    for what, asked in unsupported.items():
        if asked:
            instead = ": send the conversation so far to /api/chat" if what == "context" else ""
            raise EngineUnsupportedError(f"{what} is not supported by the engine {kind}{instead}")


def _asked(request: ChatRequest | GenerateRequest, *, model: str, kind: str) -> dict[str, Any]:
    """The fields that both APIs have; what a request leaves open is left out."""
    asked: dict[str, Any] = {"model": model, "stream": True, "stream_options": {"include_usage": True}}
    if request.options is not None:
        asked |= _sampling(request.options, _OTHERS_OPTIONS if kind == "openai" else _LLAMACPP_OPTIONS)
    if (form := _response_format(request.format)) is not None:
        asked["response_format"] = form
    if request.think is not None:
        asked["chat_template_kwargs"] = _thinking(request.think)
    if request.logprobs:
        asked["logprobs"] = True
        if request.top_logprobs:
            asked["top_logprobs"] = request.top_logprobs
    return asked


def _sampling(options: Options, special: dict[str, str]) -> dict[str, Any]:
    names = {**{name: name for name in _OPTIONS}, **special}
    asked = {theirs: value for ours, theirs in names.items() if (value := getattr(options, ours)) is not None}
    if options.max_tokens is not None:
        asked["max_tokens"] = options.max_tokens
    if options.stop:
        asked["stop"] = [options.stop] if isinstance(options.stop, str) else options.stop
    return asked


def _response_format(form: Format) -> dict[str, Any] | None:
    if isinstance(form, dict):
        return {"type": "json_schema", "json_schema": {"name": "answer", "schema": form}}
    if form in {None, ""}:
        return None
    if form != "json":
        raise EngineRefusedError(400, f'invalid format: {form!r}; expected "json" or a JSON schema')
    return {"type": "json_object"}


def _thinking(think: bool | str) -> dict[str, Any]:  # noqa: FBT001 - a field of a request, not a switch
    """What chat templates call it: most of them the first, those that know levels the second."""
    if isinstance(think, bool):
        return {"enable_thinking": think}
    if think not in {"low", "medium", "high"}:
        raise EngineRefusedError(
            400, f'invalid think value: {think!r}; expected true, false, "low", "medium" or "high"'
        )
    return {"enable_thinking": True, "reasoning_effort": think}


def _question(path: str, asked: dict[str, Any], options: Options | None) -> Question:
    return Question(path, msgspec.json.encode(asked), options.max_tokens if options is not None else None)


def _messages(turns: Iterable[Message]) -> Iterable[dict[str, Any]]:
    """The conversation, with an id for each tool call: OpenAI's tool results name theirs, Ollama's need not."""
    calls = 0
    open_calls: list[tuple[str, str]] = []
    for turn in turns:
        said: dict[str, Any] = {"role": turn.role, "content": _content(turn)}
        if turn.thinking:
            said["reasoning_content"] = turn.thinking
        if turn.tool_calls:
            said["tool_calls"] = []
            for call in turn.tool_calls:
                calls += 1
                call_id = call.id or f"call_{calls}"
                open_calls.append((call_id, call.function.name))
                arguments = msgspec.json.encode(call.function.arguments).decode()
                function = {"name": call.function.name, "arguments": arguments}
                said["tool_calls"].append({"id": call_id, "type": "function", "function": function})
        if turn.role == "tool":
            said["tool_call_id"] = _answered(turn, open_calls)
            if turn.tool_name:
                said["name"] = turn.tool_name
        yield said


def _answered(turn: Message, open_calls: list[tuple[str, str]]) -> str:
    """The call that a tool's result belongs to: the one it names, else the oldest of its tool, else the oldest."""
    if turn.tool_call_id:
        found = [call for call in open_calls if call[0] == turn.tool_call_id]
    else:
        found = [call for call in open_calls if call[1] == turn.tool_name] or open_calls[:1]
    if not found:
        return turn.tool_call_id or "call_0"
    open_calls.remove(found[0])
    return found[0][0]


def _content(turn: Message) -> str | list[dict[str, Any]]:
    text = turn.content or ""
    if not turn.images:
        return text
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    return parts + [{"type": "image_url", "image_url": {"url": _data_url(image)}} for image in turn.images]


def _data_url(image: str) -> str:
    try:
        begin = base64.b64decode(image, validate=True)[:8]
    except (binascii.Error, ValueError) as error:
        raise EngineRefusedError(400, "images: must be base64 without a prefix") from error
    kind = next((name for magic, name in _IMAGE_TYPES if begin.startswith(magic)), "jpeg")
    return f"data:image/{kind};base64,{image}"

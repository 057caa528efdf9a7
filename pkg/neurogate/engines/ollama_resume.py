"""Continuing an answer on Ollama: what it would give its model, and the text so far, as a raw prompt.

Ollama renders a conversation and tells the result without generating when it is asked for `_debug_render_only`; a raw
prompt goes to the model as it is. What stands between its model and its client (reasoning taken out, a parser of a
model's own format) is not there for a raw prompt, so answers of models that have such are not continued. Requests in
OpenAI's form are translated as Ollama translates them itself.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import Any

import msgspec

from neurogate.channel import Resume
from neurogate.engines.engine import (
    EngineBrokenError,
    EngineCall,
    EngineReply,
    EngineUnsupportedError,
)
from neurogate.engines.http import CHAT_PATH, CONTROL_BYTES_MAX, read_reply, refusal
from neurogate.engines.ollama_lines import Line, lines
from neurogate.engines.payload import json_of
from neurogate.engines.resuming import Request, request_of
from neurogate.inference import Finished, GenerationEvent, Token, Usage

Exchange = Callable[[EngineCall], AbstractAsyncContextManager[EngineReply]]
"""Sends a call to the server and gives its answer."""

SINCE = (0, 11, 5)
"""The release that renders without generating first. Older ones ignore that they are asked to, and generate."""

GENERATE, CHAT = "/api/generate", "/api/chat"
PATHS = frozenset({GENERATE, CHAT, CHAT_PATH, "/v1/completions"})

_PASSED = ("model", "keep_alive", "truncate", "shift", "think")
_RENDERED = (*_PASSED, "messages", "prompt", "system", "template")
_OPENAI_OPTIONS = {
    "max_tokens": "num_predict", "seed": "seed", "temperature": "temperature", "top_p": "top_p", "stop": "stop",
    "frequency_penalty": "frequency_penalty", "presence_penalty": "presence_penalty",
}  # fmt: skip
_OWN_FORMATS = frozenset({"gptoss", "gpt-oss"})
"""Families whose format Ollama parses without saying so."""


@dataclass(frozen=True, slots=True)
class OllamaResume:
    """Continues answers on one server."""

    exchange: Exchange

    async def events(self, call: EngineCall, said: Resume) -> AsyncGenerator[GenerationEvent, None]:
        """What follows `said` in the answer to a call; see Engine.resume."""
        request = native(call)
        if not (said.text or said.finish_reason):
            path = CHAT if "messages" in request else GENERATE
            begun, tokens = EngineCall(path, msgspec.json.encode(request | {"stream": True}), call.request_id), 0
        else:
            await self._check_model(call, request)
            prompt = await self._prompt(call, request)
            limit = request["options"].get("num_predict", -1)
            left = limit - said.tokens if isinstance(limit, int) and limit > 0 else None
            if said.finish_reason or (left is not None and left <= 0):
                yield await self._counted(call, request, prompt, said)
                return
            tokens = said.tokens
            begun = raw(call, request, prompt + said.text, left)
        last: Line | None = None
        async with self.exchange(begun) as reply:
            if reply.status != 200:
                raise await refusal(reply)
            async with aclosing(lines(reply)) as answer:
                async for line in answer:
                    if line.thought:
                        raise EngineUnsupportedError("an answer with reasoning is not continued")
                    if line.text:
                        yield Token(line.text)
                    if line.done:
                        last = line
        if last is None:
            raise EngineBrokenError("Ollama's answer ended before it was done")
        yield Finished(
            Usage(max(0, last.prompt_eval_count - tokens), tokens + last.eval_count),
            last.finish_reason,
            last.model or said.model,
            last.inference_ms,
        )

    async def _check_model(self, call: EngineCall, request: Request) -> None:
        shown = await self._ask(call, "/api/show", {"model": request.get("model", "")})
        details = shown.get("details")
        family = details.get("family", "") if isinstance(details, dict) else ""
        if shown.get("parser") or shown.get("renderer") or shown.get("remote_host") or family in _OWN_FORMATS:
            raise EngineUnsupportedError("answers of a model with a format of its own are not continued on Ollama")
        if "thinking" in (shown.get("capabilities") or ()) and request.get("think") is not False:
            raise EngineUnsupportedError("answers of a model that thinks before it answers are not continued")

    async def _prompt(self, call: EngineCall, request: Request) -> str:
        """What Ollama would give its model."""
        if request.get("raw"):
            return str(request.get("prompt", ""))
        path = CHAT if "messages" in request else GENERATE
        asked = {name: request[name] for name in _RENDERED if name in request}
        asked["options"] = request["options"] | {"num_predict": 1}  # should a server generate after all
        told = await self._ask(call, path, asked | {"stream": False, "_debug_render_only": True})
        match told:
            case {"_debug_info": {"rendered_template": str(prompt)}}:
                return prompt
        raise EngineUnsupportedError("this Ollama does not tell what it gives its model, so no answer is continued")

    async def _counted(self, call: EngineCall, request: Request, prompt: str, said: Resume) -> Finished:
        """The end of a text that is whole. Ollama counts a prompt only by reading it, for a token that nobody sees."""
        begun = raw(call, request, prompt, 1)
        told = await self._ask(call, begun.path, msgspec.json.decode(begun.body) | {"stream": False})
        count = told.get("prompt_eval_count")
        prompt_tokens = count if isinstance(count, int) else 0
        return Finished(Usage(prompt_tokens, said.tokens), said.finish_reason or "length", said.model, 0)

    async def _ask(self, call: EngineCall, path: str, body: Request) -> Request:
        async with self.exchange(EngineCall(path, msgspec.json.encode(body), call.request_id)) as reply:
            if reply.status != 200:
                raise await refusal(reply)
            value = json_of(await read_reply(reply, CONTROL_BYTES_MAX))
        if not isinstance(value, dict):
            raise EngineUnsupportedError(f"this Ollama answers {path} with something else than Ollama does")
        return value


def raw(call: EngineCall, request: Request, prompt: str, limit: int | None) -> EngineCall:
    """A raw prompt with the settings of a request."""
    options = request["options"] if limit is None else request["options"] | {"num_predict": limit}
    body = {name: request[name] for name in _PASSED if name in request}
    body |= {"prompt": prompt, "raw": True, "stream": True, "options": options}
    return EngineCall(GENERATE, msgspec.json.encode(body), call.request_id)


def native(call: EngineCall) -> Request:
    """A request in the words of Ollama's API. Raises EngineUnsupportedError when its answer cannot be continued."""
    request = request_of(call)
    if call.path in {GENERATE, CHAT}:
        options = request.get("options")
        return request | {"options": options if isinstance(options, dict) else {}}
    if call.path not in PATHS:
        raise EngineUnsupportedError(f"the engine ollama does not continue answers of {call.path}")
    if "reasoning" in request or "reasoning_effort" in request:
        raise EngineUnsupportedError("an answer with reasoning is not continued")
    options = {"temperature": 1.0, "top_p": 1.0}
    options |= {name: request[field] for field, name in _OPENAI_OPTIONS.items() if field in request}
    if isinstance(options.get("stop"), str):
        options["stop"] = [options["stop"]]
    translated = {"model": request.get("model", ""), "options": options}
    if call.path == CHAT_PATH:
        return translated | {"messages": list(_messages(request.get("messages")))}
    if not isinstance(request.get("prompt"), str):
        raise EngineUnsupportedError("an answer to several prompts, or to tokens, is not continued")
    return translated | {"prompt": request["prompt"]}


def _messages(told: Any) -> list[dict[str, Any]]:
    """Ollama makes a message of each part of a content."""
    messages: list[dict[str, Any]] = []
    for message in told if isinstance(told, list) else ():
        content = message.get("content")
        parts = [part.get("text", "") for part in content] if isinstance(content, list) else [content or ""]
        messages += [{"role": message.get("role", ""), "content": text} for text in parts]
    return messages

"""Continuing an answer on a llama.cpp server: the conversation as its template renders it, and the text so far.

An assistant's message that is given half is closed by the template, and the model answers that; only the native
`/completion` goes on in the middle of a sentence. It is given token ids and not text, for two reasons. A tokenizer
joins what meets at a seam, so the conversation and the answer are tokenized apart, as they were. And a text that ends
in white space reads as another token than the same text in the middle of a sentence: two line breaks at the end are
one token, but two in front of a word. What the model most likely said is what a word after it makes of it, and the
number of tokens that the client was sent settles it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from neurogate.channel import Resume
from neurogate.engines.engine import (
    EngineBrokenError,
    EngineCall,
    EngineReply,
    EngineUnavailableError,
    EngineUnsupportedError,
)
from neurogate.engines.http import CHAT_PATH, CONTROL_BYTES_MAX, ERROR_BYTES_MAX, once, read_reply, refusal
from neurogate.engines.payload import Timings, json_of
from neurogate.engines.resuming import Request, limit_of, request_of, stops_of
from neurogate.engines.sse import SseTap, events
from neurogate.inference import Finished, GenerationEvent, Token, Usage
from neurogate.operations import Ending
from neurogate.prompt_api import UNDECODABLE

Exchange = Callable[[EngineCall], AbstractAsyncContextManager[EngineReply]]
"""Sends a call to the server and gives its answer."""

ToldT = TypeVar("ToldT")

COMPLETION_PATH = "/completion"
_MISSING = frozenset({404, 405, 501})
_CONTEXT_FULL = "exceed_context_size_error"
_WORD = "a"
"""What a text that ends in white space is followed by, to see how it is spelled in the middle of a text."""

_THINKS = re.compile(r"think|reasoning|channel", re.IGNORECASE)
"""What a template mentions whose model thinks before it answers."""
_THOUGHT = re.compile(r"</\w*think\w*>\s*\Z", re.IGNORECASE)
"""How a rendered conversation ends when the thinking is over before the answer begins."""

_NOT_PASSED = frozenset(
    {
        "messages", "prompt", "stream", "stream_options", "n", "n_cmpl", "best_of", "echo", "suffix", "logprobs",
        "top_logprobs", "n_probs", "tools", "tool_choice", "parallel_tool_calls", "functions", "function_call",
        "response_format", "max_tokens", "max_completion_tokens", "n_predict", "stop", "chat_template_kwargs",
        "chat_template", "add_generation_prompt", "continue_final_message", "reasoning_format", "reasoning_effort",
        "enable_thinking", "parse_tool_calls", "response_fields", "return_tokens", "return_progress",
        "timings_per_token", "verbose", "user", "metadata", "store", "service_tier", "modalities",
    }
)  # fmt: skip
"""Fields of the chat that mean nothing, or something else, to `/completion`. All others it reads alike."""


class _Event(msgspec.Struct):
    content: str = ""
    stop: bool = False
    stop_type: str = ""
    model: str = ""
    tokens_predicted: int = 0
    timings: Timings = msgspec.field(default_factory=Timings)


class _Rendered(msgspec.Struct):
    prompt: str


class _Tokens(msgspec.Struct):
    tokens: list[int]


_EVENTS = msgspec.json.Decoder(_Event, strict=False)
_RENDERED = msgspec.json.Decoder(_Rendered)
_TOKENS = msgspec.json.Decoder(_Tokens)


@dataclass(frozen=True, slots=True)
class LlamaResume:
    """Continues answers on one server; `template` is how its model renders a conversation."""

    exchange: Exchange
    template: str = ""

    async def events(self, call: EngineCall, said: Resume) -> AsyncGenerator[GenerationEvent, None]:
        """What follows `said` in the answer to a call; see Engine.resume."""
        request = request_of(call)
        prompt = await self._prompt(call, request)
        spoken = await self._spoken(call, request, said)
        before = Usage(len(prompt), max(said.tokens, len(spoken)))
        limit = limit_of(request)
        if said.finish_reason or (limit is not None and before.completion_tokens >= limit):
            yield Finished(before, said.finish_reason or "length", said.model, 0)
            return
        body: Request = {name: value for name, value in request.items() if name not in _NOT_PASSED}
        body |= {"prompt": prompt + spoken, "stop": stops_of(request), "stream": True}
        if limit is not None:
            body["n_predict"] = limit - before.completion_tokens
        going_on = EngineCall(COMPLETION_PATH, msgspec.json.encode(body), call.request_id)
        async with self.exchange(going_on) as reply:
            if reply.status != 200:
                yield await _ended(reply, before, said.model)
                return
            tap = SseTap(Ending.STOP)
            last = _Event()
            async for piece in reply.body:
                for event in events(tap.feed(piece)):
                    last = _event(event.data)
                    if last.content:
                        yield Token(last.content)
        if tap.error is not None:
            raise EngineBrokenError(f"the engine reported an error in its answer: {tap.error}")
        if not tap.done:
            raise EngineBrokenError("the engine's answer ended without its end mark")
        yield Finished(
            Usage(
                before.prompt_tokens,
                before.completion_tokens + last.tokens_predicted,
                min(last.timings.cache_n, before.prompt_tokens),
            ),
            "stop" if last.stop_type in {"eos", "word"} else "length",
            last.model or said.model,
            round(last.timings.prompt_ms + last.timings.predicted_ms),
        )

    async def _prompt(self, call: EngineCall, request: Request) -> list[int]:
        if call.path == CHAT_PATH:
            rendered = _decoded(_RENDERED, await self._ask(EngineCall("/apply-template", call.body, call.request_id)))
            if _thinks(self.template, rendered.prompt, request):
                raise EngineUnsupportedError("answers of a model that thinks before it answers are not continued")
            return await self._tokenize(call, request, rendered.prompt, add_special=True)
        prompt = request.get("prompt")
        if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
            [prompt] = prompt
        if isinstance(prompt, str):
            return await self._tokenize(call, request, prompt, add_special=True)
        if isinstance(prompt, list) and prompt and all(isinstance(token, int) for token in prompt):
            return list(prompt)
        raise EngineUnsupportedError("an answer to several prompts is not continued")

    async def _spoken(self, call: EngineCall, request: Request, said: Resume) -> list[int]:
        """The tokens of the text so far, spelled as the model most likely did."""
        plain = await self._tokenize(call, request, said.text)
        if not said.text or said.text == said.text.rstrip() or said.finish_reason:
            return plain
        within = await self._tokenize(call, request, said.text + _WORD)
        if within[-1:] != await self._tokenize(call, request, _WORD):
            return plain
        del within[-1]
        return plain if len(plain) == said.tokens else within

    async def _tokenize(self, call: EngineCall, request: Request, text: str, *, add_special: bool = False) -> list[int]:
        body = {"content": text, "add_special": add_special, "parse_special": add_special}
        if "model" in request:
            body["model"] = request["model"]
        asked = EngineCall("/tokenize", msgspec.json.encode(body), call.request_id)
        return _decoded(_TOKENS, await self._ask(asked)).tokens

    async def _ask(self, call: EngineCall) -> bytes:
        """The answer to a call that generates nothing. Raises as Engine.generate does before its first event."""
        async with self.exchange(call) as reply:
            if reply.status in _MISSING:
                raise EngineUnsupportedError(f"the engine has no {call.path} to continue an answer with")
            if reply.status != 200:
                raise await refusal(reply)
            return await read_reply(reply, CONTROL_BYTES_MAX)


async def _ended(reply: EngineReply, before: Usage, model: str) -> Finished:
    """A conversation that fills the context has come to its end; anything else is a refusal."""
    body = await read_reply(reply, ERROR_BYTES_MAX)
    value = json_of(body)
    error = value.get("error") if isinstance(value, dict) else None
    if isinstance(error, dict) and error.get("type") == _CONTEXT_FULL:
        return Finished(before, "length", model, 0)
    raise await refusal(EngineReply(reply.status, reply.content_type, once(body), reply.retry_after_s))


def _thinks(template: str, prompt: str, request: Request) -> bool:
    """Whether an answer has thoughts in front that the client is sent apart, and that are not in its text."""
    if request.get("reasoning_format") == "none" or not _THINKS.search(template):
        return False
    return _THOUGHT.search(prompt) is None


def _event(data: bytes) -> _Event:
    try:
        return _EVENTS.decode(data)
    except UNDECODABLE as error:
        raise EngineBrokenError("the engine streams something that is no completion") from error


def _decoded(decoder: msgspec.json.Decoder[ToldT], body: bytes) -> ToldT:
    try:
        return decoder.decode(body)
    except UNDECODABLE as error:
        raise EngineUnavailableError("the engine answers with something else than llama.cpp does") from error

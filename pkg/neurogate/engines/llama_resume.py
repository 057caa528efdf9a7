"""Continuing an answer on a llama.cpp server: the conversation as its template renders it, and the text so far.

An assistant's message that is given half is closed by the template, and the model answers that; only the native
`/completion` goes on in the middle of a sentence. It is given tokens and not text: a tokenizer joins what meets at a
seam, and reads the same text otherwise than the model spelled it, as two line breaks at an end, which it would have in
one. So the conversation and the answer are tokenized apart, as they were, and where the events that carried the text
end differently from its tokens, each is tokenized alone.
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
_ALONE_MAX = 256
"""Events of a text whose spelling is asked for one by one, at most."""

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


class _Piece(msgspec.Struct):
    id: int
    piece: str | list[int]
    """Bytes, where it is not whole characters."""

    @property
    def size(self) -> int:
        return len(self.piece.encode() if isinstance(self.piece, str) else self.piece)


class _Tokens(msgspec.Struct):
    tokens: list[_Piece]


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
        prompt_tokens, context = await self._context(call, request, said)
        before = Usage(prompt_tokens, max(said.tokens, len(context) - prompt_tokens))
        limit = limit_of(request)
        ended = said.finish_reason == "stop"  # by a token without text, perhaps: the engine counts it, so it is asked
        if (said.finish_reason and not ended) or (limit is not None and before.completion_tokens >= limit):
            yield Finished(before, said.finish_reason or "length", said.model, 0)
            return
        body: Request = {name: value for name, value in request.items() if name not in _NOT_PASSED}
        body |= {"prompt": context, "stop": stops_of(request), "stream": True}
        if ended:
            body["n_predict"] = 1
        elif limit is not None:
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
                    if last.content and not ended:
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
            "stop" if ended or last.stop_type in {"eos", "word"} else "length",
            last.model or said.model,
            round(last.timings.prompt_ms + last.timings.predicted_ms),
        )

    async def _context(self, call: EngineCall, request: Request, said: Resume) -> tuple[int, list[int]]:
        """How many tokens the conversation has, and its tokens with those of the text so far."""
        conversation = await self._conversation(call, request)
        if isinstance(conversation, list):
            prompt = conversation
        else:
            prompt = [token.id for token in await self._tokenize(call, request, conversation, add_special=True)]
        if not said.text:
            return len(prompt), prompt
        spoken = await self._tokenize(call, request, said.text)
        if sum(token.size for token in spoken) == len(said.text.encode()):
            return len(prompt), prompt + await self._spelled(call, request, said, spoken)
        if isinstance(conversation, list):
            raise EngineUnsupportedError(
                "an answer to tokens is not continued by a model whose words carry their space"
            )
        whole = await self._tokenize(call, request, conversation + said.text, add_special=True)
        return len(prompt), [token.id for token in whole]

    async def _conversation(self, call: EngineCall, request: Request) -> str | list[int]:
        """What the answer is to, as text or, if the request has it so, as tokens."""
        if call.path == CHAT_PATH:
            rendered = _decoded(_RENDERED, await self._ask(EngineCall("/apply-template", call.body, call.request_id)))
            if _thinks(self.template, rendered.prompt, request):
                raise EngineUnsupportedError("answers of a model that thinks before it answers are not continued")
            return rendered.prompt
        prompt = request.get("prompt")
        if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
            [prompt] = prompt
        if isinstance(prompt, str):
            return prompt
        if isinstance(prompt, list) and prompt and all(isinstance(token, int) for token in prompt):
            return list(prompt)
        raise EngineUnsupportedError("an answer to several prompts is not continued")

    async def _spelled(self, call: EngineCall, request: Request, said: Resume, plain: list[_Piece]) -> list[int]:
        """The tokens of the text as the model spelled it: none of them reaches over the end of an event."""
        if sum(said.lengths) != len(said.text):
            return [token.id for token in plain]
        begins: dict[int, _Piece] = {}
        at = 0
        for token in plain:
            begins[at] = token
            at += token.size
        spelled: list[int] = []
        alone: dict[str, list[int]] = {}
        at = begin = 0
        for length in said.lengths:
            piece = said.text[begin : begin + length]
            size = len(piece.encode())
            token_there = begins.get(at)
            if token_there is not None and token_there.size == size:
                spelled.append(token_there.id)
            else:
                if piece not in alone:
                    if len(alone) == _ALONE_MAX:
                        return [token.id for token in plain]
                    alone[piece] = [token.id for token in await self._tokenize(call, request, piece)]
                spelled += alone[piece]
            begin += length
            at += size
        return spelled

    async def _tokenize(
        self, call: EngineCall, request: Request, text: str, *, add_special: bool = False
    ) -> list[_Piece]:
        body = {"content": text, "add_special": add_special, "parse_special": add_special, "with_pieces": True}
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

"""Continuing an answer on vLLM: the tokens of the conversation, and those of the text so far, as a completion.

vLLM tokenizes a conversation as its chat does, and completes tokens. An open last message of the assistant
(`continue_final_message`) is not the same: many templates strip a message's white space, and the text then goes on
otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import msgspec

from neurogate.channel import Resume
from neurogate.engines.engine import EngineCall, EngineReply, EngineUnavailableError, EngineUnsupportedError
from neurogate.engines.http import CHAT_PATH, CONTROL_BYTES_MAX, read_reply, refusal
from neurogate.engines.resuming import Request, limit_of
from neurogate.inference import Finished, Usage
from neurogate.prompt_api import UNDECODABLE

Exchange = Callable[[EngineCall], AbstractAsyncContextManager[EngineReply]]
"""Sends a call to the server and gives its answer."""

OWNER = "vllm"
"""Whose its models are, as it lists them."""

_COMPLETIONS_PATH = "/v1/completions"
_COMPLETION_TOKENS = 16
"""Of a completion that names no limit; a chat without one has the rest of the context."""

_TEMPLATED = (
    "model", "messages", "add_generation_prompt", "continue_final_message", "add_special_tokens", "chat_template",
    "chat_template_kwargs",
)  # fmt: skip
_UNFAITHFUL = frozenset(
    {
        "presence_penalty", "frequency_penalty", "guided_json", "guided_regex", "guided_choice", "guided_grammar",
        "structured_outputs", "structural_tag", "use_beam_search", "prompt_logprobs", "reasoning_effort", "documents",
        "truncate_prompt_tokens", "prompt_embeds",
    }
)  # fmt: skip
"""What it would do otherwise with a text that is half prompt: its penalties look at the answer alone."""
_NOT_PASSED = frozenset(
    {
        "messages", "prompt", "stream", "stream_options", "n", "best_of", "echo", "suffix", "logprobs", "top_logprobs",
        "tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "response_format", "max_tokens",
        "max_completion_tokens", "min_tokens", "add_generation_prompt", "continue_final_message", "add_special_tokens",
        "chat_template", "chat_template_kwargs", "user", "metadata", "store", "service_tier", "modalities",
        "include_reasoning",
    }
)  # fmt: skip


class _Tokens(msgspec.Struct):
    tokens: list[int]
    max_model_len: int


_TOKENS = msgspec.json.Decoder(_Tokens)


@dataclass(frozen=True, slots=True)
class Rest:
    """What is left of an answer."""

    call: EngineCall | None
    """What to ask for it; None when there is nothing left."""
    before: Usage
    """Of what there is."""

    def whole(self, rest: Finished) -> Finished:
        """The end of both parts."""
        said, more = self.before, rest.usage
        usage = Usage(
            said.prompt_tokens,
            said.completion_tokens + more.completion_tokens,
            min(more.cached_tokens, said.prompt_tokens),
        )
        return Finished(usage, rest.finish_reason, rest.model, rest.inference_time_ms)


@dataclass(frozen=True, slots=True)
class VllmResume:
    """Continues answers on one server."""

    exchange: Exchange

    async def rest(self, call: EngineCall, request: Request, said: Resume) -> Rest:
        """What to ask for what follows `said`. Raises as Engine.resume does before its first event."""
        for name in _UNFAITHFUL & request.keys():
            if request[name] not in (0, False, ""):
                raise EngineUnsupportedError(f"an answer with {name!r} is not continued on vLLM")
        prompt = await self._prompt(call, request)
        spoken = await self._tokenize(call, {"prompt": said.text, "add_special_tokens": False}, request)
        context = prompt + spoken.tokens
        before = Usage(len(prompt), max(said.tokens, len(spoken.tokens)))
        limit = limit_of(request)
        if limit is None:
            limit = _COMPLETION_TOKENS if call.path == _COMPLETIONS_PATH else spoken.max_model_len
        room = spoken.max_model_len - len(context)
        left = min(limit - before.completion_tokens, room)
        if said.finish_reason or left <= 0:
            return Rest(None, before)
        body = {name: value for name, value in request.items() if name not in _NOT_PASSED}
        body |= {"prompt": context, "max_tokens": left, "stream": True, "stream_options": {"include_usage": True}}
        if isinstance(least := request.get("min_tokens"), int):
            body["min_tokens"] = max(0, least - before.completion_tokens)
        return Rest(EngineCall(_COMPLETIONS_PATH, msgspec.json.encode(body), call.request_id), before)

    async def _prompt(self, call: EngineCall, request: Request) -> list[int]:
        if call.path == CHAT_PATH:
            asked = {name: request[name] for name in _TEMPLATED if name in request}
        elif isinstance(prompt := request.get("prompt"), str):
            asked = {"prompt": prompt, "add_special_tokens": request.get("add_special_tokens", True)}
        elif isinstance(prompt, list) and prompt and all(isinstance(token, int) for token in prompt):
            return list(prompt)
        else:
            raise EngineUnsupportedError("an answer to several prompts is not continued")
        return (await self._tokenize(call, asked, request)).tokens

    async def _tokenize(self, call: EngineCall, asked: Request, request: Request) -> _Tokens:
        body = msgspec.json.encode({"model": request["model"], **asked} if "model" in request else asked)
        async with self.exchange(EngineCall("/tokenize", body, call.request_id)) as reply:
            if reply.status in {404, 405, 501}:
                raise EngineUnsupportedError("this vLLM has no /tokenize to continue an answer with")
            if reply.status != 200:
                raise await refusal(reply)
            told = await read_reply(reply, CONTROL_BYTES_MAX)
        try:
            return _TOKENS.decode(told)
        except UNDECODABLE as error:
            raise EngineUnavailableError("the engine answers /tokenize with something else than vLLM does") from error

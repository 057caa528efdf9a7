"""What an engine's answer says it cost and why it ended, in each API's own words.

Everything is read leniently: engines leave out what they like, and a token count is never worth failing an answer for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from neurogate.engines.payload import Timings, chunk_of
from neurogate.inference import Usage
from neurogate.operations import Ending
from neurogate.prompt_api import UNDECODABLE


class Account(NamedTuple):
    """What one event, or one whole answer, tells."""

    usage: Usage | None = None
    """None when it does not say."""
    finish_reason: str = ""
    generated: bool = False
    """It carries a token."""
    further: bool = False
    """It is of a second or further choice."""


class _Cached(msgspec.Struct):
    cached_tokens: int | None = None


class _Tokens(msgspec.Struct):
    """`usage` of Anthropic's and of OpenAI's Responses API."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    input_tokens_details: _Cached | None = None

    def anthropic(self) -> Usage:
        """Where `input_tokens` are those that no cache had a part in."""
        cached = self.cache_read_input_tokens or 0
        prompt = (self.input_tokens or 0) + cached + (self.cache_creation_input_tokens or 0)
        return Usage(prompt, self.output_tokens or 0, cached)

    def openai(self) -> Usage:
        """Where `input_tokens` are all of them."""
        details = self.input_tokens_details or _Cached()
        return Usage(self.input_tokens or 0, self.output_tokens or 0, details.cached_tokens or 0)


class _Message(msgspec.Struct):
    usage: _Tokens | None = None


class _MessageDelta(msgspec.Struct):
    stop_reason: str | None = None


class _Messages(msgspec.Struct):
    """An event of `/v1/messages`, or the whole message."""

    type: str = ""
    message: _Message | None = None
    delta: _MessageDelta | None = None
    usage: _Tokens | None = None
    stop_reason: str | None = None


class _Details(msgspec.Struct):
    reason: str | None = None


class _Response(msgspec.Struct):
    status: str | None = None
    usage: _Tokens | None = None
    incomplete_details: _Details | None = None


class _Responses(_Response):
    """An event of `/v1/responses`, or the whole response."""

    type: str = ""
    response: _Response | None = None


class _Native(msgspec.Struct):
    """An event of llama.cpp's `/completion`, or one whole completion."""

    index: int = 0
    content: str = ""
    stop: bool = False
    stop_type: str | None = None
    tokens_evaluated: int | None = None
    tokens_predicted: int | None = None
    timings: Timings | None = None


_MESSAGES = msgspec.json.Decoder(_Messages, strict=False)
_RESPONSES = msgspec.json.Decoder(_Responses, strict=False)
_NATIVES = msgspec.json.Decoder(_Native | list[_Native], strict=False)

_NOTHING = Account()


def summed(ending: Ending, events: Iterable[bytes], counted: int) -> tuple[Account, int]:
    """What the events of a stream tell together, and how many of them were no token.

    Counts grow with the stream, so the largest of each is the true one. llama.cpp counts every choice on its own: of
    more than one, only `counted`, the events that passed, tells how many tokens there were.
    """
    read = _READERS[ending]
    usages = []
    reason, silent, further = "", 0, False
    for data in events:
        for account in read(data):
            if account.usage is not None:
                usages.append(account.usage)
            reason = account.finish_reason or reason
            silent += not account.generated
            further = further or account.further
    usage = _largest(usages) if usages else None
    if usage is not None and further:
        usage = Usage(usage.prompt_tokens, max(usage.completion_tokens, counted), usage.cached_tokens)
    return Account(usage, reason), silent


def whole(ending: Ending, body: bytes) -> Account:
    """What a whole answer tells of itself."""
    if ending in {Ending.DONE, Ending.NONE}:
        return _whole_openai(body)
    accounts = _READERS[ending](body)
    usages = [account.usage for account in accounts if account.usage is not None]
    usage = Usage(
        sum(usage.prompt_tokens for usage in usages),
        sum(usage.completion_tokens for usage in usages),
        sum(usage.cached_tokens for usage in usages),
    )
    return Account(usage if usages else None, accounts[0].finish_reason if accounts else "")


def _whole_openai(body: bytes) -> Account:
    answer = chunk_of(body)
    if answer is None:
        return _NOTHING
    usage = answer.total()
    choices = len(answer.choices)
    timings = answer.timings
    if usage is not None and timings is not None and choices > 1 and usage.completion_tokens == timings.predicted_n:
        usage = Usage(usage.prompt_tokens, usage.completion_tokens * choices, usage.cached_tokens)  # of the first alone
    reasons = [choice.finish_reason for choice in answer.choices if choice.finish_reason]
    return Account(usage, reasons[0] if reasons else "")


def _openai(data: bytes) -> Sequence[Account]:
    chunk = chunk_of(data)
    if chunk is None:
        return (_NOTHING,)
    reason, generated, further = "", False, False
    for choice in chunk.choices:
        reason = choice.finish_reason or reason
        generated = generated or choice.generated
        further = further or choice.index != 0
    return (Account(chunk.total(), reason, generated, further),)


def _anthropic(data: bytes) -> Sequence[Account]:
    try:
        said = _MESSAGES.decode(data)
    except UNDECODABLE:
        return (_NOTHING,)
    usage = said.usage or (said.message.usage if said.message is not None else None)
    reason = said.stop_reason or (said.delta.stop_reason if said.delta is not None else None)
    generated = said.type == "content_block_delta"
    return (Account(usage.anthropic() if usage is not None else None, reason or "", generated),)


def _openai_response(data: bytes) -> Sequence[Account]:
    try:
        said = _RESPONSES.decode(data)
    except UNDECODABLE:
        return (_NOTHING,)
    response = said.response or said
    reason = response.status if response.status not in {"in_progress", "queued"} else ""
    if response.incomplete_details is not None:
        reason = response.incomplete_details.reason or reason
    usage = response.usage.openai() if response.usage is not None else None
    return (Account(usage, reason or "", said.type.endswith(".delta")),)


def _llamacpp(data: bytes) -> Sequence[Account]:
    try:
        said = _NATIVES.decode(data)
    except UNDECODABLE:
        return (_NOTHING,)
    return [_completion(each) for each in (said if isinstance(said, list) else [said])]


def _completion(said: _Native) -> Account:
    usage = None
    if said.stop or said.tokens_predicted is not None:
        cached = said.timings.cache_n if said.timings is not None else 0
        usage = Usage(said.tokens_evaluated or 0, said.tokens_predicted or 0, cached)
    return Account(usage, said.stop_type or "", bool(said.content), said.index > 0)


def _largest(usages: Iterable[Usage]) -> Usage:
    prompt, completion, cached = zip(
        *((usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) for usage in usages), strict=True
    )
    return Usage(max(prompt), max(completion), max(cached))


_READERS: dict[Ending, Callable[[bytes], Sequence[Account]]] = {
    Ending.DONE: _openai,
    Ending.MESSAGE_STOP: _anthropic,
    Ending.RESPONSE_COMPLETED: _openai_response,
    Ending.STOP: _llamacpp,
}

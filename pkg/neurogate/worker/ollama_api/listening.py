"""What an OpenAI-like engine's stream says, event by event, in the pieces that Ollama's answers are made of.

Calls of tools come in fragments and Ollama tells them whole, so they are gathered until the end.
"""

from __future__ import annotations

from typing import Any

import msgspec

from neurogate.engines.engine import AnswerTooLargeError, EngineBrokenError
from neurogate.engines.payload import Timings, json_of
from neurogate.engines.sse import DONE, events
from neurogate.prompt_api import UNDECODABLE
from neurogate.worker.ollama_api.wording import Said


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolDelta(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolDelta] | None = None


class _Candidate(msgspec.Struct):
    token: str = ""
    logprob: float = 0.0
    bytes: list[int] | None = None


class _Chosen(_Candidate):
    top_logprobs: list[_Candidate] | None = None


class _Logprobs(msgspec.Struct):
    content: list[_Chosen] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None
    logprobs: _Logprobs | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    timings: Timings | None = None


_CHUNKS = msgspec.json.Decoder(_Chunk, strict=False)


class _Call:
    """A call of a tool, as far as it came."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id = self.name = self.arguments = ""

    def add(self, delta: _ToolDelta) -> int:
        """Take a fragment; its size in bytes, about."""
        self.id = delta.id or self.id
        function = delta.function or _Function()
        name, arguments = function.name or "", function.arguments or ""
        self.name += name
        self.arguments += arguments
        return len(name) + len(arguments)


class Listener:
    """Hears one stream; `limit` bounds the bytes that are held until its end."""

    def __init__(self, limit: int) -> None:
        self.timings: Timings | None = None
        """The engine's own account, once it came."""
        self._calls: dict[int, _Call] = {}
        self._limit = limit
        self._held = 0

    def hear(self, whole: bytes) -> list[Said]:
        """What whole events add; a fragment of a tool's call is an empty piece. Raises EngineBrokenError."""
        heard = []
        for event in events(whole):
            if event.data == DONE:
                continue
            try:
                chunk = _CHUNKS.decode(event.data)
            except UNDECODABLE as error:
                raise EngineBrokenError("the engine streams something that is no chat completion") from error
            self.timings = chunk.timings or self.timings
            heard += [said for choice in chunk.choices or () if (said := self._of_choice(choice)) is not None]
        return heard

    def hold(self, size: int) -> None:
        """Count what is held until the end. Raises AnswerTooLargeError."""
        self._held += size
        if self._held > self._limit:
            raise AnswerTooLargeError(self._limit)

    def tool_calls(self, finish_reason: str) -> list[dict[str, Any]]:
        """The calls, whole. One that the token limit cut is left out; any other cut one raises EngineBrokenError."""
        calls = []
        for _, call in sorted(self._calls.items()):
            arguments = json_of(call.arguments.encode()) if call.arguments.strip() else {}
            if call.name and isinstance(arguments, dict):
                told = {"function": {"name": call.name, "arguments": arguments}}
                calls.append({"id": call.id, **told} if call.id else told)
            elif finish_reason != "length":
                raise EngineBrokenError("the engine called a tool with arguments that are no JSON object")
        return calls

    def _of_choice(self, choice: _Choice) -> Said | None:
        delta = choice.delta or _Delta()
        for fragment in delta.tool_calls or ():
            self.hold(self._calls.setdefault(fragment.index or 0, _Call()).add(fragment))
        text = delta.content or choice.text or ""
        thinking = delta.reasoning_content or delta.reasoning or ""
        if text or thinking:
            return Said(text, thinking, logprobs=_logprobs(choice.logprobs))
        return Said() if delta.tool_calls else None


def _logprobs(logprobs: _Logprobs | None) -> list[dict[str, Any]] | None:
    if logprobs is None or not logprobs.content:
        return None
    return [
        {**_told(chosen), "top_logprobs": [_told(candidate) for candidate in chosen.top_logprobs]}
        if chosen.top_logprobs
        else _told(chosen)
        for chosen in logprobs.content
    ]


def _told(candidate: _Candidate) -> dict[str, Any]:
    told: dict[str, Any] = {"token": candidate.token, "logprob": candidate.logprob}
    if candidate.bytes is not None:
        told["bytes"] = candidate.bytes
    return told

"""The transcripts of OpenAI's chat and text completions, as llama.cpp, vLLM, SGLang and Ollama stream them."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal

import msgspec

from neurogate.dataplane.recovery import CannotResumeError
from neurogate.gateway.resuming.framing import ServerSentEvents
from neurogate.gateway.resuming.transcript import StreamTranscript, only

_DONE = b"[DONE]"
_WHOLE = frozenset({"stop", "length", "content_filter"})
"""Finish reasons of a text that is whole. With any other the engine did not just finish."""

_DELTA = frozenset({"role", "content"})


class _Choice(msgspec.Struct):
    index: int | None = None
    delta: dict[str, Any] | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: Any = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice]
    id: Any = None
    created: Any = None
    model: Any = None
    system_fingerprint: Any = None
    usage: Any = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


class _DeltaWord(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    content: str
    role: Any = None
    reasoning_content: None = None
    reasoning: None = None
    tool_calls: None = None
    function_call: None = None
    refusal: None = None


class _ChatChoiceWord(msgspec.Struct, gc=False):
    delta: _DeltaWord
    text: None = None
    index: Literal[0] = 0
    finish_reason: None = None
    logprobs: None = None


class _TextChoiceWord(msgspec.Struct, gc=False):
    text: str
    delta: None = None
    index: Literal[0] = 0
    finish_reason: None = None
    logprobs: None = None


class _ChatWord(msgspec.Struct, gc=False):
    choices: tuple[_ChatChoiceWord]
    error: None = None


class _TextWord(msgspec.Struct, gc=False):
    choices: tuple[_TextChoiceWord]
    error: None = None


_decode_chat_word = msgspec.json.Decoder(_ChatWord).decode
_decode_text_word = msgspec.json.Decoder(_TextWord).decode


class _OpenAITranscript(StreamTranscript):
    def __init__(self) -> None:
        super().__init__(ServerSentEvents())

    def _read(self, data: bytes) -> None:
        if data == _DONE:
            self._ended = True
            return
        chunk = _decode(data)
        if chunk.error:
            raise CannotResumeError("it reports an error")
        self._introduce(
            completion_id=chunk.id, model=chunk.model, created=chunk.created, fingerprint=chunk.system_fingerprint
        )
        if len(chunk.choices) > 1:
            raise CannotResumeError("it has several answers")
        for choice in chunk.choices:
            if choice.index:
                raise CannotResumeError("it has several answers")
            if choice.logprobs:
                raise CannotResumeError("it has logprobs")
            self._say(self._text_of(choice))
            self._finish(choice.finish_reason)
        # Some engines keep the usage up to date in every event: it is the last word only once the text is whole.
        self._usage_sent |= bool(chunk.usage and self._finish_reason)

    def _finish(self, reason: str | None) -> None:
        if reason:
            if reason not in _WHOLE:
                raise CannotResumeError(f"it finished with {reason[:50]!r}")
            self._finish_reason = self._finish_reason or reason

    @abstractmethod
    def _text_of(self, choice: _Choice) -> object:
        """What a choice adds to the text. Raises CannotResumeError for what is no text."""


class ChatTranscript(_OpenAITranscript):
    """`/v1/chat/completions`."""

    @staticmethod
    def _word(data: bytes) -> str:
        return _decode_chat_word(data).choices[0].delta.content

    def _text_of(self, choice: _Choice) -> object:
        delta = choice.delta or {}
        only(delta, _DELTA)
        return delta.get("content")


class CompletionTranscript(_OpenAITranscript):
    """`/v1/completions`."""

    @staticmethod
    def _word(data: bytes) -> str:
        return _decode_text_word(data).choices[0].text

    def _text_of(self, choice: _Choice) -> object:
        return choice.text

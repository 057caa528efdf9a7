"""The transcripts of Ollama's API: a JSON object a line, and the one that is done ends the answer."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import msgspec

from neurogate.dataplane.recovery import CannotResumeError
from neurogate.gateway.resuming.framing import Lines
from neurogate.gateway.resuming.transcript import StreamTranscript, only

_MESSAGE = frozenset({"role", "content"})


class _Line(msgspec.Struct):
    done: bool = False
    model: Any = None
    response: Any = None
    message: dict[str, Any] | None = None
    thinking: Any = None
    tool_calls: Any = None
    logprobs: Any = None
    image: Any = None
    error: Any = None


class _Word(msgspec.Struct, gc=False):
    """A line that says a piece of text and nothing else; fields that others have are None."""

    done: bool = False
    thinking: None = None
    tool_calls: None = None
    logprobs: None = None
    image: None = None
    error: None = None


class _GenerateWord(_Word, kw_only=True, gc=False):
    response: str
    message: None = None


class _Message(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    content: str
    role: Any = None


class _ChatWord(_Word, kw_only=True, gc=False):
    message: _Message


_decode = msgspec.json.Decoder(_Line).decode
_decode_generate_word = msgspec.json.Decoder(_GenerateWord).decode
_decode_chat_word = msgspec.json.Decoder(_ChatWord).decode


class _OllamaTranscript(StreamTranscript):
    def __init__(self) -> None:
        super().__init__(Lines())

    def _read(self, data: bytes) -> None:
        line = _decode(data)
        if line.error:
            raise CannotResumeError("it reports an error")
        only(
            {"thinking": line.thinking, "tool_calls": line.tool_calls, "logprobs": line.logprobs, "image": line.image},
            frozenset(),
        )
        self._introduce(model=line.model)
        self._say(self._text_of(line))
        self._ended = line.done

    @abstractmethod
    def _text_of(self, line: _Line) -> object:
        """What a line adds to the text. Raises CannotResumeError for what is no text."""


class GenerateTranscript(_OllamaTranscript):
    """`/api/generate`."""

    @staticmethod
    def _word(data: bytes) -> str:
        line = _decode_generate_word(data)
        _refuse_last(line)
        return line.response

    def _text_of(self, line: _Line) -> object:
        if line.response is None and not line.done:
            raise CannotResumeError("its stream has a line that is not of this API")
        return line.response


class ChatTranscript(_OllamaTranscript):
    """`/api/chat`."""

    @staticmethod
    def _word(data: bytes) -> str:
        line = _decode_chat_word(data)
        _refuse_last(line)
        return line.message.content

    def _text_of(self, line: _Line) -> object:
        if line.message is None:
            if not line.done:
                raise CannotResumeError("its stream has a line that is not of this API")
            return None
        only(line.message, _MESSAGE)
        return line.message.get("content")


def _refuse_last(line: _Word) -> None:
    if line.done:
        raise msgspec.ValidationError("it is the last one")

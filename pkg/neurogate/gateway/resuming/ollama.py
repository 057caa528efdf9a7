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


_decode = msgspec.json.Decoder(_Line).decode


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

    def _text_of(self, line: _Line) -> object:
        if line.response is None and not line.done:
            raise CannotResumeError("its stream has a line that is not of this API")
        return line.response


class ChatTranscript(_OllamaTranscript):
    """`/api/chat`."""

    def _text_of(self, line: _Line) -> object:
        if line.message is None:
            if not line.done:
                raise CannotResumeError("its stream has a line that is not of this API")
            return None
        only(line.message, _MESSAGE)
        return line.message.get("content")

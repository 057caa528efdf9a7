"""Ollama's answers, line by line.

Ollama leaves out what is zero, and once its answer has begun it reports an error as one more line with the status still
200, or just stops. Only a line that says `done` ends an answer.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec

from neurogate.engines.engine import EngineBrokenError, EngineReply
from neurogate.engines.payload import message_of
from neurogate.prompt_api import UNDECODABLE

LINE_BYTES_MAX = 1 << 20

_NS_PER_MS = 1_000_000


class Message(msgspec.Struct):
    """What a line of a chat adds."""

    content: str = ""
    thinking: str = ""


class Line(msgspec.Struct):
    """One line of `/api/chat` or `/api/generate`."""

    model: str = ""
    message: Message = msgspec.field(default_factory=Message)
    response: str = ""
    thinking: str = ""
    done: bool = False
    done_reason: str = "stop"
    prompt_eval_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0
    error: str = ""

    @property
    def text(self) -> str:
        """The text that it adds."""
        return self.message.content or self.response

    @property
    def thought(self) -> str:
        """The reasoning that it adds."""
        return self.message.thinking or self.thinking

    @property
    def finish_reason(self) -> str:
        """Why the answer ended, in OpenAI's words."""
        return "length" if self.done_reason == "length" else "stop"

    @property
    def inference_ms(self) -> int:
        """Milliseconds of computing."""
        return round((self.prompt_eval_duration + self.eval_duration) / _NS_PER_MS)


_LINES = msgspec.json.Decoder(Line, strict=False)


async def lines(reply: EngineReply) -> AsyncGenerator[Line, None]:
    """The lines of an answer. Raises EngineBrokenError for an error among them, and for what is none."""
    rest = b""
    async for piece in reply.body:
        *whole, rest = (rest + piece).split(b"\n")
        if len(rest) > LINE_BYTES_MAX:
            raise EngineBrokenError(f"Ollama sent a line of more than {LINE_BYTES_MAX} bytes")
        for text in whole:
            if text.strip():
                yield _line(text)
    if rest.strip():
        yield _line(rest)


def _line(text: bytes) -> Line:
    try:
        line = _LINES.decode(text)
    except UNDECODABLE as error:
        raise EngineBrokenError(f"Ollama's answer broke off or is no answer: {message_of(text)}") from error
    if line.error:
        raise EngineBrokenError(f"Ollama reported an error in its answer: {line.error}")
    return line

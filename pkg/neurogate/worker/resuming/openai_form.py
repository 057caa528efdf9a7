"""The rest of a stream of OpenAI's chat and text completions.

Events say what the first ones of the stream said: the id, the time, the model, the fingerprint of the engine that began
it, if it told one. What llama.cpp and the simulated engine send at the end is sent here: the finish reason, the usage
in an event of its own when the request asks for it, [DONE].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import msgspec

from neurogate.channel import Resume
from neurogate.engines.engine import EngineCall
from neurogate.engines.http import CHAT_PATH
from neurogate.inference import Finished, Usage
from neurogate.prompt_api import UNDECODABLE
from neurogate.worker.resuming.form import Continued


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Request(msgspec.Struct):
    stream_options: _StreamOptions | None = None


_decode = msgspec.json.Decoder(_Request).decode
_encode = msgspec.json.encode


class _OpenAIForm(ABC):
    """What both APIs share."""

    mark = b"data: [DONE]\n\n"
    id_prefix: str
    event_object: str

    def __init__(self, said: Resume, *, includes_usage: bool, request_id: str, created: int, model: str) -> None:
        self._said = said
        self._includes_usage = includes_usage
        self._about = {
            "created": said.created or created,
            "id": said.completion_id or f"{self.id_prefix}-{request_id}",
            "model": said.model or model,
            **({"system_fingerprint": said.system_fingerprint} if said.system_fingerprint else {}),
            "object": self.event_object,
        }

    def opening(self) -> bytes:
        """Nothing."""
        return b""

    def piece(self, text: str) -> bytes:
        """A chunk of text."""
        return self._event([self._choice(text, None)])

    def closing(self, finished: Finished) -> bytes:
        """The finish reason and the usage, as far as they were not sent, and the end mark."""
        ended = b"" if self._said.finish_reason else self._event([self._choice("", finished.finish_reason)])
        if self._includes_usage:
            ended += self._event([], usage=_usage(finished.usage))
        return ended + self.mark

    def _event(self, choices: list[dict[str, Any]], **more: object) -> bytes:
        return b"data: " + _encode({"choices": choices, **self._about, **more}) + b"\n\n"

    @abstractmethod
    def _choice(self, text: str, finish_reason: str | None) -> dict[str, Any]: ...


class ChatForm(_OpenAIForm):
    """`/v1/chat/completions`."""

    id_prefix = "chatcmpl"
    event_object = "chat.completion.chunk"

    def opening(self) -> bytes:
        """Who speaks; who has a chunk of the answer knows it."""
        if self._said.completion_id or self._said.text:
            return b""
        return self._event([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])

    def _choice(self, text: str, finish_reason: str | None) -> dict[str, Any]:
        return {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish_reason}


class TextForm(_OpenAIForm):
    """`/v1/completions`."""

    id_prefix = "cmpl"
    event_object = "text_completion"

    def _choice(self, text: str, finish_reason: str | None) -> dict[str, Any]:
        return {"text": text, "index": 0, "logprobs": None, "finish_reason": finish_reason}


def continued(asked: EngineCall, said: Resume, *, model: str, now: Callable[[], float]) -> Continued:
    """The rest of an answer to the client's own bytes; what is wrong with them is for the engine to say.

    `model` is the worker's own, `now` the wall clock in Unix seconds: for a client to whom nothing was said yet.
    """
    try:
        options = _decode(asked.body).stream_options
    except UNDECODABLE:
        options = None
    form = ChatForm if asked.path == CHAT_PATH else TextForm
    return Continued(
        asked,
        form(
            said,
            includes_usage=options is not None and bool(options.include_usage),
            request_id=asked.request_id,
            created=int(now()),
            model=model,
        ),
    )


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }

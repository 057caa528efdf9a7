"""How Ollama's answers are written, streamed and whole: one JSON object a line, and the account in the last one.

Durations are in nanoseconds, and what is zero is left out, as Ollama does.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from neurogate.engines.sim import tokenizer
from neurogate.engines.sim.core import Question, SimCore, Summary
from neurogate.engines.sim.ollama_requests import ChatRequest, GenerateRequest, Options
from neurogate.engines.sim.openai_api import limit_of, stops_of
from neurogate.engines.sim.reply import joined
from neurogate.engines.sim.speech import Speech


class OllamaForm:
    """One object a line, and the account at the end. `wrapped` puts text where the path has it."""

    stream_type = "application/x-ndjson"

    def __init__(
        self,
        core: SimCore,
        request: GenerateRequest | ChatRequest,
        prompt: str,
        wrapped: Callable[[str], dict[str, Any]],
        speech: Speech,
    ) -> None:
        options = request.options or Options()
        question = Question(
            prompt,
            limit_of(options.num_predict),
            ignore_eos=bool(options.ignore_eos),
            stop=stops_of(options.stop),
            says=speech.text,
        )
        self.questions = [question]
        self.streamed = request.stream is None or request.stream
        self._model = request.model
        self._now = core.now
        self._wrapped = wrapped
        self._gives_context = isinstance(request, GenerateRequest) and not request.raw
        # The context is told at the end of a stream; it is bounded as the answer is.
        self._said = bytearray()

    def opening(self) -> bytes:
        """Nothing comes before the first token."""
        return b""

    def tokens(self, tokens: list[bytes], choice: int) -> bytes:
        """A line for each token."""
        del choice
        about = {"model": self._model, "created_at": timestamp(self._now())}
        self._said += b"".join(tokens)
        return b"".join([_line({**about, **self._wrapped(token.decode()), "done": False}) for token in tokens])

    def closing(self, summary: Summary) -> bytes:
        """The last lines."""
        return _line(self._ended("", self._said.decode(), summary))

    def failure(self, message: str) -> bytes:
        """The line that ends a stream which failed."""
        return _line({"error": message})

    def whole(self, answers: list[list[bytes]], summary: Summary) -> bytes:
        """The answer in one object."""
        text = joined(answers[0])
        return msgspec.json.encode(self._ended(text, text, summary))

    def _ended(self, shown: str, said: str, summary: Summary) -> dict[str, Any]:
        account = {
            "context": tokenizer.encode(self.questions[0].prompt + said) if self._gives_context else [],
            "total_duration": _nanoseconds(summary.total_s),
            "prompt_eval_count": summary.usage.prompt_tokens,
            "prompt_eval_duration": _nanoseconds(summary.prefill_s),
            "eval_count": summary.usage.completion_tokens,
            "eval_duration": _nanoseconds(summary.decode_s),
        }
        return {
            "model": self._model,
            "created_at": timestamp(self._now()),
            **self._wrapped(shown),
            "done": True,
            "done_reason": summary.finish_reason,
            **{name: value for name, value in account.items() if value},
        }


class OllamaToolForm(OllamaForm):
    """A tool's call: Ollama tells it as one, once its arguments are complete."""

    def __init__(
        self,
        core: SimCore,
        request: ChatRequest,
        prompt: str,
        wrapped: Callable[[str], dict[str, Any]],
        speech: Speech,
    ) -> None:
        super().__init__(core, request, prompt, wrapped, speech)
        self._tool = speech.tool

    def tokens(self, tokens: list[bytes], choice: int) -> bytes:
        """Nothing: the call is told at the end."""
        del choice
        self._said += b"".join(tokens)
        return b""

    def closing(self, summary: Summary) -> bytes:
        """The last lines."""
        said = self._said.decode()
        about = {"model": self._model, "created_at": timestamp(self._now())}
        called = _line({**about, "message": self._message(said), "done": False})
        return called + _line(self._ended("", said, summary))

    def whole(self, answers: list[list[bytes]], summary: Summary) -> bytes:
        """The answer in one object."""
        text = joined(answers[0])
        return msgspec.json.encode({**self._ended("", text, summary), "message": self._message(text)})

    def _message(self, text: str) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": ""}
        try:
            call = {"function": {"name": self._tool, "arguments": msgspec.json.decode(text)}}
        except msgspec.DecodeError:  # the limit cut the call short
            return {**message, "content": text}
        return {**message, "tool_calls": [call]}


def as_response(text: str) -> dict[str, Any]:
    """Where /api/generate has an answer's text."""
    return {"response": text}


def as_message(text: str) -> dict[str, Any]:
    """Where /api/chat has it."""
    return {"message": {"role": "assistant", "content": text}}


def timestamp(unix_s: float) -> str:
    """A time as Ollama writes it."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat().replace("+00:00", "Z")


def _line(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)

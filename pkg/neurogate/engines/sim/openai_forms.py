"""How OpenAI's completions are written, streamed and whole.

The one idea: everything in a streamed event but the token is the same for the whole answer, so it is rendered once and
each token is spliced between two constants.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgspec

from neurogate.engines.sim.core import Question, SimCore, SimRefusedError, Summary
from neurogate.engines.sim.reply import escaped, joined

DONE = b"data: [DONE]\n\n"

# Where a token goes: a character that nothing else in an event has.
_SPLICE = "\0"
_SPLICE_JSON = b"\\u0000"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request comes down to."""

    answer_id: str
    questions: list[Question]
    streamed: bool
    include_usage: bool
    logprobs: int | None = None
    """How many alternatives to name for each token; None leaves probabilities out."""
    tool: str = ""
    """The tool whose arguments the answer is."""
    echo: bool = False
    """The answer begins with its prompt."""


def refusal(error: SimRefusedError) -> bytes:
    """OpenAI's error body."""
    if error.status >= 500:
        kind = "unavailable_error" if error.status == 503 else "server_error"
    else:
        kind = "invalid_request_error"
    return msgspec.json.encode(
        {"error": {"message": str(error), "type": kind, "param": error.param, "code": error.code}}
    )


def timings(summary: Summary) -> dict[str, float]:
    """llama.cpp's account of an answer. What took no time has the rate 0."""
    prompt_n, predicted_n = summary.usage.prompt_tokens, summary.usage.completion_tokens
    return {
        "cache_n": summary.usage.cached_tokens,
        "prompt_n": prompt_n,
        "prompt_ms": summary.prefill_s * 1000,
        "prompt_per_token_ms": summary.prefill_s * 1000 / prompt_n if prompt_n else 0.0,
        "prompt_per_second": prompt_n / summary.prefill_s if summary.prefill_s else 0.0,
        "predicted_n": predicted_n,
        "predicted_ms": summary.decode_s * 1000,
        "predicted_per_token_ms": summary.decode_s * 1000 / predicted_n if predicted_n else 0.0,
        "predicted_per_second": predicted_n / summary.decode_s if summary.decode_s else 0.0,
    }


def usage_of(summary: Summary) -> dict[str, Any]:
    """OpenAI's `usage`."""
    usage = summary.usage
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


class _OpenAIForm(ABC):
    """What both paths share: an answer's constants, and its end."""

    stream_type = "text/event-stream"
    id_prefix: str
    stream_object: str
    whole_object: str

    def __init__(self, core: SimCore, asked: Asked) -> None:
        self.questions = asked.questions
        self.streamed = asked.streamed
        self._asked = asked
        self._about = {
            "created": int(core.now()),
            "id": f"{self.id_prefix}-{asked.answer_id}",
            "model": core.model,
            "system_fingerprint": "neurogate-sim",
        }
        self._escapes = any(question.says is not None for question in asked.questions)
        self._spliced = -1
        self._before = self._after = b""

    def opening(self) -> bytes:
        """Nothing."""
        return b""

    def tokens(self, tokens: list[bytes], choice: int) -> bytes:
        """One event a token."""
        if self._asked.logprobs is not None:
            return b"".join(
                [self._event([self._said(choice, token.decode(), self._odds([token]))]) for token in tokens]
            )
        if choice != self._spliced:
            self._before, _, self._after = self._event([self._said(choice, _SPLICE, None)]).partition(_SPLICE_JSON)
            self._spliced = choice
        before, after = self._before, self._after
        if self._escapes:
            tokens = self._escaped(tokens)
        if len(tokens) == 1:
            return before + tokens[0] + after
        return b"".join([before + token + after for token in tokens])

    def closing(self, summary: Summary) -> bytes:
        """The finish reasons, the usage if it was asked for, and the end mark."""
        *others, last = [self._ended(choice, part.finish_reason) for choice, part in enumerate(summary.parts)]
        ended = b"".join([self._event([choice]) for choice in others])
        if not self._asked.include_usage:
            return ended + self._event([last], timings=timings(summary)) + DONE
        account = self._event([], usage=usage_of(summary), timings=timings(summary))
        return ended + self._event([last]) + account + DONE

    def failure(self, message: str) -> bytes:
        """An error event, after which no end mark comes."""
        return b"data: " + refusal(SimRefusedError(500, message, code="internal_error")) + b"\n\n"

    def whole(self, answers: list[list[bytes]], summary: Summary) -> bytes:
        """The answers as one object."""
        choices = [
            self._complete(choice, tokens, part.finish_reason)
            for choice, (tokens, part) in enumerate(zip(answers, summary.parts, strict=True))
        ]
        return msgspec.json.encode(
            {
                "choices": choices,
                **self._about,
                "object": self.whole_object,
                "usage": usage_of(summary),
                "timings": timings(summary),
            }
        )

    def _event(self, choices: list[dict[str, Any]], **more: object) -> bytes:
        event = {"choices": choices, **self._about, "object": self.stream_object, **more}
        return b"data: " + msgspec.json.encode(event) + b"\n\n"

    def _escaped(self, tokens: list[bytes]) -> list[bytes]:
        return escaped(tokens)

    @abstractmethod
    def _odds(self, tokens: list[bytes]) -> Any:
        """The probabilities of some tokens; None when they were not asked for."""

    @abstractmethod
    def _said(self, choice: int, text: str, odds: Any) -> dict[str, Any]:
        """The choice of an event that carries text."""

    @abstractmethod
    def _ended(self, choice: int, finish_reason: str) -> dict[str, Any]:
        """The choice of the event that ends a stream."""

    @abstractmethod
    def _complete(self, choice: int, tokens: list[bytes], finish_reason: str) -> dict[str, Any]:
        """The choice of an answer that is not streamed."""


class ChatForm(_OpenAIForm):
    """`/v1/chat/completions`."""

    id_prefix = "chatcmpl"
    stream_object = "chat.completion.chunk"
    whole_object = "chat.completion"

    def opening(self) -> bytes:
        """Who speaks, for each answer; and the tool that it calls."""
        return b"".join(
            [
                self._event([{"index": choice, "delta": self._first_delta(choice), "finish_reason": None}])
                for choice in range(len(self.questions))
            ]
        )

    def _first_delta(self, choice: int) -> dict[str, Any]:
        if not self._asked.tool:
            return {"role": "assistant", "content": ""}
        return {"role": "assistant", "content": None, "tool_calls": [{"index": 0, **self._call(choice, "")}]}

    def _call(self, choice: int, arguments: str) -> dict[str, Any]:
        function = {"name": self._asked.tool, "arguments": arguments}
        return {"id": f"call_{self._asked.answer_id}{choice}", "type": "function", "function": function}

    def _odds(self, tokens: list[bytes]) -> Any:
        count = self._asked.logprobs
        return None if count is None else {"content": [_odds_of(token, count) for token in tokens], "refusal": None}

    def _said(self, choice: int, text: str, odds: Any) -> dict[str, Any]:
        if self._asked.tool:
            delta: dict[str, Any] = {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}
        else:
            delta = {"content": text}
        said = {"index": choice, "delta": delta, "finish_reason": None}
        return said if odds is None else {**said, "logprobs": odds}

    def _ended(self, choice: int, finish_reason: str) -> dict[str, Any]:
        return {"index": choice, "delta": {}, "finish_reason": self._reason(finish_reason)}

    def _complete(self, choice: int, tokens: list[bytes], finish_reason: str) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": joined(tokens)}
        if self._asked.tool:
            message = {"role": "assistant", "content": None, "tool_calls": [self._call(choice, joined(tokens))]}
        complete = {"index": choice, "message": message, "finish_reason": self._reason(finish_reason)}
        return complete if self._asked.logprobs is None else {**complete, "logprobs": self._odds(tokens)}

    def _reason(self, finish_reason: str) -> str:
        return "tool_calls" if self._asked.tool and finish_reason == "stop" else finish_reason


class CompletionForm(_OpenAIForm):
    """`/v1/completions`."""

    id_prefix = "cmpl"
    stream_object = "text_completion"
    whole_object = "text_completion"

    def opening(self) -> bytes:
        """The prompts, when they are to be repeated."""
        if not self._asked.echo:
            return b""
        prompts = enumerate(question.prompt for question in self.questions)
        return b"".join([self._event([self._said(choice, prompt, None)]) for choice, prompt in prompts])

    def _odds(self, tokens: list[bytes]) -> Any:
        count = self._asked.logprobs
        if count is None:
            return None
        odds = [_odds_of(token, count) for token in tokens]
        starts = [0]
        for token in tokens:
            starts.append(starts[-1] + len(token.decode()))
        return {
            "tokens": [one["token"] for one in odds],
            "token_logprobs": [one["logprob"] for one in odds],
            "top_logprobs": [{top["token"]: top["logprob"] for top in one["top_logprobs"]} for one in odds],
            "text_offset": starts[:-1],
        }

    def _said(self, choice: int, text: str, odds: Any) -> dict[str, Any]:
        return {"text": text, "index": choice, "logprobs": odds, "finish_reason": None}

    def _ended(self, choice: int, finish_reason: str) -> dict[str, Any]:
        return {"text": "", "index": choice, "logprobs": None, "finish_reason": finish_reason}

    def _complete(self, choice: int, tokens: list[bytes], finish_reason: str) -> dict[str, Any]:
        before = self.questions[choice].prompt if self._asked.echo else ""
        return {
            "text": before + joined(tokens),
            "index": choice,
            "logprobs": self._odds(tokens),
            "finish_reason": finish_reason,
        }


def _odds_of(token: bytes, alternatives: int) -> dict[str, Any]:
    """How likely a token was, which is made up from the token itself, and what it was preferred to."""
    text = token.decode()
    seed = blake2b(token, digest_size=1).digest()[0]
    likely = {"token": text, "logprob": -(1 + seed) / 512, "bytes": list(token)}
    others = [
        {"token": f"{text}{number}", "logprob": -1.0 - number, "bytes": [*token, *str(number).encode()]}
        for number in range(1, alternatives)
    ]
    return {**likely, "top_logprobs": [likely, *others] if alternatives else []}

"""The records of a generation, free of any wire format or engine."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec


class Usage(msgspec.Struct, frozen=True):
    """Tokens a finished request used, as the engine counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt tokens, how many came from the engine's cache."""

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question to a model, before it is rendered for an engine's API."""

    text: str
    model: str = ""
    """Empty means the engine's default model."""
    system: str = ""
    max_tokens: int | None = None
    """None leaves the limit to the engine."""
    temperature: float | None = None
    """0 is a value (greedy decoding); None leaves it to the engine."""


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of generated text, usually one token."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of every complete generation. A stream without it was cut."""

    usage: Usage
    finish_reason: str
    """`stop` or `length`."""
    model: str
    inference_time_ms: int
    """Milliseconds of prompt processing and decoding, without queueing, as the engine reports them."""


GenerationEvent = Token | Finished

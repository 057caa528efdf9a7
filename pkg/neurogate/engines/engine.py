"""What a worker needs of an inference engine.

An engine takes the client's own bytes (`forward`) and gives its own bytes back, so nothing on the way re-serialises a
token; `generate` is the same thing for callers without an OpenAI body. Everything an engine can do wrong is one of the
errors below: the worker maps them to the link's end codes and decides nothing else by exception type.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import msgspec

from neurogate.channel import Resume
from neurogate.inference import GenerationEvent, Prompt

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Where nothing else is set."""

FEATURES = frozenset(
    {
        "n", "best_of", "logprobs", "echo", "suffix", "images", "audio", "tools",
        "json_schema", "json_object", "grammar",
    }
)  # fmt: skip
"""What a request may ask for that not every engine does. A request that asks for one an engine would ignore is refused
by the worker, so that no client mistakes an ordinary answer for what it asked for."""


class EngineError(Exception):
    """Base of everything an engine can do wrong. The text is written for the person who runs the worker."""


class EngineUnavailableError(EngineError):
    """It could not be reached, died before answering, or is still loading: another worker may do better."""


class EngineBrokenError(EngineError):
    """It broke off, stalled or reported an error after its answer had begun."""


class AnswerTooLargeError(EngineBrokenError):
    """Its answer is larger than what the worker holds of one."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the engine's answer is larger than the worker's NEUROGATE_MAX_ANSWER_BYTES, {limit}")


class EngineRefusedError(EngineError):
    """The request was refused with an HTTP error status before the first token."""

    def __init__(self, status: int, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class EngineUnsupportedError(EngineError):
    """It has no such API."""


class EngineFatalError(EngineError):
    """It can never start as configured, for example because the model file is missing. The worker must exit."""


class EngineCall(msgspec.Struct, frozen=True):
    """One request as the client sent it. A Struct, like its reply: built in C, once per request of the hot path."""

    path: str
    """The HTTP path, for example `/v1/chat/completions`."""
    body: bytes
    request_id: str = ""
    max_answer_bytes: int = MAX_ANSWER_BYTES
    """Bound of an answer that the engine's client must hold whole: past it, AnswerTooLargeError."""


class PushedBody(AsyncIterator[bytes]):
    """The bytes of an answer that can be pushed as they arrive, without waking a task for each piece."""

    __slots__ = ()

    @abstractmethod
    async def pump(self, take: Callable[[bytes], bool]) -> bool:
        """Call `take` with each piece where it arrives, until the end or until it says False: then there may be more.

        Raises as the iterator does, and what `take` raises.
        """


async def pump(body: AsyncIterator[bytes], take: Callable[[bytes], bool]) -> bool:
    """The same for any body."""
    if isinstance(body, PushedBody):
        return await body.pump(take)
    async for piece in body:
        if not take(piece):
            return True
    return False


class EngineReply(msgspec.Struct, frozen=True):
    """The engine's answer as it arrives."""

    status: int
    content_type: str
    """Without parameters, for example `text/event-stream`."""
    body: AsyncIterator[bytes]
    """Bytes as they arrive. Raises EngineBrokenError when the engine breaks off at the transport level."""
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model the engine can serve."""

    name: str
    loaded: bool = True
    context_length: int = 0
    """Tokens; 0 when unknown."""
    family: str = ""
    """Its architecture, for example `llama`; empty when unknown, like all that follows."""
    parameters: int = 0
    quantization: str = ""
    """For example `Q4_1`."""
    size_bytes: int = 0
    digest: str = ""
    """What identifies its data."""
    template: str = ""
    """How it renders a conversation, in the engine's own template language."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What the engine says of itself, asked about once a second."""

    ready: bool
    detail: str = ""
    """Why it is not ready; empty when it is."""
    version: str = ""
    models: tuple[ModelInfo, ...] = ()
    slots_total: int = 0
    """0 when the engine does not tell, nor its settings."""
    slots_busy: int | None = None
    """None when the engine does not tell."""
    queued: int | None = None
    """None when the engine does not tell."""
    kv_used_ratio: float | None = None
    restarts: int = 0
    """How often a managed engine was restarted after it died."""
    apis: frozenset[str] = frozenset()
    """The non-universal paths of `neurogate.operations` that `forward` takes, as the engine is configured."""
    resumes: frozenset[str] = frozenset()
    """The paths of `neurogate.operations` whose answers `resume` can continue, of those that `forward` takes."""
    work_done: int | None = None
    """Grows whenever the engine computes anything, prompts included: its sign of life while it is silent.
    None when the engine does not tell."""
    step_tokens: int = 512
    """Tokens of a prompt that it computes at once: within such a step `work_done` stands still."""
    prompt_tokens_per_s: float | None = None
    """How fast it has computed prompts so far, what it took from caches aside. None when it does not tell."""
    generates: bool = True
    """Its model generates text; not one that only embeds or reranks."""
    canaries: bool = True
    """It may be asked for a token though no user asks: that costs nothing, loads no model and keeps none loaded."""
    deaths: tuple[tuple[str, int], ...] = ()
    """How often a managed engine's process died, by cause."""
    loading: bool = False
    """It is not ready because it loads, or is about to be started again: it will be by itself."""
    last_words: str = ""
    """What it said when it last died, until it is ready again: for the person who runs the worker."""
    unsupported: frozenset[str] = frozenset()
    """Features that a request may ask for and this engine would ignore without a word, out of FEATURES."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that an engine has in memory."""

    name: str
    size_bytes: int
    """In all."""
    gpu_bytes: int
    """Of that, in memory of GPUs."""
    expires_at: float | None = None
    """Unix time at which it is unloaded unless it is asked again; None when the engine does not tell."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What an engine counts of itself, for whoever collects metrics."""

    text: bytes = b""
    """Its metrics in Prometheus' text format, as it writes them; empty when it has none."""
    loaded: tuple[LoadedModel, ...] = ()
    """Models in its memory, where it tells about memory."""


class Engine(Protocol):
    """One engine, driven by one worker, on one event loop.

    `start` returns when the engine is under way, not when it is ready: readiness is what `observe` tells. `stop` is
    idempotent, leaves no process, task or socket behind, and may be called at any time after construction.
    """

    @property
    def kind(self) -> str:
        """`llamacpp`, `llama-server`, `ollama`, `openai` or `sim`."""
        ...

    async def start(self) -> None:
        """Begin. Raises EngineFatalError when the configuration can never work."""
        ...

    async def run(self) -> None:
        """Supervise until cancelled. Engines without anything to supervise just wait.

        Raises EngineFatalError when the engine turns out never to be able to start.
        """
        ...

    async def stop(self) -> None:
        """End everything `start` began."""
        ...

    async def observe(self) -> Observation:
        """Ask the engine how it is. Never raises for an engine that is down: that is an observation."""
        ...

    async def figures(self) -> Figures:
        """What it counts of itself; asked when somebody collects metrics, once a second at most.

        Never raises for an engine that is down or does not tell: then there are none.
        """
        ...

    def forward(self, call: EngineCall) -> AbstractAsyncContextManager[EngineReply]:
        """Send the client's bytes and give the engine's bytes back.

        Leaving the context early, or cancelling the task inside it, aborts the engine's generation and frees its slot.
        Raises EngineUnavailableError before the reply's head, EngineUnsupportedError for an API it has not, and
        EngineRefusedError for a request that the engine would get wrong.
        """
        ...

    def resume(self, call: EngineCall, said: Resume) -> AsyncGenerator[GenerationEvent, None]:
        """Continue an answer to `call` where another engine stopped: text that follows `said.text`, then Finished.

        The usage of Finished is that of the whole answer, both parts; its finish reason is in the words of OpenAI's
        API. Where `said.finish_reason` is set the text is whole: then Finished alone comes, for the usage.

        Closing the generator aborts the generation. Raises as `generate` does, and EngineUnsupportedError for what
        cannot be continued faithfully.
        """
        ...

    async def heal(self, reason: str) -> bool:
        """End a process that hangs, for `reason`, so that another one takes its place.

        False when there is nothing that can be done from here, as for an engine that somebody else runs.
        """
        ...

    def generate(self, prompt: Prompt) -> AsyncGenerator[GenerationEvent, None]:
        """Generate text for one prompt; the last event is Finished.

        Closing the generator aborts the generation. Raises EngineUnavailableError or EngineRefusedError before the
        first event, EngineBrokenError after it, and for a stream that ended without the engine's own end mark.
        """
        ...

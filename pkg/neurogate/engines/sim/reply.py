"""From a question to the bytes of its answer, for every API the simulated engine speaks.

The one idea: APIs differ in how they write an answer, never in how they give it. A `Form` writes; `reply` admits the
question, waits for the first token before it commits to a status, owns the slot for as long as its context is open,
and turns every fault into what a real engine's client would see.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import msgspec

from neurogate.engines.engine import EngineBrokenError, EngineReply, EngineUnavailableError
from neurogate.engines.sim.core import Generation, Question, SimCore, SimRefusedError, Summary
from neurogate.engines.sim.faults import Break
from neurogate.engines.sim.scheduler import StoppedError
from neurogate.prompt_api import UNDECODABLE

RequestT = TypeVar("RequestT")

JSON_TYPE = "application/json"
FAILED_MESSAGE = "simulated failure (fault error_after)"


class Form(Protocol):
    """How one API writes the answer to one request."""

    questions: list[Question]
    """What is asked, one for each answer."""
    streamed: bool
    stream_type: str
    """Content type of a streamed answer."""

    def opening(self) -> bytes:
        """What comes before the first token of a stream."""
        ...

    def tokens(self, tokens: list[bytes], choice: int) -> bytes:
        """The events of some tokens, at least one, of one of the answers."""
        ...

    def closing(self, summary: Summary) -> bytes:
        """The end of a complete stream."""
        ...

    def failure(self, message: str) -> bytes:
        """The event that ends a stream which failed."""
        ...

    def whole(self, answers: list[list[bytes]], summary: Summary) -> bytes:
        """What is not streamed: the tokens of each answer."""
        ...


@dataclass(frozen=True, slots=True)
class Computed:
    """An answer without tokens: it takes the time of its prompts."""

    prompts: list[str]
    told: Callable[[Summary], object]
    """The object that answers, once the prompts were processed."""


@asynccontextmanager
async def reply(
    core: SimCore, opened: Callable[[], Form | Computed | bytes], refusal: Callable[[SimRefusedError], bytes]
) -> AsyncIterator[EngineReply]:
    """Answer one request. Leaving the context frees its slot.

    `opened` reads the request, and may answer it at once with bytes of JSON; it may raise SimRefusedError, which
    `refusal` writes. Raises EngineUnavailableError when the engine is not ready, or stops before the reply's head.
    """
    with ExitStack() as owned:
        try:
            form = opened()
            if isinstance(form, bytes):
                answered = EngineReply(200, JSON_TYPE, _once(form))
            elif isinstance(form, Computed):
                generation = owned.enter_context(core.begin(*(Question(prompt, 0) for prompt in form.prompts)))
                await generation.more()
                answered = EngineReply(200, JSON_TYPE, _once(msgspec.json.encode(form.told(generation.summary()))))
            else:
                generation = owned.enter_context(core.begin(*form.questions))
                answered = await (_streamed if form.streamed else _whole)(generation, form)
        except SimRefusedError as error:
            answered = EngineReply(error.status, JSON_TYPE, _once(refusal(error)), retry_after_s=error.retry_after_s)
        except StoppedError as error:
            raise EngineUnavailableError(str(error)) from error
        yield answered


def read_json(decoder: msgspec.json.Decoder[RequestT], body: bytes) -> RequestT:
    """A request's body as its struct.

    Raises SimRefusedError (400) that names the field.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at ")
        field = path.strip("`").removeprefix("$.")
        named = f"{field}: {message}" if field else message
        raise SimRefusedError(400, named, code="invalid_request", param=field or None) from error
    except UNDECODABLE as error:
        raise SimRefusedError(400, f"the body is not valid JSON: {error}", code="invalid_request") from error


async def _streamed(generation: Generation, form: Form) -> EngineReply:
    first = await generation.more()
    return EngineReply(200, form.stream_type, _events(generation, form, first))


async def _events(generation: Generation, form: Form, tokens: list[bytes]) -> AsyncIterator[bytes]:
    opening = form.opening()
    try:
        while tokens:
            yield opening + form.tokens(tokens, generation.choice)
            opening = b""
            tokens = await generation.more()
    except StoppedError as error:
        raise EngineBrokenError(str(error)) from error
    if generation.breaks is Break.ERROR:
        yield form.failure(FAILED_MESSAGE)
    elif generation.breaks is not Break.CUT:
        yield opening + form.closing(generation.summary())


async def _whole(generation: Generation, form: Form) -> EngineReply:
    said: list[list[bytes]] = [[] for _ in generation.parts]
    while tokens := await generation.more():
        said[generation.choice] += tokens
    if generation.breaks is Break.ERROR:
        raise SimRefusedError(500, FAILED_MESSAGE, code="internal_error")
    body = form.whole(said, generation.summary())
    return EngineReply(200, JSON_TYPE, _cut(body) if generation.breaks is Break.CUT else _once(body))


def joined(tokens: list[bytes]) -> str:
    """The text of an answer's tokens."""
    return b"".join(tokens).decode()


def escaped(tokens: list[bytes]) -> list[bytes]:
    """Tokens as they stand inside a JSON string."""
    return [msgspec.json.encode(token.decode())[1:-1] for token in tokens]


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _cut(body: bytes) -> AsyncIterator[bytes]:
    yield body[: len(body) // 2]
    raise EngineBrokenError("the simulated engine broke off (fault cut_after)")

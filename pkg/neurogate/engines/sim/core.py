"""The simulated engine itself, free of any API: it admits a question and gives its answer, token by token.

The one idea: an answer is planned when its request is admitted (its text, its length, the fault that will end it), and
what is left is time, which the scheduler keeps. The APIs on top only write down what a `Generation` says. A request
with several answers is one job: they are said one after the other.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from neurogate.engines.engine import EngineRefusedError, EngineUnavailableError, EngineUnsupportedError
from neurogate.engines.settings import SimSettings
from neurogate.engines.sim import faults, tokenizer
from neurogate.engines.sim.faults import Break
from neurogate.engines.sim.scheduler import Job, QueueFullError, Scheduler, StoppedError
from neurogate.engines.sim.text import answer_to, place_after, rest_of
from neurogate.inference import Usage

LOADING = "Loading model"
CONTEXT_TOKENS = 1 << 20
"""Prompt and answer together, in each slot. Large, because nothing is stored for it."""

_BUSY_RETRY_AFTER_S = 1.0
_EXIT_CODE = 70  # EX_SOFTWARE
# A consumer that lags gets at most this many tokens at once, which bounds what one write holds.
_TOKENS_AT_ONCE_MAX = 64
# Stop texts are looked for in so much of an answer; only one that ignores its natural end can be longer.
_STOPPABLE_TOKENS_MAX = 4096
_FIXED_CREATED = 1_700_000_000


class SimRefusedError(EngineRefusedError):
    """A refusal that every API can write in its own words."""

    def __init__(
        self, status: int, message: str, *, code: str, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(status, message, retry_after_s=retry_after_s)
        self.code = code
        self.param = param


@dataclass(frozen=True, slots=True)
class Question:
    """What an engine is asked, once an API's wrapping is off."""

    prompt: str
    """As the model sees it, with the chat template applied."""
    max_tokens: int | None = None
    """None ends the answer where it ends by itself."""
    ignore_eos: bool = False
    """Go on past the natural end, up to max_tokens."""
    stop: tuple[str, ...] = ()
    """Texts before which the answer ends."""
    says: str | None = None
    """What the answer must be, in place of made-up text."""
    variant: int = 0
    """Another answer to the same prompt for each; only the first one's prompt is processed."""


@dataclass(frozen=True, slots=True)
class Part:
    """One answer as planned."""

    token: Callable[[int], bytes]
    """Its tokens, counted from 0: text as UTF-8."""
    length: int
    finish_reason: str
    """`stop` or `length`."""
    stopped_by: str = ""
    """The stop text that ended it."""
    plain: bool = True
    """No token holds anything that JSON escapes."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What there is to tell about an answer once it was given."""

    usage: Usage
    parts: tuple[Part, ...]
    """The answers, of which there is at least one."""
    slot: int
    prefill_s: float
    decode_s: float
    total_s: float
    """With the time in the queue."""

    @property
    def finish_reason(self) -> str:
        """That of the first answer."""
        return self.parts[0].finish_reason


class Generation:
    """An admitted answer while it is given. Leave its context to free its slot."""

    __slots__ = (
        "_exit_process",
        "_job",
        "_nominal",
        "_part_end",
        "_slow_after",
        "_taken",
        "_token_every_s",
        "breaks",
        "choice",
        "parts",
    )

    def __init__(
        self,
        job: Job,
        parts: tuple[Part, ...],
        *,
        breaks: Break | None,
        exit_process: Callable[[int], None],
        nominal: tuple[float, float] | None,
        slow_after: int,
        token_every_s: float,
    ) -> None:
        self.parts = parts
        """The answers, said one after the other."""
        self.choice = 0
        """Which of them the tokens given last belong to."""
        self.breaks = breaks
        """How the answer ends before it is complete; None when it will be."""
        self._job = job
        self._taken = 0
        self._part_end = parts[0].length
        self._exit_process = exit_process
        self._nominal = nominal
        self._slow_after = slow_after
        self._token_every_s = token_every_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._job.__exit__(exc_type, exc, traceback)

    @property
    def taken(self) -> int:
        """Tokens given so far."""
        return self._taken

    async def more(self) -> list[bytes]:
        """The tokens said since the last call, at least one and all of one `choice`; none once all answers ended.

        Raises StoppedError when the engine was stopped, or exits, before the answer ended.
        """
        taken = self._taken
        if (drags := taken >= self._slow_after) and taken < self._job.length:
            await asyncio.sleep(self._token_every_s)
        elif drags and self.breaks is not Break.HANG:
            self._job.__exit__(None, None, None)  # it kept its slot for the time that the tokens took
        said = await self._job.more_than(taken)
        if said == taken and self.breaks is Break.EXIT:
            self._exit_process(_EXIT_CODE)
            raise StoppedError("the simulated engine exited (fault exit_after)")
        if said == taken:
            return []
        while taken >= self._part_end:
            self.choice += 1
            self._part_end += self.parts[self.choice].length
        at_once = 1 if drags else min(_TOKENS_AT_ONCE_MAX, self._slow_after - taken)
        self._taken = min(said, taken + at_once, self._part_end)
        part = self.parts[self.choice]
        first = self._part_end - part.length
        token = part.token
        return [token(index) for index in range(taken - first, self._taken - first)]

    def summary(self) -> Summary:
        """What there is to tell, once the answer ended."""
        job = self._job
        usage = Usage(prompt_tokens=job.prompt_tokens, completion_tokens=job.said)
        if self._nominal is not None:
            prefill_s, decode_s = self._nominal
            return Summary(usage, self.parts, 0, prefill_s, decode_s, prefill_s + decode_s)
        return Summary(
            usage=usage,
            parts=self.parts,
            slot=job.slot,
            prefill_s=job.decoding_at - job.started_at,
            decode_s=job.ended_at - job.decoding_at,
            total_s=job.ended_at - job.queued_at,
        )


@dataclass(frozen=True, slots=True)
class Resumed:
    """The rest of an answer that another engine began."""

    usage: Usage
    """Of the whole answer."""
    finish_reason: str
    left: int
    """Tokens that are to come."""
    begin: Callable[[], Generation]
    """Takes a slot and gives the rest; for an answer that is whole there is no need to. Raises SimRefusedError."""


class SimCore:
    """One simulated engine on one event loop.

    `rng` decides faults only, `now` is the wall clock in Unix seconds, `exit_process` ends the process for the fault
    exit_after. Raises ConfigError for faults that do not exist.
    """

    def __init__(
        self,
        settings: SimSettings,
        *,
        model: str,
        rng: random.Random,
        now: Callable[[], float],
        exit_process: Callable[[int], None] = os._exit,
    ) -> None:
        self.model = model
        self.now: Callable[[], float] = (lambda: float(_FIXED_CREATED)) if settings.deterministic else now
        """Unix seconds, for whatever says when it was made."""
        self.scheduler = Scheduler(
            slots=settings.slots, prefill_tps=settings.prefill_tps, decode_tps=settings.decode_tps
        )
        self._faults = faults.parse(settings.faults)
        self._rng = rng
        self._exit_process = exit_process
        self._settings = settings
        self._started_at: float | None = None
        self._stopped = False

    def start(self) -> None:
        """Begin to load. Idempotent."""
        if self._started_at is None:
            self._started_at = asyncio.get_running_loop().time()

    def stop(self) -> None:
        """Abort what is running and take nothing more. Idempotent."""
        self._stopped = True
        self.scheduler.close()

    def unready_reason(self) -> str:
        """Why no request can be taken now; empty when one can."""
        if self._stopped:
            return "Stopped"
        if self._started_at is None:
            return "Not started"
        if self._faults.refuse:
            return "Refusing (fault refuse)"
        if asyncio.get_running_loop().time() < self._started_at + self._faults.slow_start_s:
            return LOADING
        return ""

    def knows(self, model: str) -> bool:
        """Whether a request may name this model. An empty name is the only one there is."""
        return not model or model.removesuffix(":latest") == self.model.removesuffix(":latest")

    def begin(self, *questions: Question) -> Generation:
        """Admit questions that are answered together, at least one.

        Raises EngineUnavailableError when not ready, and SimRefusedError.
        """
        self._take()
        counts = [tokenizer.count(question.prompt) for question in questions]
        parts = tuple(_planned(question, count) for question, count in zip(questions, counts, strict=True))
        prompt_tokens = sum(count for question, count in zip(questions, counts, strict=True) if not question.variant)
        return self._given(parts, prompt_tokens)

    def resume(self, question: Question, said: str) -> Resumed:
        """Admit the rest of the answer that began with `said`: from there on it is what it would have been.

        Raises as `begin` does, and EngineUnsupportedError when the answer would not have begun so.
        """
        self._take()
        prompt_tokens = tokenizer.count(question.prompt)
        whole = _planned(question, prompt_tokens)
        place = place_after(said, whole.token, whole.length)
        if place is None:
            raise EngineUnsupportedError("the simulated engine would not have begun its answer so")
        left = whole.length - place.token
        rest = replace(whole, token=rest_of(whole.token, place), length=left)
        usage = Usage(prompt_tokens, whole.length)
        return Resumed(usage, whole.finish_reason, left, lambda: self._given((rest,), prompt_tokens + place.token))

    def _take(self) -> None:
        """Raise what keeps a request from being admitted, faults among it."""
        if reason := self.unready_reason():
            raise EngineUnavailableError(reason)
        match self._faults.draw(self._rng):
            case "error":
                raise SimRefusedError(500, "simulated failure (fault error)", code="internal_error")
            case "busy":
                raise _busy("simulated load (fault busy)")

    def _given(self, parts: tuple[Part, ...], prompt_tokens: int) -> Generation:
        """Give these answers, which are planned."""
        length, breaks = self._faults.breaks(sum(part.length for part in parts))
        slow_after = sys.maxsize if self._faults.slow_after is None else self._faults.slow_after
        try:
            job = self.scheduler.submit(prompt_tokens, length, stays=breaks is Break.HANG or slow_after <= length)
        except QueueFullError as error:
            raise _busy("server busy, please try again.  maximum pending requests exceeded") from error
        return Generation(
            job,
            parts,
            breaks=breaks,
            exit_process=self._exit_process,
            nominal=self._nominal(prompt_tokens, length),
            slow_after=slow_after,
            token_every_s=self._faults.token_every_s,
        )

    def _nominal(self, prompt_tokens: int, length: int) -> tuple[float, float] | None:
        """What prefill and decoding take by the settings, in seconds, when that is to be told; None for a stopwatch."""
        settings = self._settings
        if not settings.deterministic:
            return None
        prefill_s = prompt_tokens / settings.prefill_tps if settings.prefill_tps else 0.0
        return prefill_s, length / settings.decode_tps if settings.decode_tps else 0.0


def _planned(question: Question, prompt_tokens: int) -> Part:
    room = CONTEXT_TOKENS - prompt_tokens
    if room < 0:
        message = f"the request has {prompt_tokens} tokens, the context holds {CONTEXT_TOKENS}"
        raise SimRefusedError(400, message, code="exceed_context_size_error")
    limit = room if question.max_tokens is None else min(question.max_tokens, room)
    if question.says is not None:
        return _stopped(_spoken(question.says, limit), question.stop)
    answer, begun = answer_to(question.prompt, question.variant)
    natural = room if question.ignore_eos else max(0, answer.natural_tokens - begun.token)
    finish_reason = "stop" if natural <= limit and not question.ignore_eos else "length"
    return _stopped(Part(rest_of(answer.token, begun), min(natural, limit), finish_reason), question.stop)


def _spoken(says: str, limit: int) -> Part:
    tokens = [piece.encode() for piece in tokenizer.pieces(says)]
    finish_reason = "stop" if len(tokens) <= limit else "length"
    return Part(tokens.__getitem__, min(len(tokens), limit), finish_reason, plain=False)


def _stopped(part: Part, stops: Sequence[str]) -> Part:
    """The part up to the first of the stop texts in it."""
    wanted = [stop for stop in stops if stop]
    if not wanted:
        return part
    said = ""
    longest = max(map(len, wanted))
    kept: list[bytes] = []
    for index in range(min(part.length, _STOPPABLE_TOKENS_MAX)):
        token = part.token(index)
        seam = max(0, len(said) - longest)
        said += token.decode()
        found = [(at, stop) for stop in wanted if (at := said.find(stop, seam)) >= 0]
        kept.append(token)
        if found:
            at, stop = min(found, key=lambda hit: hit[0])
            return _cut(kept, at, stop, plain=part.plain)
    return part


def _cut(tokens: list[bytes], characters: int, stop: str, *, plain: bool) -> Part:
    kept: list[bytes] = []
    for token in tokens:
        piece = token.decode()[: characters - sum(len(one.decode()) for one in kept)]
        if not piece:
            break
        kept.append(piece.encode())
    return Part(kept.__getitem__, len(kept), "stop", stopped_by=stop, plain=plain)


def _busy(message: str) -> SimRefusedError:
    return SimRefusedError(503, message, code="engine_busy", retry_after_s=_BUSY_RETRY_AFTER_S)

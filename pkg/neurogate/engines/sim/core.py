"""The simulated engine itself, free of any API: it admits a question and gives its answer, token by token.

The one idea: an answer is planned when its request is admitted (its text, its length, the fault that will end it), and
what is left is time, which the scheduler keeps. The APIs on top only write down what a `Generation` says.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from neurogate.engines.engine import EngineRefusedError, EngineUnavailableError
from neurogate.engines.settings import SimSettings
from neurogate.engines.sim import faults, tokenizer
from neurogate.engines.sim.faults import Break
from neurogate.engines.sim.scheduler import Job, QueueFullError, Scheduler, StoppedError
from neurogate.engines.sim.text import Answer, answer_to
from neurogate.inference import Usage

CONTEXT_TOKENS = 1 << 20
"""Prompt and answer together, in each slot. Large, because nothing is stored for it."""

_BUSY_RETRY_AFTER_S = 1.0
_EXIT_CODE = 70  # EX_SOFTWARE
# A consumer that lags gets at most this many tokens at once, which bounds what one write holds.
_TOKENS_AT_ONCE_MAX = 64


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


@dataclass(frozen=True, slots=True)
class Summary:
    """What there is to tell about an answer once it was given."""

    usage: Usage
    finish_reason: str
    """`stop` or `length`."""
    slot: int
    prefill_s: float
    decode_s: float
    total_s: float
    """With the time in the queue."""


class Generation:
    """An admitted answer while it is given. Leave its context to free its slot."""

    __slots__ = ("_answer", "_exit_process", "_finish_reason", "_first", "_job", "_taken", "breaks")

    def __init__(
        self,
        job: Job,
        answer: Answer,
        *,
        first: int,
        finish_reason: str,
        breaks: Break | None,
        exit_process: Callable[[int], None],
    ) -> None:
        self.breaks = breaks
        """How the answer ends before it is complete; None when it will be."""
        self._job = job
        self._answer = answer
        self._first = first
        self._taken = 0
        self._finish_reason = finish_reason
        self._exit_process = exit_process

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
        """The tokens said since the last call, at least one; none once the answer ended.

        Raises StoppedError when the engine was stopped, or exits, before the answer ended.
        """
        taken = self._taken
        said = await self._job.more_than(taken)
        if said == taken and self.breaks is Break.EXIT:
            self._exit_process(_EXIT_CODE)
            raise StoppedError("the simulated engine exited (fault exit_after)")
        self._taken = min(said, taken + _TOKENS_AT_ONCE_MAX)
        token = self._answer.token
        first = self._first
        return [token(first + index) for index in range(taken, self._taken)]

    def summary(self) -> Summary:
        """What there is to tell, once the answer ended."""
        job = self._job
        return Summary(
            usage=Usage(prompt_tokens=job.prompt_tokens, completion_tokens=job.said),
            finish_reason=self._finish_reason,
            slot=job.slot,
            prefill_s=job.decoding_at - job.started_at,
            decode_s=job.ended_at - job.decoding_at,
            total_s=job.ended_at - job.queued_at,
        )


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
        self.now = now
        self.scheduler = Scheduler(
            slots=settings.slots, prefill_tps=settings.prefill_tps, decode_tps=settings.decode_tps
        )
        self._faults = faults.parse(settings.faults)
        self._rng = rng
        self._exit_process = exit_process
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
            return "Loading model"
        return ""

    def knows(self, model: str) -> bool:
        """Whether a request may name this model. An empty name is the only one there is."""
        return not model or model.removesuffix(":latest") == self.model.removesuffix(":latest")

    def begin(self, question: Question) -> Generation:
        """Admit a question.

        Raises EngineUnavailableError when not ready, and SimRefusedError.
        """
        if reason := self.unready_reason():
            raise EngineUnavailableError(reason)
        match self._faults.draw(self._rng):
            case "error":
                raise SimRefusedError(500, "simulated failure (fault error)", code="internal_error")
            case "busy":
                raise _busy("simulated load (fault busy)")
        prompt_tokens = tokenizer.count(question.prompt)
        room = CONTEXT_TOKENS - prompt_tokens
        if room < 0:
            message = f"the request has {prompt_tokens} tokens, the context holds {CONTEXT_TOKENS}"
            raise SimRefusedError(400, message, code="exceed_context_size_error")
        answer, first = answer_to(question.prompt)
        natural = room if question.ignore_eos else max(0, answer.natural_tokens - first)
        limit = room if question.max_tokens is None else min(question.max_tokens, room)
        finish_reason = "stop" if natural <= limit and not question.ignore_eos else "length"
        length, breaks = self._faults.breaks(min(natural, limit))
        try:
            job = self.scheduler.submit(prompt_tokens, length, stays=breaks is Break.HANG)
        except QueueFullError as error:
            raise _busy("server busy, please try again.  maximum pending requests exceeded") from error
        return Generation(
            job,
            answer,
            first=first,
            finish_reason=finish_reason,
            breaks=breaks,
            exit_process=self._exit_process,
        )


def _busy(message: str) -> SimRefusedError:
    return SimRefusedError(503, message, code="engine_busy", retry_after_s=_BUSY_RETRY_AFTER_S)

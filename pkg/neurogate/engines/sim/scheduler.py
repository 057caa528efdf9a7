"""Time in the simulated engine: slots, prefill and decode steps, as a batching engine spends them.

The one idea: one decode step gives one token to every active slot, in lockstep. A step is a timer callback, not a
task: it only counts, and wakes the consumers that wait. What is counted need not be buffered, because a token is a
pure function of its index, so a consumer that lags takes several at once and costs no memory.

Invariants: a slot belongs to one job from its start until its release; requests beyond the slots wait first in, first
out; releasing is idempotent and hands the slot on at once.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict
from dataclasses import dataclass
from types import TracebackType
from typing import Self

# A loop that was held up catches up step by step, so that the decode rate holds. One this far behind was stopped.
_CATCH_UP_MAX_S = 1.0
_STEP_TOKENS = 512


class QueueFullError(Exception):
    """Every slot is taken and so is every place in the queue."""


class StoppedError(Exception):
    """The engine stopped before the job ended."""


@dataclass(slots=True)
class Totals:
    """What the scheduler has done since it was made."""

    prompt_tokens: int = 0
    prompt_s: float = 0.0
    """Seconds of prefill, of all slots together."""
    decoded_tokens: int = 0
    decoded_s: float = 0.0
    """Seconds of decoding of the jobs that ended, of all slots together."""
    steps: int = 0
    sequence_tokens_max: int = 0
    """Longest prompt with its answer so far."""


class Job:
    """One request's stay in the scheduler. Leave its context to release it, whatever it was doing.

    Times are those of the loop, and mean nothing before they come. `slot` is -1 until there is one.
    """

    __slots__ = (
        "_scheduler",
        "_waiter",
        "aborted",
        "decoding_at",
        "ended",
        "ended_at",
        "length",
        "prefilled",
        "prompt_tokens",
        "queued_at",
        "said",
        "slot",
        "started_at",
        "stays",
        "timer",
    )

    def __init__(self, scheduler: Scheduler, prompt_tokens: int, length: int, *, stays: bool, queued_at: float) -> None:
        self._scheduler = scheduler
        self._waiter: asyncio.Future[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.prompt_tokens = prompt_tokens
        self.length = length
        self.stays = stays
        self.said = 0
        self.slot = -1
        self.ended = False
        self.aborted = False
        self.prefilled = False
        self.queued_at = queued_at
        self.started_at = queued_at
        self.decoding_at = queued_at
        self.ended_at = queued_at

    def __repr__(self) -> str:
        return f"<Job slot={self.slot} said={self.said}/{self.length} ended={self.ended}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._scheduler.release(self)

    @property
    def hangs_at_once(self) -> bool:
        """Whether it takes a slot and never says anything."""
        return self.stays and not self.length

    async def more_than(self, seen: int) -> int:
        """Wait until more than `seen` tokens were said, or the job ended; return how many were said.

        For one consumer. Raises StoppedError when the scheduler was closed before the job ended.
        """
        while self.said <= seen and not self.ended:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self.aborted:
            raise StoppedError("the simulated engine was stopped")
        return self.said

    def wake(self) -> None:
        """Let the consumer look again."""
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)


class Scheduler:
    """Runs jobs on a fixed number of slots.

    `prefill_tps` is prompt tokens a second one slot processes and `decode_tps` tokens a second each active slot says;
    0 is instant, which still gives the loop a turn for every token. `queue_max` requests may wait.
    """

    def __init__(self, *, slots: int, prefill_tps: float, decode_tps: float, queue_max: int = 4096) -> None:
        self.jobs: list[Job | None] = [None] * slots
        """What each slot does."""
        self.totals = Totals()
        self._prefilled_tokens = 0
        self._free = list(range(slots))
        self._waiting: OrderedDict[Job, None] = OrderedDict()
        self._decoding: dict[Job, None] = {}
        self._queue_max = queue_max
        self._prefill_tps = prefill_tps
        self._step_s = 1 / decode_tps if decode_tps else 0.0
        self._due_at = 0.0
        self._step_handle: asyncio.Handle | None = None

    def __repr__(self) -> str:
        return f"<Scheduler {self.busy}/{len(self.jobs)} busy, {self.queued} queued>"

    @property
    def busy(self) -> int:
        """Slots taken."""
        return len(self.jobs) - len(self._free)

    @property
    def queued(self) -> int:
        """Jobs waiting for a slot."""
        return len(self._waiting)

    @property
    def tokens_held(self) -> int:
        """Tokens in the cache of all slots together."""
        return sum(job.prompt_tokens + job.said for job in self.jobs if job is not None)

    @property
    def work_done(self) -> int:
        """Tokens computed; of prompts under way in whole steps of 512, as llama.cpp counts.

        A job that hangs from its beginning computes nothing.
        """
        partly = sum(self._computed(job) for job in self.jobs if job is not None)
        return partly + self._prefilled_tokens + self.totals.decoded_tokens

    def submit(self, prompt_tokens: int, length: int, *, stays: bool = False) -> Job:
        """Begin a job that says `length` tokens; one that `stays` then keeps its slot, silent, until released.

        Raises QueueFullError.
        """
        if not self._free and len(self._waiting) >= self._queue_max:
            raise QueueFullError(f"{self._queue_max} requests are waiting")
        job = Job(self, prompt_tokens, length, stays=stays, queued_at=asyncio.get_running_loop().time())
        self._waiting[job] = None
        self._start_waiting()
        return job

    def release(self, job: Job) -> None:
        """End a job in whatever state it is, and give its slot to the next one. Idempotent."""
        if job.ended:
            return
        now = asyncio.get_running_loop().time()
        job.ended = True
        job.ended_at = now
        job.wake()
        if job.slot < 0:
            del self._waiting[job]
            return
        if job.timer is not None:
            job.timer.cancel()
        self._decoding.pop(job, None)
        if not self._decoding and self._step_handle is not None:
            self._step_handle.cancel()
            self._step_handle = None
        if job.prefilled:
            self.totals.decoded_s += now - job.decoding_at
        else:
            self._prefilled_tokens += self._computed(job)
        self.jobs[job.slot] = None
        heapq.heappush(self._free, job.slot)
        self._start_waiting()

    def close(self) -> None:
        """Abort every job: its consumer gets StoppedError."""
        jobs = [*self._waiting, *(job for job in self.jobs if job is not None)]
        for job in jobs:
            job.aborted = True
            self.release(job)

    def _computed(self, job: Job) -> int:
        """Tokens of the prompt's steps that are over, while it is under way."""
        if job.prefilled or job.hangs_at_once:
            return 0
        tokens = int((asyncio.get_running_loop().time() - job.started_at) * self._prefill_tps)
        return max(0, min(job.prompt_tokens - 1, tokens)) // _STEP_TOKENS * _STEP_TOKENS

    def _start_waiting(self) -> None:
        while self._free and self._waiting:
            job, _ = self._waiting.popitem(last=False)
            loop = asyncio.get_running_loop()
            job.slot = heapq.heappop(self._free)
            job.started_at = loop.time()
            self.jobs[job.slot] = job
            if self._prefill_tps and job.prompt_tokens:
                job.timer = loop.call_later(job.prompt_tokens / self._prefill_tps, self._prefilled, job)
            else:
                self._prefilled(job)

    def _prefilled(self, job: Job) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        job.decoding_at = now
        job.prefilled = True
        self.totals.prompt_tokens += job.prompt_tokens
        if not job.hangs_at_once:
            self._prefilled_tokens += job.prompt_tokens
        self.totals.prompt_s += now - job.started_at
        self._note_length(job)
        if job.length == 0:
            self._said_all(job)
            return
        self._decoding[job] = None
        if self._step_handle is None:
            self._due_at = now
            self._arm(loop)

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._step_s:
            self._due_at = max(self._due_at, loop.time() - _CATCH_UP_MAX_S) + self._step_s
            self._step_handle = loop.call_at(self._due_at, self._step)
        else:
            self._step_handle = loop.call_soon(self._step)

    def _step(self) -> None:
        finished = []
        for job in self._decoding:
            job.said += 1
            job.wake()
            if job.said == job.length:
                finished.append(job)
        self.totals.steps += 1
        self.totals.decoded_tokens += len(self._decoding)
        # Armed behind the consumers just woken, so that an instant step still lets each take its token first; and
        # before slots change hands, so that a job which starts now joins the running rhythm.
        self._arm(asyncio.get_running_loop())
        for job in finished:
            self._said_all(job)

    def _said_all(self, job: Job) -> None:
        self._note_length(job)
        if not job.stays:
            self.release(job)
            return
        self._decoding.pop(job, None)
        if not self._decoding and self._step_handle is not None:
            self._step_handle.cancel()
            self._step_handle = None

    def _note_length(self, job: Job) -> None:
        self.totals.sequence_tokens_max = max(self.totals.sequence_tokens_max, job.prompt_tokens + job.said)

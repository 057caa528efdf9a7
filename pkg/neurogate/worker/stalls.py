"""Which of the requests that a worker holds are stuck.

Once a second each request's tokens are compared with those of a second before; nothing happens per token. Silence is
judged by its phase, and by whether the engine does anything at all:

| phase   | stuck after                                                                                             |
|---------|---------------------------------------------------------------------------------------------------------|
| queue   | `prefill_s` in which the engine did nothing                                                             |
| prefill | the same; five times that when the engine works, but never on this one                                  |
| decode  | `decode_s` without a token; `prefill_s` while the engine works or computes a prompt                     |
| any     | tokens that come more rarely than one in `decode_s`, over a minute                                      |
|         | `decode_s` or `prefill_s`, whichever is less, in which the engine had nothing to do: it does not know   |
|         | of this one                                                                                             |
|         | `prefill_s`, and the engine has fewer than it must have: then it is the one silent for the longest      |

While prompts are computed, `prefill_s` is longer where the engine needs longer for a step of them (see pace): what it
does shows only between two steps.

An answer that shows nothing before its end is judged by the engine's own progress, where there is any to see. One whose
reader is slow is not judged.
"""

from __future__ import annotations

import asyncio
import enum
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol, TypeVar

from neurogate.channel import End
from neurogate.engines.engine import Observation
from neurogate.operations import OPERATIONS
from neurogate.rpc.backend import IncomingCall, Outlet
from neurogate.telemetry.concern import about
from neurogate.worker.asked import wants_stream
from neurogate.worker.meter import Job
from neurogate.worker.pace import Pace

_HARD_TIMES = 5
_LONGEST_TIMES = 20
"""How much longer than `prefill_s` a slow engine may do nothing at all."""
_PATIENCE_S = 60.0
"""How long it may where there is no `prefill_s`."""
_BYTES_PER_TOKEN = 3
"""Of a prompt's JSON: fewer than usual, so that it is not taken for shorter than it is."""
_PACED_S = 10.0
"""Over which the tokens of one stream show how fast the engine is."""
_SETTLING_S = 2.0
"""After a pause tokens come that have waited in sockets, and say nothing about it."""
_TRICKLE_S = 60.0
"""Over which a stream's rate is looked at."""
_TOOLS = b'"tools"'
_ARRIVED_S = 3.0
"""After so long a request has reached the engine; what it tells is not older."""
_DOUBTS = 2
"""So many looks at an engine that has too few, with none between that shows them all, are no slip of its counts."""


class Time(Protocol):
    """What bounds a request's time: a `Bound`, or asyncio's own timeout."""

    def expired(self) -> bool:
        """Whether it has ended what it bounds."""
        ...

    def reschedule(self, when: float) -> None:
        """End it then. Raises RuntimeError where there is nothing to end."""
        ...


TimeT = TypeVar("TimeT", bound=Time)


class Phase(enum.Enum):
    """Where a request is in its life."""

    QUEUE = "queue"
    PREFILL = "prefill"
    DECODE = "decode"


class Held:
    """One request that the worker holds."""

    __slots__ = (
        "_call",
        "_model",
        "_outlet",
        "_quiet",
        "_time",
        "began_at",
        "doubts",
        "end",
        "job",
        "moved_at",
        "paced",
        "prompt_bytes",
        "seen",
    )

    def __init__(self, job: Job, *, now: float, model: str = "", prompt_bytes: int = 0) -> None:
        """`model` is what is asked for, as far as that matters."""
        self.job = job
        self.began_at = now
        self.moved_at = now
        """When its last token was seen."""
        self.seen = 0
        """Tokens it had then."""
        self.paced = (now, 0)
        """Since when its rate is looked at, and the tokens it had then."""
        self.doubts = 0
        """Looks at the engine that showed it to have lost one, and most likely this."""
        self.end: End | None = None
        """How it was cut short; None when it was not."""
        self._model = model
        self.prompt_bytes = prompt_bytes
        """How much there is to compute before its first token, as it came."""
        self._call: IncomingCall | None = None
        self._outlet: Outlet | None = None
        self._quiet: bool | None = None
        self._time: Time | None = None

    def __repr__(self) -> str:
        return f"<Held tokens={self.job.emitted} {'cut' if self.end else 'open'}>"

    def came(self, call: IncomingCall, outlet: Outlet) -> None:
        """It is this call of a link, answered there."""
        self._call, self._outlet = call, outlet
        self.prompt_bytes = len(call.body) + (len(call.resume.text) if call.resume is not None else 0)

    def about(self) -> AbstractContextManager[None]:
        """What is logged inside is about it."""
        call = self._call
        return about(call.request_id, call.traceparent) if call is not None else nullcontext()

    def within(self, time: TimeT) -> TimeT:
        """What can cut it short: its own time. Nobody can before, and after it has passed."""
        self._time = time
        return time

    def cut(self, end: End) -> bool:
        """End it so, now; False when it is ending anyway."""
        time = self._time
        if self.end is not None or time is None or time.expired():
            return False
        try:
            time.reschedule(asyncio.get_running_loop().time())
        except RuntimeError:  # it has just left the block that its time bounds
            return False
        self.end = end
        return True

    @property
    def prompt_tokens(self) -> int:
        """The same in tokens, estimated."""
        return self.prompt_bytes // _BYTES_PER_TOKEN

    @property
    def blocked(self) -> bool:
        """Its reader is slow: it waits, and not for the engine."""
        return self._outlet is not None and self._outlet.full

    @property
    def quiet(self) -> bool:
        """Whether its silence is normal: it shows nothing before its end, or holds back what may be a tool call."""
        if self._quiet is None:
            call = self._call
            operation = OPERATIONS.get(call.path) if call is not None else None
            self._quiet = call is not None and (
                operation is None or not wants_stream(operation, call.body) or _TOOLS in call.body
            )
        return self._quiet

    def waits_for_a_model(self, seen: Observation) -> bool:
        """Whether the model it asks for is not loaded yet, which takes as long as it takes."""
        named = [model for model in seen.models if model.name == self._model] or list(seen.models[:1])
        return not seen.canaries and any(not model.loaded for model in named)


@dataclass(frozen=True, slots=True)
class Stall:
    """A request that is stuck."""

    held: Held
    phase: Phase
    told: str
    """For the end of the request."""


def _silent(held: Held, phase: Phase, silent_s: float) -> Stall:
    return Stall(held, phase, f"the engine stalled in {phase.value}: nothing for {silent_s:.0f} s")


class Stalls:
    """The requests that one worker holds, and what they show of its engine. Bounds of 0 are none."""

    def __init__(self, *, prefill_s: float, decode_s: float, now: float, pace: Pace) -> None:
        """`pace` is what is known of the engine's speed; what requests show of it is told there."""
        self._pace = pace
        self._patience_s = prefill_s or _PATIENCE_S
        self._prefill_s = prefill_s or math.inf
        self._decode_s = decode_s or math.inf
        self._forgotten_s = min(self._prefill_s, self._decode_s)
        self._held: dict[Held, None] = {}
        self._worked_at = self._computed_at = now
        self._settled_at = now
        self._left_tokens, self._left_at = 0, now
        self._idle_since = math.inf
        self._last_look: tuple[int | None, list[tuple[Held, int, bool]]] = (None, [])
        """How many requests the engine knew of, and what was held: each one's tokens, and whether it had arrived."""
        self.lived_at = now
        """When the engine last showed any life."""

    def __iter__(self) -> Iterator[Held]:
        return iter(tuple(self._held))

    def __len__(self) -> int:
        return len(self._held)

    def add(self, held: Held) -> None:
        """The worker holds it now."""
        self._held[held] = None

    def drop(self, held: Held, now: float, *, given_up: bool = False) -> None:
        """No longer. When its asker has `given_up` its prompt, the engine finishes the step that it is in."""
        del self._held[held]
        if given_up and not held.job.emitted:
            self._left_tokens, self._left_at = held.prompt_tokens, now

    def alive(self, now: float) -> None:
        """Somebody else has seen life in the engine. That it worked for those that are held here it does not say."""
        self.lived_at = now

    def worked(self, now: float, *, for_canary: bool = False, doubtful: bool = False) -> None:
        """The engine has computed something, as it seems for users; or it may have been `for_canary` alone.

        Streams are judged by the former, unless it is `doubtful`, because there was a canary not long ago. A prompt may
        starve a canary for minutes, and is given the benefit of doubt.
        """
        prompts = self.prompts()
        self._pace.worked(now - max(self._computed_at, prompts[0].moved_at) if prompts else 0.0)
        self._computed_at = now
        self._left_tokens = 0
        if not for_canary:
            self.lived_at = now
            if not doubtful:
                self._worked_at = now

    def told(self, now: float, *, known: int | None, canaries: int = 0) -> None:
        """The engine says that it knows of so many requests, or (None) does not say; some of them may be canaries."""
        idle = known is not None and known <= canaries
        self._idle_since = min(self._idle_since, now) if idle else math.inf
        self._doubt()
        if known is None or known >= len(self._held):
            for held in self._held:
                held.doubts = 0
        arrived = now - _ARRIVED_S
        self._last_look = (known, [(held, held.job.emitted, held.began_at <= arrived) for held in self._held])

    def _doubt(self) -> None:
        """Judge the look before this one by what has become of the requests since.

        Those that had arrived and are held still were with the engine, and those whose tokens came before and after.
        If it knew of fewer, it has lost one.
        """
        known, looked = self._last_look
        if known is None or known >= len(looked):
            return
        present = [
            (held, tokens)
            for held, tokens, arrived in looked
            if held in self._held and not held.blocked and (arrived or 0 < tokens < held.job.emitted)
        ]
        silent = [held for held, tokens in present if held.job.emitted == tokens]
        if known < len(present) and silent:
            min(silent, key=lambda held: held.moved_at).doubts += 1

    def prompts(self) -> list[Held]:
        """Those without a token, in order of their arrival."""
        return [held for held in self._held if not held.job.emitted]

    def computing(self, seen: Observation) -> list[Held]:
        """Those of them that have a slot, as far as can be known."""
        prompts = self.prompts()
        decoding = len(self._held) - len(prompts)
        return prompts[: max(0, (seen.slots_total or len(self._held)) - decoding)]

    def longest_prompt(self, seen: Observation, now: float) -> int:
        """Tokens of the longest prompt that is computed; also of one that was given up, to the end of its step."""
        longest = max((held.prompt_tokens for held in self.computing(seen)), default=0)
        left = self._left_tokens
        if left > longest and now - self._left_at < self._silence_s(seen, min(left, seen.step_tokens)):
            return left
        return longest

    def silence_s(self, seen: Observation, now: float) -> float:
        """How long nothing may be seen of the engine while it computes the prompts that it has."""
        if seen.work_done is not None:
            return self._silence_s(seen, min(self.longest_prompt(seen, now), seen.step_tokens))
        return self._silence_s(seen, sum(held.prompt_tokens for held in self.computing(seen)))

    def _silence_s(self, seen: Observation, tokens: int) -> float:
        step_s = self._pace.step_s if seen.work_done is not None else 0.0
        wanted_s = max(self._patience_s, step_s, self._pace.at_worst_s(tokens))
        return min(wanted_s, _LONGEST_TIMES * self._patience_s)

    def _whole_s(self, seen: Observation, computing: list[Held]) -> float:
        """How long an engine may work on all these together."""
        tokens = sum(held.prompt_tokens for held in computing)
        return max(self._pace.at_worst_s(tokens), math.ceil(tokens / seen.step_tokens) * self._pace.step_s)

    def restart(self, now: float) -> None:
        """Nobody has looked for a while: whatever came meanwhile is still to be seen, and all clocks begin anew."""
        self._worked_at = self._computed_at = self._left_at = self.lived_at = now
        self._settled_at = now + _SETTLING_S
        self._idle_since = math.inf
        self._last_look = (None, [])
        for held in self._held:
            held.moved_at, held.paced, held.doubts = now, (now, held.seen), 0

    def lose(self, seconds: float, now: float) -> None:
        """So much of the time until now did not pass for us, and says nothing about the engine."""

        def later(since: float) -> float:
            return min(now, since + seconds)

        self._worked_at, self._computed_at = later(self._worked_at), later(self._computed_at)
        self._left_at, self.lived_at = later(self._left_at), later(self.lived_at)
        self._idle_since += seconds
        self._settled_at = now + _SETTLING_S
        for held in self._held:
            held.moved_at, held.paced = later(held.moved_at), (later(held.paced[0]), held.paced[1])

    def sweep(self, now: float, seen: Observation) -> list[Stall]:
        """Look at all of them, on an engine that was last seen so; those that are stuck."""
        self._look(now)
        tells = seen.work_done is not None
        works = now - self._worked_at < self._decode_s
        computing = self.computing(seen)
        prompts = bool(computing) or (seen.slots_busy or 0) > len(self._held)
        prefill_s = max(self._prefill_s, self.silence_s(seen, now)) if prompts else self._prefill_s
        hard_s = max(_HARD_TIMES * self._prefill_s, self._whole_s(seen, computing))
        long = prompts and prefill_s > self._prefill_s
        found = []
        for held in self._held:
            if held.blocked or held.waits_for_a_model(seen):
                held.moved_at, held.paced = now, (now, held.seen)
            elif (forgotten_s := now - max(self._idle_since, held.moved_at)) >= self._forgotten_s:
                found.append(_silent(held, Phase.DECODE if held.job.emitted else Phase.PREFILL, forgotten_s))
            elif held.doubts >= _DOUBTS and now - held.moved_at >= self._prefill_s:
                found.append(_silent(held, Phase.DECODE if held.job.emitted else Phase.PREFILL, now - held.moved_at))
            elif held.job.emitted:
                if long:  # a stream has a token a step then
                    held.paced = (now, held.seen)
                bound_s = self._decode_bound_s(held, prefill_s, works=works, tells=tells, prompts=prompts)
                if now - held.moved_at >= bound_s:
                    found.append(_silent(held, Phase.DECODE, now - held.moved_at))
                elif trickle := self._trickle(held, now):
                    found.append(Stall(held, Phase.DECODE, f"the engine stalled in decode: {trickle}"))
            elif tells or not held.quiet:
                phase = Phase.PREFILL if held in computing else Phase.QUEUE
                idle_s, waited_s = now - max(self._computed_at, held.moved_at), now - held.moved_at
                if idle_s >= prefill_s:
                    found.append(_silent(held, phase, idle_s))
                elif phase is Phase.PREFILL and not held.quiet and waited_s >= hard_s:
                    found.append(_silent(held, phase, waited_s))
        return found

    def _look(self, now: float) -> None:
        """Take notice of what went on since the last look."""
        moved = False
        for held in self._held:
            if held.job.emitted != held.seen:
                if not held.seen or now < self._settled_at:
                    held.paced = (now, held.job.emitted)
                held.seen, held.moved_at, held.doubts = held.job.emitted, now, 0
                moved = True
                since, tokens = held.paced
                if now - since >= _PACED_S:
                    self._pace.shown((held.seen - tokens) / (now - since))
        if moved:
            self.worked(now)

    def _decode_bound_s(self, held: Held, prefill_s: float, *, works: bool, tells: bool, prompts: bool) -> float:
        """How long this one may be silent between two tokens."""
        if held.quiet and (works or not tells):
            return _HARD_TIMES * prefill_s
        return max(self._decode_s, prefill_s) if works or prompts else self._decode_s

    def _trickle(self, held: Held, now: float) -> str:
        """That its tokens come too rarely, in words; empty when they do not."""
        since, tokens = held.paced
        elapsed_s, said = now - since, held.seen - tokens
        if elapsed_s < max(_TRICKLE_S, 2 * self._decode_s):
            return ""
        held.paced = (now, held.seen)
        if held.quiet or said >= elapsed_s / self._decode_s:
            return ""
        return f"{said} tokens in {elapsed_s:.0f} s"

"""One token, asked of the engine to see whether it still generates.

It is on no book of the worker's: neither counted, nor limited, nor queued. Whoever asks while one is under way gets its
outcome. Users come first: where they hold every slot, their own progress is the answer, and a canary that has the last
slot gives it to a user who comes for it.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from neurogate.engines.engine import Engine, EngineError, EngineRefusedError, EngineUnsupportedError
from neurogate.inference import Prompt
from neurogate.worker.refusals import KEY_REFUSED, key_refused

_TIMES_USUAL = 8
"""How much longer than usual a canary may take."""
_FIRST_TIMES = 2
"""The first one of an engine's life has so many times the time: it may still warm up."""
_DOUBLINGS_MAX = 2
"""And twice as much after each failure, so often: a slow machine is told from a wedged engine by that."""
_SMOOTHING = 0.3
_LOOK_S = 0.2
PAUSE_S = 0.5
"""A timer later than that says that the process did not run, and nothing about its engine."""
STOPPED_S = 2.0
"""One later than that, that it was stopped: what the engine said waits in the socket. Less is the time that others took
from it, which is not counted; a busy machine must not keep a silent engine for ever."""
_OWN_STEPS = 2
"""How often an engine's counter can be seen to grow for a canary: its prompt, its token."""
WEDGED = "the engine answers but generates nothing"
_DETAIL_CHARS_MAX = 300


class Outcome(enum.Enum):
    """What became of a canary."""

    ALIVE = "alive"
    """A token came, or a user's request went on."""
    HUNG = "hung"
    """Nothing came in time."""
    FAILED = "failed"
    """The engine answered with an error."""
    REFUSED = "refused"
    """The engine has more to do than it takes, or has no model to be asked: that says nothing."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one canary."""

    outcome: Outcome
    detail: str = ""
    """What went wrong, for people."""
    seconds: float = 0.0
    token: bool = False
    """It gave its token in these seconds; otherwise others showed that the engine lives."""

    @property
    def well(self) -> bool:
        """Whether nothing speaks against the engine."""
        return self.outcome in {Outcome.ALIVE, Outcome.REFUSED}


class Surroundings(Protocol):
    """What a canary must know of the worker around it."""

    def canary_model(self) -> str | None:
        """The model to ask, empty for the engine's own choice; None when none may be asked now."""
        ...

    def has_room(self) -> bool:
        """Whether a slot is free."""
        ...

    def crowded(self) -> bool:
        """Whether users want every slot."""
        ...

    def life(self) -> tuple[int, ...]:
        """Changes whenever a user's request shows that the engine lives."""
        ...

    def work(self) -> int | None:
        """Changes whenever the engine computes for users; None where nobody can tell."""
        ...

    def would_show(self) -> bool:
        """Whether users' requests would show that the engine lives."""
        ...

    def patience_s(self, timeout_s: float) -> float:
        """How long to wait, given what a canary may take in an engine without other work."""
        ...


class Canary:
    """Asks one engine, one canary at a time."""

    def __init__(
        self,
        engine: Engine,
        surroundings: Surroundings,
        *,
        timeout_s: float,
        patience_max_s: float,
        loop: asyncio.AbstractEventLoop,
        done: Callable[[Verdict], None] = lambda _: None,
    ) -> None:
        """`timeout_s` is the least time for a token in an engine without other work, `patience_max_s` the most.

        `done` hears each verdict once.
        """
        self._engine = engine
        self._around = surroundings
        self._floor_s = timeout_s
        self._patience_max_s = max(timeout_s, patience_max_s)
        self._loop = loop
        self._done = done
        self._usual_s: float | None = None
        self._failures = 0
        self._underway: asyncio.Future[Verdict] | None = None
        self._asking: asyncio.Task[Verdict] | None = None
        self.last: Verdict | None = None
        """The latest one."""
        self.last_at = loop.time()
        """When it ended, on the loop's clock."""

    def __repr__(self) -> str:
        return f"<Canary last={self.last} [{'underway' if self._underway else 'idle'}]>"

    @property
    def timeout_s(self) -> float:
        """What the next one may take in an engine without other work."""
        if self._usual_s is not None:
            wanted_s = max(self._floor_s, _TIMES_USUAL * self._usual_s)
        else:
            wanted_s = self._floor_s * _FIRST_TIMES * (1 << min(self._failures, _DOUBLINGS_MAX))
        return min(wanted_s, self._patience_max_s)

    @property
    def underway(self) -> bool:
        """Whether one is asked now."""
        return self._underway is not None

    @property
    def asks(self) -> bool:
        """Whether the engine is asked for a token now: one of its slots is the canary's."""
        return self._asking is not None

    @property
    def has_generated(self) -> bool:
        """Whether this life of the engine gave a token."""
        return self._usual_s is not None

    def told(self) -> dict[str, object] | None:
        """The latest one, for people: its outcome, its seconds, and how long ago it was. None before the first."""
        last = self.last
        if last is None:
            return None
        age_s = self._loop.time() - self.last_at
        return {"outcome": last.outcome.value, "seconds": round(last.seconds, 3), "seconds_ago": round(age_s, 1)}

    def new_life(self) -> None:
        """The engine has begun anew: what was known of its speed is void."""
        self._usual_s = None
        self._failures = 0

    async def ask(self) -> Verdict:
        """Whether the engine generates; takes part in the canary under way when there is one."""
        while (underway := self._underway) is not None:
            await asyncio.wait([underway])
            if not underway.cancelled():
                return underway.result()
        underway = self._underway = self._loop.create_future()
        try:
            verdict = await self._fly()
            underway.set_result(verdict)
        finally:
            self._underway = None
            underway.cancel()
        return verdict

    def make_way(self) -> None:
        """A user's request has come: when it finds no slot, the canary's is its own."""
        if self._asking is not None and self._around.crowded():
            self._asking.cancel()

    async def _fly(self) -> Verdict:
        model = self._around.canary_model()
        if model is None:
            return self._judged(Verdict(Outcome.REFUSED, "the engine has no model to be asked"))
        async with asyncio.TaskGroup() as tasks:
            try:
                verdict = await self._watch(tasks, model)
            finally:
                if self._asking is not None:
                    self._asking.cancel()
                    self._asking = None
        return self._judged(verdict)

    async def _watch(self, tasks: asyncio.TaskGroup, model: str) -> Verdict:
        """Wait for the token or for a sign of life, whichever comes first.

        With a canary under way, the engine's work may be for its own prompt: that is a reason to wait, and proof only
        when it goes on and on. A canary may starve behind the long prompt of a user, also of one that comes later. What
        it took then is not what it usually takes.
        """
        around, loop = self._around, self._loop
        began = waits_since = loop.time()
        steps = 0
        timeout_s = self.timeout_s
        alone = True
        life, work = around.life(), around.work()
        while True:
            if self._asking is None and around.has_room():
                self._asking = tasks.create_task(self._one_token(model), name="canary")
                began = waits_since = loop.time()
            asking = self._asking
            if asking is None and not around.would_show():
                return Verdict(Outcome.REFUSED, "every slot is taken, and no request's progress shows")
            now, patience_s = loop.time(), around.patience_s(timeout_s)
            alone = alone and patience_s <= timeout_s
            left_s = waits_since + patience_s - now
            if left_s <= 0:
                return Verdict(Outcome.HUNG, f"{WEDGED}: canary failed after {now - began:.1f} s", now - began)
            look_s = min(_LOOK_S, left_s)
            if asking is None:
                await asyncio.sleep(look_s)
            else:
                await asyncio.wait([asking], timeout=look_s)
                if asking.done():
                    self._asking = None
                    if not asking.cancelled():
                        return self._learned(asking.result(), alone=alone)
                    began = waits_since = loop.time()  # it gave way to a user, whose progress counts from here
            late_s = loop.time() - now - look_s
            if late_s > PAUSE_S:
                waits_since, alone = (loop.time() if late_s > STOPPED_S else waits_since + late_s), False
            if around.life() != life or (self._asking is None and around.work() != work):
                return Verdict(Outcome.ALIVE, seconds=loop.time() - began)
            if around.work() != work:
                work, waits_since, steps = around.work(), loop.time(), steps + 1
                if steps > _OWN_STEPS:
                    return Verdict(Outcome.ALIVE, seconds=loop.time() - began)

    async def _one_token(self, model: str) -> Verdict:
        began = self._loop.time()
        try:
            async with aclosing(self._engine.generate(Prompt("Hi", model, max_tokens=1, temperature=0.0))) as events:
                await anext(events)
        except EngineError as error:
            return _failed(error)
        except Exception as error:  # noqa: BLE001 - an engine's bug is an outcome too
            return Verdict(Outcome.FAILED, f"{type(error).__name__} in the canary")
        return Verdict(Outcome.ALIVE, seconds=self._loop.time() - began, token=True)

    def _learned(self, verdict: Verdict, *, alone: bool) -> Verdict:
        """The same; what it took is remembered, if no prompt of a user's was in its way."""
        usual_s = self._usual_s
        if verdict.token and (alone or usual_s is None):
            took_s = verdict.seconds
            self._usual_s = took_s if usual_s is None else usual_s + _SMOOTHING * (took_s - usual_s)
        return verdict

    def _judged(self, verdict: Verdict) -> Verdict:
        self._failures = 0 if verdict.well else self._failures + 1
        self.last = verdict
        self.last_at = self._loop.time()
        self._done(verdict)
        return verdict


def _failed(error: EngineError) -> Verdict:
    told = str(error)[:_DETAIL_CHARS_MAX]
    if isinstance(error, EngineUnsupportedError):
        return Verdict(Outcome.REFUSED, told)
    if isinstance(error, EngineRefusedError):
        if error.status in KEY_REFUSED:
            return Verdict(Outcome.FAILED, key_refused(told))
        if error.status < 500 or error.status == 501 or error.retry_after_s is not None:
            return Verdict(Outcome.REFUSED, told)
    return Verdict(Outcome.FAILED, f"the engine fails canaries: {told}")

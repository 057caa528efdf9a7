"""Watches over one engine: when it is asked for a token, and what follows when none comes.

An engine that answers health checks and generates nothing is as good as dead, and nobody else would notice. It is asked
when it has shown no life for a while, sooner when users wait for it, and is out until a canary succeeds again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from neurogate.channel import End, EndCode
from neurogate.engines.engine import Engine, Observation
from neurogate.worker.canary import PAUSE_S, STOPPED_S, Canary, Outcome, Verdict
from neurogate.worker.metrics import WorkerMetrics
from neurogate.worker.pace import Pace
from neurogate.worker.stalls import Held, Phase, Stalls

_log = structlog.get_logger("neurogate.worker")

_SWEEP_S = 1.0
_TICK_S = 0.5
_SUSPECT_S = 3.0
"""Silence that is suspicious while users wait."""
_AGAIN_S = 4.5
"""Between canaries then: what the engine does between two of them is the users' work."""
_AFTER_USERS_S = 30.0
"""How long after a user's request an engine is still asked that loads models on demand or may cost money."""
_ERRORS_MAX = 3
_RETRY_FIRST_S = 1.0
_RETRY_MAX_S = 30.0
_REFUSED_DOUBLINGS_MAX = 6
_COUNTED_S = 2.0
"""What an engine did for a canary it may count so long after the canary's end, on a busy machine."""
_SHORT_TOKENS = 256
"""Behind a prompt that is no longer a canary may be called late before the prompt itself is."""


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """How an engine is watched over. An interval of 0 asks suspected engines only, other zeros are no bound."""

    canary_interval_s: float = 5.0
    canary_timeout_s: float = 4.0
    stall_prefill_s: float = 60.0
    stall_decode_s: float = 15.0


class Vigil:
    """See the module. `run` does the watching; what it finds is told by `told` and `on_verdict`."""

    def __init__(
        self,
        engine: Engine,
        settings: WatchSettings,
        *,
        tokens: Callable[[], int],
        metrics: WorkerMetrics,
        loop: asyncio.AbstractEventLoop,
        on_verdict: Callable[[], None],
    ) -> None:
        """`tokens` counts those of all users; `on_verdict` hears when the engine became wedged or well again."""
        self._engine = engine
        self._settings = settings
        self._tokens = tokens
        self._metrics = metrics
        self._loop = loop
        self._on_verdict = on_verdict
        self._pace = Pace()
        self._stalls = Stalls(
            prefill_s=settings.stall_prefill_s, decode_s=settings.stall_decode_s, now=loop.time(), pace=self._pace
        )
        self.canary = Canary(
            engine,
            self,
            timeout_s=settings.canary_timeout_s,
            patience_max_s=settings.stall_prefill_s or float("inf"),
            loop=loop,
            done=self._judge,
        )
        self._seen = Observation(ready=False)
        self._seen_at = self._deaf_since = 0.0
        self._tells = False
        self._work: int | None = None
        self._wedged = ""
        self._living_since = 0.0
        self._retry_s = 0.0
        self._retry_at = 0.0
        self._to_heal = ""
        self._suspected = ""
        self._fresh = False
        self._errors = 0
        self._refusals = 0
        self._answered = 0
        self._user_at = float("-inf")
        self._user_model = ""
        self.draining = False
        """Nobody is asked to see how it is any more."""
        for outcome in Outcome:
            metrics.canaries.labels(outcome.value)
        for phase in Phase:
            metrics.stalls.labels(phase.value)

    def __repr__(self) -> str:
        return f"<Vigil {self._wedged or 'well'} {self.canary!r}>"

    @property
    def wedged(self) -> str:
        """Why the engine is out; empty when it is not."""
        return self._wedged

    # What the worker tells

    def begin(self, held: Held, model: str) -> None:
        """A user's request comes in, for this model as far as that matters."""
        self._stalls.add(held)
        self._user_model = model
        self.canary.make_way()

    def end(self, held: Held, *, well: bool) -> None:
        """It is over, `well` when the engine answered it."""
        self._user_at = self._loop.time()
        self._stalls.drop(held, self._user_at, given_up=not well and held.end is None)
        if well:
            self._answered += 1
            self._stalls.alive(self._user_at)
            self._errors = 0

    def observed(self, seen: Observation) -> None:
        """The engine says so of itself."""
        now = self._loop.time()
        if seen.ready and not self._seen.ready:
            self.canary.new_life()
            self._pace.new_life()
            self._work = None
            self._stalls.alive(now)
            self._fresh = seen.canaries and self._settings.canary_interval_s > 0
            self._refusals = 0
            self._retry_at = now
            self._living_since = now
        between = self.canary.underway or self.canary.last_at > self._seen_at
        lately = between or self.canary.last_at > self._seen_at - _COUNTED_S
        if seen.ready and seen.work_done is None:  # it tells, but not within a step
            seen = replace(seen, work_done=self._work)
        self._pace.told(seen.prompt_tokens_per_s)
        if seen.work_done is not None:
            before, self._work = self._work, seen.work_done
            if before is not None and seen.work_done != before:
                self._stalls.worked(now, for_canary=between, doubtful=lately)
        own = self.canary.asks or self.canary.last_at > self._seen_at
        self._stalls.told(now, known=_known(seen), canaries=own)
        if seen.ready:
            self._tells = seen.work_done is not None
        elif self._seen.ready:
            self._deaf_since = now
        self._count_deaths(seen)
        self._seen, self._seen_at = seen, now

    def told(self, seen: Observation) -> Observation:
        """What the worker may tell of it."""
        return replace(seen, ready=False, detail=self._wedged) if self._wedged and seen.ready else seen

    # What a canary must know

    def canary_model(self) -> str | None:
        """The model to ask; see Surroundings."""
        seen = self._seen
        if not (seen.ready and seen.generates):
            return None
        if seen.canaries:
            return ""
        loaded = [model.name for model in seen.models if model.loaded]
        if self._seen_at <= self._user_at or not loaded:  # a request may just have unloaded it
            return None
        return self._user_model if self._user_model in loaded else loaded[0]

    def has_room(self) -> bool:
        """Whether a slot is free."""
        seen = self._seen
        if not seen.slots_total:
            return not len(self._stalls)
        return max(len(self._stalls), seen.slots_busy or 0) + (seen.queued or 0) < seen.slots_total

    def crowded(self) -> bool:
        """Whether users want every slot."""
        return len(self._stalls) >= max(1, self._seen.slots_total)

    def life(self) -> tuple[int, ...]:
        """What changes with every sign of life; see Surroundings."""
        return (self._answered, self._tokens())

    def work(self) -> int | None:
        """What the engine has computed, as it last told."""
        return self._work

    def would_show(self) -> bool:
        """Whether users' requests would show that the engine lives."""
        return self._seen.work_done is not None

    def patience_s(self, timeout_s: float) -> float:
        """How long to wait for one token behind the prompts that are computed.

        A step of a long one is waited for as long as its request is: until it is over, nothing shows.
        """
        seen, now = self._seen, self._loop.time()
        tokens = self._stalls.longest_prompt(seen, now) if seen.slots_busy != 0 else 0
        if not tokens:
            return timeout_s
        silence_s = self._stalls.silence_s(seen, now)
        return max(timeout_s, silence_s if tokens > _SHORT_TOKENS else min(self._pace.soon_s(tokens), silence_s))

    # Watching

    async def run(self) -> None:
        """Watch for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sweep_always(), name="stalls")
            tasks.create_task(self._ask_always(), name="canaries")

    async def _sweep_always(self) -> None:
        loop = self._loop
        while True:
            due_at = loop.time() + _SWEEP_S
            await asyncio.sleep(_SWEEP_S)
            late_s = loop.time() - due_at
            if late_s > STOPPED_S:
                self._stalls.restart(loop.time())
                continue
            if late_s > PAUSE_S:
                self._stalls.lose(late_s, loop.time())
            self.sweep()

    async def _ask_always(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            if self._is_due(self._loop.time()):
                self._fresh, self._suspected = False, ""
                await self.canary.ask()
            reason, self._to_heal = self._to_heal, ""
            if reason and await self._engine.heal(reason):
                _log.warning("wedged engine is started again", engine=self._engine.kind)

    def sweep(self) -> None:
        """Cut what is stuck."""
        now = self._loop.time()
        if not (self._seen.ready or self._seen.loading):
            self._leave_the_deaf(now)
        for stall in self._stalls.sweep(now, self._seen):
            if stall.held.cut(End(EndCode.BROKEN, message=stall.told)):
                self._metrics.stalls.labels(stall.phase.value).inc()
                self._suspected = stall.told
                with stall.held.about():
                    _log.warning("request stalled", engine=self._engine.kind, detail=stall.told)

    def _leave_the_deaf(self, now: float) -> None:
        """Give up what an engine holds that is not ready and shows no life: no canary can be asked of it.

        It has as long as a canary would have. Whole answers of engines that never tell what they do are left alone.
        """
        silent_since = max(self._stalls.lived_at + _SUSPECT_S, self._deaf_since)
        if now < silent_since + self.patience_s(self.canary.timeout_s):
            return
        given_up = 0
        for held in self._stalls:
            if not held.blocked and (self._tells or not held.quiet):
                given_up += held.cut(End(EndCode.UNAVAILABLE, message=self._seen.detail))
        if given_up:
            _log.warning("engine is silent", engine=self._engine.kind, detail=self._seen.detail, held=given_up)

    def _is_due(self, now: float) -> bool:
        if self._wedged:
            return self._seen.ready and now >= self._retry_at
        if self.canary_model() is None:
            return False
        silent_s, since_s = now - self._stalls.lived_at, now - self.canary.last_at
        if any(not held.blocked for held in self._stalls):
            suspicious = self._fresh or bool(self._suspected) or (silent_s >= _SUSPECT_S and since_s >= _AGAIN_S)
            return suspicious and (self.has_room() or self.would_show())
        return bool(self._suspected) or self._is_due_while_idle(now, min(silent_s, since_s))

    def _is_due_while_idle(self, now: float, silent_s: float) -> bool:
        if self.draining or not self._settings.canary_interval_s:
            return False
        if not self._seen.canaries and now - self._user_at > _AFTER_USERS_S:
            return False
        interval_s = self._settings.canary_interval_s * 2 ** min(self._refusals, _REFUSED_DOUBLINGS_MAX)
        return self._fresh or silent_s >= interval_s

    def _judge(self, verdict: Verdict) -> None:
        """Take notice of a canary's outcome, whoever asked."""
        self._metrics.canaries.labels(verdict.outcome.value).inc()
        now = self._loop.time()
        match verdict.outcome:
            case Outcome.ALIVE:
                if verdict.token:
                    self._metrics.canary_seconds.observe(verdict.seconds)
                    self._pace.token(verdict.seconds)
                self._stalls.alive(now)
                self._errors = self._refusals = 0
                self._well()
            case Outcome.REFUSED:
                self._refusals += 1
                self._well()
            case Outcome.HUNG:
                self._fail(verdict.detail, now)
            case Outcome.FAILED:
                self._errors += 1
                if self._wedged or self._errors >= _ERRORS_MAX:
                    self._fail(verdict.detail, now)

    def _well(self) -> None:
        self._retry_s = 0.0
        if self._wedged:
            self._wedged = ""
            _log.info("engine generates again", engine=self._engine.kind)
            self._on_verdict()

    def _fail(self, detail: str, now: float) -> None:
        self._retry_s = min(_RETRY_MAX_S, self._retry_s * 2 or _RETRY_FIRST_S)
        self._retry_at = now + self._retry_s
        if not self._wedged:
            _log.error("engine wedged", engine=self._engine.kind, detail=detail, held=len(self._stalls))
        if self.canary.has_generated or now - self._living_since >= self._settings.stall_prefill_s:
            self._to_heal = detail
        self._wedged = detail
        for held in self._stalls:
            held.cut(End(EndCode.UNAVAILABLE, message=detail))
        self._on_verdict()

    def _count_deaths(self, seen: Observation) -> None:
        before = dict(self._seen.deaths)
        for cause, times in seen.deaths:
            more = times - before.get(cause, 0)
            if more > 0:
                self._metrics.engine_deaths.labels(cause).inc(more)


def _known(seen: Observation) -> int | None:
    """How many requests the engine says it has; None where it does not tell, or may have more than it tells."""
    if seen.slots_busy is None or (seen.queued is None and seen.slots_busy >= seen.slots_total):
        return None
    return seen.slots_busy + (seen.queued or 0)

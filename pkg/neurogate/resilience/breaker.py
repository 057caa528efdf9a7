"""The circuit breaker of one endpoint.

pybreaker keeps the tally of consecutive failures, two windows those of failures and of slow calls; this adapter owns
admission, the single probe, time and generations, because pybreaker alone admits every caller while half-open, takes
cancellation for failure and has no notion of a result that is older than the last transition (ADR 0002, 0019).

    closed --too many failures, or slow calls--> open --a probe--> half-open --success--> closed
                                                  ^---failure, or nothing---'

Half-open means that a probe is out. One that says nothing leaves the breaker open, as if it had not been: its time goes
on counting from when it opened.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass

from neurogate.resilience.tally import CLOSED, HALF_OPEN, OPEN, Tally
from neurogate.resilience.window import RateWindow


class Outcome(enum.Enum):
    """What a call says about its endpoint."""

    SUCCESS = "success"
    FAILURE = "failure"
    IGNORED = "ignored"
    """Nothing: the client went away, or the worker refused for load."""


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """When a breaker opens and for how long."""

    fail_max: int = 3
    """Consecutive failures that open it."""
    reset_timeout_s: float = 30.0
    """Seconds it stays open before one probe is admitted."""
    window_s: float = 10.0
    """Seconds over which the share of failed calls is taken."""
    failure_rate: float = 0.5
    """Share of failed calls that opens it; 0 for none."""
    min_calls: int = 20
    """Calls in the window below which their share says nothing."""
    slow_s: float = 0.0
    """Seconds to the first token after which a call counts as slow; 0 for never.

    That time is the engine's queue as well: where a whole fleet is busy, it says nothing about any worker.
    """
    slow_rate: float = 0.5
    """Share of slow calls that opens it, taken over twice `slow_s` and the calls since the first slow one."""
    slow_min_calls: int = 5
    """Calls below which the share of slow ones says nothing."""
    probe_s: float = 60.0
    """Seconds after which a probe without a verdict no longer keeps another one out."""


def _always() -> bool:
    return True


class _Closed:
    """What a call of a closed breaker reads and writes: together in memory, as slots of a base are."""

    __slots__ = ("_calls", "_generation", "_now", "_state", "_tally")


class EndpointBreaker(_Closed):
    """Admission to one endpoint. Single-threaded: every method runs on the event loop and none blocks."""

    __slots__ = (
        "_dispensable",
        "_on_transition",
        "_opened_at",
        "_probed_at",
        "_probes_out",
        "_reason",
        "_returning",
        "_settings",
        "_slow",
        "_slow_s",
        "opened_for",
        "users_probe",
    )

    def __init__(
        self,
        settings: BreakerSettings,
        *,
        now: Callable[[], float],
        on_transition: Callable[[str], None],
        dispensable: Callable[[], bool] = _always,
    ) -> None:
        """`dispensable` says whether enough others could take what comes here: only then is slowness a reason."""
        self.users_probe = True
        """Any call may be the probe; otherwise only those that ask for it with `probe`."""
        self.opened_for = ""
        """Why it opened last, for people."""
        self._now = now
        self._on_transition = on_transition
        self._dispensable = dispensable
        self._tally: Tally | None = None
        """Made at the first failure: most workers of a large fleet never have one."""
        self._generation = 0
        self._probes_out = 0  # more than one only by `force`
        self._probed_at = 0.0
        self._opened_at = 0.0
        self._returning = False  # to an opening that was before
        self._reason = ""
        self._state: str = CLOSED
        self._take(settings)

    @property
    def state(self) -> str:
        """`closed`, `open` or `half-open`."""
        return self._state

    @property
    def consecutive_failures(self) -> int:
        """Failures since the last success."""
        return self._tally.failures if self._tally is not None else 0

    @property
    def opened_at(self) -> float:
        """Loop time of the latest opening; a probe that said nothing makes none."""
        return self._opened_at

    @property
    def retry_at(self) -> float:
        """Loop time at which an open breaker's time is over; meaningless in other states."""
        return self._opened_at + self._settings.reset_timeout_s

    @property
    def look_at(self) -> float:
        """Loop time at which a probe may be admitted that may not be now; meaningless while closed."""
        if self._state == OPEN:
            return self.retry_at
        return self._probed_at + self._settings.probe_s

    @property
    def admits(self) -> bool:
        """Whether `try_acquire` would give a permit now."""
        return self._state == CLOSED or (self.users_probe and self._now() >= self.look_at)

    @property
    def may_admit(self) -> bool:
        """Whether it is worth asking: true all the while a half-open breaker has its probe out, unlike `admits`."""
        if self._state == CLOSED:
            return True
        return self.users_probe and (self._state == HALF_OPEN or self._now() >= self.retry_at)

    def try_acquire(self) -> Permit | None:
        """A permit for one call, or None when the endpoint must be left alone. Every permit must be settled."""
        if self._state == CLOSED:
            return Permit(self, self._generation, is_probe=False)
        if not self.users_probe or self._now() < self.look_at:
            return None
        return self._probe()

    def probe(self, *, early: bool = False) -> Permit | None:
        """A permit for a probe of an endpoint that is not closed, or None when it is not time for one.

        An `early` one does not wait for an open breaker's time to be over.
        """
        if self._state == CLOSED:
            return None
        if self._now() < self.look_at and not (early and self._state == OPEN):
            return None
        return self._probe()

    def force(self) -> Permit:
        """A permit although the breaker is open: the last usable endpoint is never ejected. Judged like a probe."""
        if self._state == OPEN:
            self._transitions.half_open()
        return self._count_probe()

    def record_failure(self) -> None:
        """A failure outside any call, such as a lost link. Counts while closed and opens a half-open breaker again."""
        if self._state != OPEN:
            self._fail()

    def reset(self) -> None:
        """Close it and forget its failures; what is under way says nothing about it any more."""
        self._transitions.close()

    def configure(self, settings: BreakerSettings) -> None:
        """Judge by other bounds from now on; an open breaker's time counts from when it opened."""
        if self._tally is not None:
            self._tally.configure(settings.fail_max)
        self._take(settings)

    def __repr__(self) -> str:
        return f"<EndpointBreaker {self._state} failures={self.consecutive_failures}>"

    @property
    def _transitions(self) -> Tally:
        if self._tally is None:
            self._tally = Tally(self._settings.fail_max, self._moved)
        return self._tally

    def _moved(self, state: str) -> None:
        """Follow pybreaker."""
        self._generation += 1
        self._probes_out = 0
        self._state = state
        self._calls.clear()
        self._slow.clear()
        if state == OPEN and not self._returning:
            self._opened_at = self._now()
            self.opened_for = self._reason or f"{self.consecutive_failures} failures in a row"
        self._on_transition(state)

    def _take(self, settings: BreakerSettings) -> None:
        """What was counted over other windows is forgotten."""
        self._settings = settings
        self._calls = RateWindow(settings.window_s)
        self._slow_s = settings.slow_s or math.inf
        self._slow = RateWindow(2 * (settings.slow_s or settings.window_s))

    def _probe(self) -> Permit:
        """The one probe; it takes the place of one that was out for too long."""
        if self._state == OPEN:
            self._transitions.half_open()
        else:
            self._generation += 1
            self._probes_out = 0
        return self._count_probe()

    def _count_probe(self) -> Permit:
        self._probes_out += 1
        self._probed_at = self._now()
        return Permit(self, self._generation, is_probe=True)

    def _judge_probe(self, ttft_s: float) -> Outcome:
        return Outcome.FAILURE if ttft_s > self._slow_s and self._dispensable() else Outcome.SUCCESS

    def _answered(self, permit: Permit, ttft_s: float) -> None:
        """A closed breaker's call got its first token, late or after late ones of others."""
        if permit.generation != self._generation:
            return
        slow = ttft_s > self._slow_s
        self._slow.record(self._now(), bad=slow)
        too_many = slow and self._slow.exceeds(self._settings.slow_rate, self._settings.slow_min_calls)
        if too_many and self._dispensable():
            self._open(f"{self._slow.bad} of {self._slow.calls} first tokens took over {self._slow_s:g} s")

    def _settle(self, permit: Permit, outcome: Outcome) -> None:
        if permit.generation != self._generation:
            return  # admitted before the last transition: says nothing about now
        if permit.is_probe:
            self._probes_out -= 1
        if outcome is Outcome.IGNORED:
            if self._state == HALF_OPEN and not self._probes_out:
                self._return()
        elif outcome is Outcome.FAILURE:
            self._fail()
        else:
            if self._state == CLOSED:
                self._calls.record(self._now(), bad=False)
                if self._tally is None or not self._tally.failures:
                    return
            self._transitions.succeed()
            permit.generation = self._generation  # the transition it made itself is no news to it

    def _fail(self) -> None:
        self._transitions.fail()
        if self._state == CLOSED:
            self._calls.record(self._now(), bad=True)
            rate = self._settings.failure_rate
            if rate and self._calls.exceeds(rate, self._settings.min_calls):
                self._open(f"{self._calls.bad} of {self._calls.calls} calls failed within {self._calls.seconds:g} s")

    def _open(self, reason: str) -> None:
        self._reason = reason
        self._transitions.open()
        self._reason = ""

    def _return(self) -> None:
        """Nobody probes any more, and nothing was learnt."""
        self._returning = True
        self._transitions.open()
        self._returning = False


class Permit:
    """Leave to make one call; settled exactly once."""

    __slots__ = ("_breaker", "_settled", "generation", "is_probe")

    def __init__(self, breaker: EndpointBreaker, generation: int, *, is_probe: bool) -> None:
        self._breaker = breaker
        self._settled = False
        self.generation = generation
        self.is_probe = is_probe

    @property
    def settled(self) -> bool:
        """Whether the verdict has been given."""
        return self._settled

    def settle(self, outcome: Outcome) -> None:
        """Give the verdict. Raises RuntimeError the second time: that would be a leak's sibling."""
        if self._settled:
            raise RuntimeError("permit settled twice")
        self._settled = True
        self._breaker._settle(self, outcome)  # noqa: SLF001 - a permit is the breaker's other half

    def answered(self, ttft_s: float) -> None:
        """The first token came after so many seconds: a probe's verdict, and for any other call a time to count."""
        if self.is_probe:
            self.settle(self._breaker._judge_probe(ttft_s))  # noqa: SLF001 - as below
        elif ttft_s > self._breaker._slow_s or self._breaker._slow.bad:  # noqa: SLF001 - as below
            self._breaker._answered(self, ttft_s)  # noqa: SLF001 - as below

    def fail_late(self) -> None:
        """After a success verdict the endpoint died all the same: one failure, unless the breaker has moved on."""
        if self.generation == self._breaker._generation:  # noqa: SLF001 - as above
            self._breaker.record_failure()

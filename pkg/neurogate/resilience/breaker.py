"""The circuit breaker of one endpoint.

pybreaker keeps the tally of consecutive failures; this adapter owns admission, the single half-open probe, time and
generations, because pybreaker alone admits every caller while half-open, takes cancellation for failure and has no
notion of a result that is older than the last transition (ADR 0002 lists what was measured).

    closed --fail_max consecutive failures--> open --reset_timeout_s--> half-open --success--> closed
                                                ^------------failure-------'
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable
from dataclasses import dataclass

from neurogate.imports import absent

with absent("redis"):  # 0.1 s of start-up for a storage of tallies that is not used here
    import pybreaker


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


class _FailureRecorded(Exception):  # noqa: N818 - not an error: it is how pybreaker is told of a failure
    pass


def _succeed() -> None:
    pass


def _fail() -> None:
    raise _FailureRecorded


class EndpointBreaker(pybreaker.CircuitBreakerListener):
    """Admission to one endpoint. Single-threaded: every method runs on the event loop and none blocks."""

    def __init__(
        self, settings: BreakerSettings, *, now: Callable[[], float], on_transition: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._now = now
        self._on_transition = on_transition
        self._tally = pybreaker.CircuitBreaker(
            fail_max=settings.fail_max, listeners=[self], throw_new_error_on_trip=False
        )
        self._generation = 0
        self._probes_out = 0  # more than one only by `force`
        self._opened_at = 0.0
        self._state: str = pybreaker.STATE_CLOSED

    @property
    def state(self) -> str:
        """`closed`, `open` or `half-open`."""
        return self._state

    @property
    def consecutive_failures(self) -> int:
        """Failures since the last success."""
        return self._tally.fail_counter

    @property
    def retry_at(self) -> float:
        """Loop time at which an open breaker admits its probe; meaningless in other states."""
        return self._opened_at + self._settings.reset_timeout_s

    @property
    def admits(self) -> bool:
        """Whether `try_acquire` would give a permit now."""
        if self._state == pybreaker.STATE_OPEN:
            return self._now() >= self.retry_at
        return self._state == pybreaker.STATE_CLOSED or not self._probes_out

    @property
    def may_admit(self) -> bool:
        """Whether it is worth asking: true all the while a half-open breaker has its probe out, unlike `admits`."""
        return self._state != pybreaker.STATE_OPEN or self._now() >= self.retry_at

    def try_acquire(self) -> Permit | None:
        """A permit for one call, or None when the endpoint must be left alone. Every permit must be settled."""
        if self._state == pybreaker.STATE_CLOSED:
            return Permit(self, self._generation, is_probe=False)
        if not self.admits:
            return None
        return self._probe()

    def force(self) -> Permit:
        """A permit although the breaker is open: the last usable endpoint is never ejected. Judged like a probe."""
        return self._probe()

    def record_failure(self) -> None:
        """A failure outside any call, such as a lost link. Counts while closed and opens a half-open breaker again."""
        if self._state != pybreaker.STATE_OPEN:
            self._tell(_fail)

    def reset(self) -> None:
        """Close it and forget its failures; what is under way says nothing about it any more."""
        self._tally.close()

    def configure(self, settings: BreakerSettings) -> None:
        """Judge by other bounds from now on; an open breaker's time counts from when it opened."""
        self._settings = settings
        self._tally.fail_max = settings.fail_max

    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,  # noqa: ARG002 - pybreaker's signature
        old_state: pybreaker.CircuitBreakerState | None,  # noqa: ARG002
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        """Follow pybreaker's transitions (its listener interface; not for callers)."""
        self._generation += 1
        self._probes_out = 0
        self._state = new_state.name
        if self._state == pybreaker.STATE_OPEN:
            self._opened_at = self._now()
        self._on_transition(self._state)

    def __repr__(self) -> str:
        return f"<EndpointBreaker {self._state} failures={self.consecutive_failures}>"

    def _probe(self) -> Permit:
        if self._state == pybreaker.STATE_OPEN:
            self._tally.half_open()
        self._probes_out += 1
        return Permit(self, self._generation, is_probe=True)

    def _settle(self, permit: Permit, outcome: Outcome) -> None:
        if permit.generation != self._generation:
            return  # admitted before the last transition: says nothing about now
        if permit.is_probe:
            self._probes_out -= 1
        if outcome is Outcome.IGNORED:
            return
        if outcome is Outcome.FAILURE:
            self._tell(_fail)
        elif permit.is_probe or self._tally.fail_counter:
            self._tell(_succeed)
            permit.generation = self._generation  # the transition it made itself is no news to it

    def _tell(self, verdict: Callable[[], None]) -> None:
        with contextlib.suppress(_FailureRecorded):
            self._tally.call(verdict)


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

    def fail_late(self) -> None:
        """After a success verdict the endpoint died all the same: one failure, unless the breaker has moved on."""
        if self.generation == self._breaker._generation:  # noqa: SLF001 - as above
            self._breaker.record_failure()

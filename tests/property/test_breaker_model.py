"""The breaker against a reference model, for arbitrary sequences of what can happen to it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from neurogate.resilience.breaker import BreakerSettings, EndpointBreaker, Outcome, Permit


class Model:
    """What a breaker is meant to be, without a library: three states, a count, and the era of each permit."""

    def __init__(self, fail_max: int, reset_s: float) -> None:
        self.fail_max = fail_max
        self.reset_s = reset_s
        self.state = "closed"
        self.failures = 0
        self.era = 0
        self.opened_at = 0.0
        self.probes = 0
        self.transitions: list[str] = []

    def admits(self, now: float) -> bool:
        if self.state == "closed":
            return True
        if self.state == "open":
            return now >= self.opened_at + self.reset_s
        return self.probes == 0

    def probe(self, now: float) -> None:
        if self.state == "open":
            self.move("half-open", now)
        self.probes += 1

    def settle(self, era: int, *, is_probe: bool, outcome: Outcome, now: float) -> None:
        if era != self.era:
            return
        if is_probe:
            self.probes -= 1
        if outcome is Outcome.FAILURE:
            self.fail(now)
        elif outcome is Outcome.SUCCESS:
            self.failures = 0
            if self.state == "half-open":
                self.move("closed", now)

    def fail(self, now: float) -> None:
        if self.state == "open":
            return
        self.failures += 1
        if self.state == "half-open" or self.failures >= self.fail_max:
            self.move("open", now)

    def move(self, state: str, now: float) -> None:
        self.state = state
        self.era += 1
        self.probes = 0
        self.transitions.append(state)
        if state == "open":
            self.opened_at = now


@dataclass
class Held:
    """A permit of the breaker beside what the model knows of it."""

    permit: Permit
    era: int
    is_probe: bool
    forced: bool


class BreakerMachine(RuleBasedStateMachine):
    @initialize(fail_max=st.integers(1, 4), reset_s=st.sampled_from([0.5, 1.0, 30.0]))
    def begin(self, fail_max: int, reset_s: float) -> None:
        self.now = 100.0
        self.model = Model(fail_max, reset_s)
        self.transitions: list[str] = []
        breaker_settings = BreakerSettings(fail_max, reset_s)
        self.breaker = EndpointBreaker(breaker_settings, now=lambda: self.now, on_transition=self.transitions.append)
        self.held: list[Held] = []
        self.settled: list[Held] = []

    @rule()
    def acquire(self) -> None:
        expected = self.model.admits(self.now)
        is_probe = self.model.state != "closed"
        permit = self.breaker.try_acquire()

        assert (permit is not None) is expected
        if permit is not None:
            assert permit.is_probe is is_probe
            if is_probe:
                self.model.probe(self.now)
            self.held.append(Held(permit, self.model.era, is_probe, forced=False))

    @rule()
    def force(self) -> None:
        permit = self.breaker.force()
        self.model.probe(self.now)

        assert permit.is_probe
        self.held.append(Held(permit, self.model.era, is_probe=True, forced=True))

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 1000), outcome=st.sampled_from(Outcome))
    def settle(self, which: int, outcome: Outcome) -> None:
        held = self.held.pop(which % len(self.held))
        held.permit.settle(outcome)
        was_current = held.era == self.model.era
        self.model.settle(held.era, is_probe=held.is_probe, outcome=outcome, now=self.now)
        if was_current and outcome is Outcome.SUCCESS:
            held.era = self.model.era  # the transition it made itself is no news to it
        self.settled.append(held)

        with pytest.raises(RuntimeError):
            held.permit.settle(outcome)

    @precondition(lambda self: self.settled)
    @rule(which=st.integers(0, 1000))
    def fail_late(self, which: int) -> None:
        held = self.settled.pop(which % len(self.settled))
        held.permit.fail_late()
        if held.era == self.model.era:
            self.model.fail(self.now)

    @rule()
    def record_failure(self) -> None:
        self.breaker.record_failure()
        self.model.fail(self.now)

    @rule(seconds=st.sampled_from([0.001, 0.25, 0.5, 1.0, 29.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def agrees_with_the_model(self) -> None:
        assert self.breaker.state == self.model.state
        assert self.breaker.admits == self.model.admits(self.now)
        assert self.breaker.may_admit == (self.model.state == "half-open" or self.model.admits(self.now))
        assert self.breaker.consecutive_failures == self.model.failures
        assert self.transitions == self.model.transitions
        if self.model.state == "open":
            assert self.breaker.retry_at == self.model.opened_at + self.model.reset_s

    @invariant()
    def at_most_one_probe_is_out_unless_it_was_forced(self) -> None:
        out = [held for held in self.held if held.era == self.model.era and held.is_probe and not held.forced]

        assert self.model.state == "closed" or len(out) <= 1

    @invariant()
    def no_probe_is_stuck(self) -> None:
        """A half-open breaker admits somebody, unless a permit that can still be settled holds the place."""
        out = [held for held in self.held if held.era == self.model.era and held.is_probe]

        assert self.model.state != "half-open" or self.breaker.admits == (not out)


BreakerMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
TestBreakerModel = BreakerMachine.TestCase

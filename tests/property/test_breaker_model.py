"""The breaker against a reference model, for arbitrary sequences of what can happen to it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from neurogate.resilience.breaker import BreakerSettings, EndpointBreaker, Outcome, Permit


@dataclass(frozen=True)
class Ended:
    """A call that a closed breaker was told of."""

    at: float
    bad: bool


class Model:
    """What a breaker is meant to be, without a library: three states, every call it was told of, each permit's era."""

    def __init__(self, bounds: BreakerSettings) -> None:
        self.bounds = bounds
        self.state = "closed"
        self.failures = 0
        self.era = 0
        self.opened_at = 0.0
        self.probes = 0
        self.probed_at = 0.0
        self.users_probe = True
        self.dispensable = True
        self.calls: list[Ended] = []
        self.timed: list[Ended] = []
        self.timed_until = 0.0
        """When the latest of them was: what is older than a window by then does not count."""
        self.transitions: list[str] = []

    def admits_probe(self, now: float) -> bool:
        if self.state == "open":
            return now >= self.opened_at + self.bounds.reset_timeout_s
        return self.state == "half-open" and now >= self.probed_at + self.bounds.probe_s

    def admits(self, now: float) -> bool:
        return self.state == "closed" or (self.users_probe and self.admits_probe(now))

    def probe(self, now: float, *, forced: bool = False) -> None:
        if self.state == "open":
            self.move("half-open", now)
        elif not forced:
            self.era += 1
            self.probes = 0
        self.probes += 1
        self.probed_at = now

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
            else:
                self.calls.append(Ended(now, bad=False))
        elif self.state == "half-open" and not self.probes:
            self.move("open", now, anew=False)

    def answered(self, era: int, ttft_s: float, now: float) -> None:
        if era != self.era:
            return
        slow = ttft_s > self.bounds.slow_s > 0
        if slow or any(call.bad for call in self.told(self.timed, 2 * self.bounds.slow_s, self.timed_until)):
            self.timed_until = now
            self.timed.append(Ended(now, bad=slow))
        many = slow and self.too_many(
            self.timed, 2 * self.bounds.slow_s, self.bounds.slow_rate, self.bounds.slow_min_calls
        )
        if many and self.dispensable:
            self.move("open", now)

    def fail(self, now: float) -> None:
        if self.state == "open":
            return
        self.failures += 1
        if self.state == "half-open" or self.failures >= self.bounds.fail_max:
            self.move("open", now)
            return
        self.calls.append(Ended(now, bad=True))
        if self.bounds.failure_rate and self.too_many(
            self.calls, self.bounds.window_s, self.bounds.failure_rate, self.bounds.min_calls
        ):
            self.move("open", now)

    @staticmethod
    def told(calls: list[Ended], window_s: float, now: float) -> list[Ended]:
        """Those of the ten buckets that end with the present one."""
        bucket_s = window_s / 10
        return [call for call in calls if int(call.at / bucket_s) > int(now / bucket_s) - 10]

    def too_many(self, calls: list[Ended], window_s: float, rate: float, min_calls: int) -> bool:
        recent = self.told(calls, window_s, calls[-1].at)
        return len(recent) >= min_calls and sum(call.bad for call in recent) >= rate * len(recent)

    def move(self, state: str, now: float, *, anew: bool = True) -> None:
        self.state = state
        self.era += 1
        self.probes = 0
        self.calls, self.timed = [], []
        self.transitions.append(state)
        if state == "open" and anew:
            self.opened_at = now


@dataclass
class Held:
    """A permit of the breaker beside what the model knows of it."""

    permit: Permit
    era: int
    is_probe: bool
    forced: bool
    answered: bool = False


class BreakerMachine(RuleBasedStateMachine):
    @initialize(
        fail_max=st.integers(1, 6),
        reset_s=st.sampled_from([0.5, 1.0, 30.0]),
        failure_rate=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
        min_calls=st.integers(1, 8),
        slow_s=st.sampled_from([0.0, 1.0, 5.0]),
        slow_min_calls=st.integers(1, 4),
        probe_s=st.sampled_from([1.0, 60.0]),
    )
    def begin(
        self,
        fail_max: int,
        reset_s: float,
        failure_rate: float,
        min_calls: int,
        slow_s: float,
        slow_min_calls: int,
        probe_s: float,
    ) -> None:
        self.now = 100.0
        bounds = BreakerSettings(
            fail_max,
            reset_s,
            window_s=10.0,
            failure_rate=failure_rate,
            min_calls=min_calls,
            slow_s=slow_s,
            slow_rate=0.5,
            slow_min_calls=slow_min_calls,
            probe_s=probe_s,
        )
        self.model = Model(bounds)
        self.transitions: list[str] = []
        self.breaker = EndpointBreaker(
            bounds,
            now=lambda: self.now,
            on_transition=self.transitions.append,
            dispensable=lambda: self.model.dispensable,
        )
        self.held: list[Held] = []
        self.settled: list[Held] = []

    @rule()
    def acquire(self) -> None:
        expected = self.model.admits(self.now)
        is_probe = self.model.state != "closed"
        self.take(self.breaker.try_acquire(), expected=expected, is_probe=is_probe)

    @rule(early=st.booleans())
    def probe(self, early: bool) -> None:
        expected = self.model.admits_probe(self.now) or (early and self.model.state == "open")
        self.take(self.breaker.probe(early=early), expected=expected, is_probe=True)

    def take(self, permit: Permit | None, *, expected: bool, is_probe: bool) -> None:
        assert (permit is not None) is expected
        if permit is not None:
            assert permit.is_probe is is_probe
            if is_probe:
                self.model.probe(self.now)
            self.held.append(Held(permit, self.model.era, is_probe, forced=False))

    @rule()
    def force(self) -> None:
        permit = self.breaker.force()
        self.model.probe(self.now, forced=True)

        assert permit.is_probe
        self.held.append(Held(permit, self.model.era, is_probe=True, forced=True))

    @rule(users_probe=st.booleans())
    def leave_probes_to(self, users_probe: bool) -> None:
        self.breaker.users_probe = self.model.users_probe = users_probe

    @rule(dispensable=st.booleans())
    def others_come_and_go(self, dispensable: bool) -> None:
        self.model.dispensable = dispensable

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 1000), outcome=st.sampled_from(Outcome))
    def settle(self, which: int, outcome: Outcome) -> None:
        held = self.held.pop(which % len(self.held))
        held.permit.settle(outcome)
        self.was_settled(held, outcome)

        with pytest.raises(RuntimeError):
            held.permit.settle(outcome)

    def was_settled(self, held: Held, outcome: Outcome) -> None:
        was_current = held.era == self.model.era
        self.model.settle(held.era, is_probe=held.is_probe, outcome=outcome, now=self.now)
        if was_current and outcome is Outcome.SUCCESS:
            held.era = self.model.era  # the transition it made itself is no news to it
        self.settled.append(held)

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 1000), ttft_s=st.sampled_from([0.1, 1.0, 1.5, 9.0]))
    def answered(self, which: int, ttft_s: float) -> None:
        held = self.held[which % len(self.held)]
        if held.answered:
            return
        held.answered = True
        held.permit.answered(ttft_s)
        assert held.permit.settled is held.is_probe
        if held.is_probe:
            self.held.remove(held)
            slow = ttft_s > self.model.bounds.slow_s > 0 and self.model.dispensable
            self.was_settled(held, Outcome.FAILURE if slow else Outcome.SUCCESS)
        else:
            self.model.answered(held.era, ttft_s, self.now)

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

    @rule()
    def reset(self) -> None:
        self.breaker.reset()
        self.model.failures = 0
        self.model.move("closed", self.now)

    @rule(seconds=st.sampled_from([0.001, 0.25, 0.5, 1.0, 4.0, 29.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def agrees_with_the_model(self) -> None:
        assert self.breaker.state == self.model.state
        assert self.breaker.admits == self.model.admits(self.now)
        assert self.breaker.may_admit == (
            self.model.admits(self.now) or (self.model.state == "half-open" and self.model.users_probe)
        )
        assert self.breaker.consecutive_failures == self.model.failures
        assert self.transitions == self.model.transitions
        if self.model.state == "open":
            assert self.breaker.retry_at == self.model.opened_at + self.model.bounds.reset_timeout_s

    @invariant()
    def at_most_one_probe_is_out_unless_it_was_forced(self) -> None:
        out = [held for held in self.held if held.era == self.model.era and held.is_probe and not held.forced]

        assert self.model.state == "closed" or len(out) <= 1

    @invariant()
    def half_open_means_that_a_probe_is_out(self) -> None:
        """One that can still be settled, so that the breaker is never stuck."""
        out = [held for held in self.held if held.era == self.model.era and held.is_probe]

        assert self.model.state != "half-open" or out


BreakerMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
TestBreakerModel = BreakerMachine.TestCase

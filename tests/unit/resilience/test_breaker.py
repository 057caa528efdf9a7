"""The breaker of one endpoint, on a clock that the test holds."""

from __future__ import annotations

import pytest

from neurogate.resilience.breaker import BreakerSettings, EndpointBreaker, Outcome, Permit


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Rig:
    def __init__(self, fail_max: int = 3, reset_timeout_s: float = 30.0) -> None:
        self.clock = Clock()
        self.transitions: list[str] = []
        settings = BreakerSettings(fail_max, reset_timeout_s)
        self.breaker = EndpointBreaker(settings, now=self.clock, on_transition=self.transitions.append)

    def permit(self) -> Permit:
        permit = self.breaker.try_acquire()
        assert permit is not None
        return permit

    def call(self, outcome: Outcome) -> None:
        self.permit().settle(outcome)

    def trip(self) -> None:
        while self.breaker.state != "open":
            self.breaker.record_failure()


def test_defaults_are_three_failures_and_thirty_seconds():
    assert BreakerSettings() == BreakerSettings(fail_max=3, reset_timeout_s=30.0)


def test_a_new_breaker_is_closed_and_admits_any_number_of_calls():
    rig = Rig()

    permits = [rig.permit() for _ in range(100)]

    assert (rig.breaker.state, rig.breaker.admits, rig.transitions) == ("closed", True, [])
    assert not any(permit.is_probe for permit in permits)


def test_opens_at_the_third_consecutive_failure_and_not_before():
    rig = Rig()

    states = []
    for _ in range(3):
        rig.call(Outcome.FAILURE)
        states.append(rig.breaker.state)

    assert states == ["closed", "closed", "open"]
    assert rig.transitions == ["open"]


def test_a_success_starts_the_count_again():
    rig = Rig()
    for outcome in (Outcome.FAILURE, Outcome.FAILURE, Outcome.SUCCESS, Outcome.FAILURE, Outcome.FAILURE):
        rig.call(outcome)

    assert (rig.breaker.state, rig.breaker.consecutive_failures) == ("closed", 2)


def test_an_ignored_outcome_neither_counts_nor_resets():
    rig = Rig()
    for outcome in (Outcome.FAILURE, Outcome.FAILURE, Outcome.IGNORED):
        rig.call(outcome)

    assert (rig.breaker.state, rig.breaker.consecutive_failures) == ("closed", 2)

    rig.call(Outcome.FAILURE)

    assert rig.breaker.state == "open"


def test_an_open_breaker_admits_nobody_until_its_time_is_over():
    rig = Rig()
    rig.trip()

    assert rig.breaker.retry_at == 1030.0
    rig.clock.now = 1029.999
    assert not rig.breaker.admits
    assert rig.breaker.try_acquire() is None
    assert rig.breaker.state == "open"


def test_after_its_time_exactly_one_probe_is_admitted():
    rig = Rig()
    rig.trip()
    rig.clock.now = 1030.0

    assert rig.breaker.admits
    probe = rig.permit()

    assert probe.is_probe
    assert rig.breaker.state == "half-open"
    assert not rig.breaker.admits
    assert [rig.breaker.try_acquire() for _ in range(10)] == [None] * 10


def test_a_good_probe_closes_it_with_a_clean_count():
    rig = Rig()
    rig.trip()
    rig.clock.now = 1030.0
    rig.call(Outcome.SUCCESS)

    assert rig.transitions == ["open", "half-open", "closed"]
    assert (rig.breaker.admits, rig.breaker.consecutive_failures) == (True, 0)

    rig.call(Outcome.FAILURE)
    rig.call(Outcome.FAILURE)

    assert rig.breaker.state == "closed"


def test_a_bad_probe_opens_it_again_for_the_whole_time():
    rig = Rig()
    rig.trip()
    rig.clock.now = 1050.0
    rig.call(Outcome.FAILURE)

    assert rig.transitions == ["open", "half-open", "open"]
    assert rig.breaker.retry_at == 1080.0


def test_an_ignored_probe_makes_room_for_another_one():
    rig = Rig()
    rig.trip()
    rig.clock.now = 1030.0
    rig.call(Outcome.IGNORED)

    assert (rig.breaker.state, rig.breaker.admits) == ("half-open", True)
    assert rig.permit().is_probe


@pytest.mark.parametrize("outcome", list(Outcome))
def test_verdicts_older_than_the_last_transition_are_dropped(outcome: Outcome):
    rig = Rig()
    stale = [rig.permit() for _ in range(4)]
    rig.trip()

    stale[0].settle(outcome)
    assert rig.breaker.state == "open"

    rig.clock.now = 1030.0
    probe = rig.permit()
    stale[1].settle(outcome)
    assert rig.breaker.state == "half-open"
    assert not rig.breaker.admits

    probe.settle(Outcome.SUCCESS)
    stale[2].settle(outcome)
    assert (rig.breaker.state, rig.breaker.consecutive_failures) == ("closed", 0)


def test_a_stale_failure_does_not_push_the_open_time_on():
    rig = Rig()
    stale = rig.permit()
    rig.trip()
    rig.clock.now = 1010.0
    stale.settle(Outcome.FAILURE)
    rig.breaker.record_failure()

    assert rig.breaker.retry_at == 1030.0


def test_failures_outside_calls_count_while_closed():
    rig = Rig()
    rig.call(Outcome.FAILURE)
    rig.breaker.record_failure()
    rig.breaker.record_failure()

    assert rig.transitions == ["open"]


def test_a_failure_outside_calls_opens_a_half_open_breaker_and_its_probe_is_stale():
    rig = Rig()
    rig.trip()
    rig.clock.now = 1030.0
    probe = rig.permit()
    rig.breaker.record_failure()

    assert (rig.breaker.state, rig.breaker.retry_at) == ("open", 1060.0)

    probe.settle(Outcome.SUCCESS)

    assert rig.breaker.state == "open"


def test_a_late_failure_counts_once_more():
    rig = Rig()
    permit = rig.permit()
    permit.settle(Outcome.SUCCESS)
    permit.fail_late()

    assert rig.breaker.consecutive_failures == 1


def test_a_late_failure_of_an_earlier_generation_is_dropped():
    rig = Rig()
    permit = rig.permit()
    permit.settle(Outcome.SUCCESS)
    rig.trip()
    rig.clock.now = 1030.0
    rig.call(Outcome.SUCCESS)
    permit.fail_late()

    assert (rig.breaker.state, rig.breaker.consecutive_failures) == ("closed", 0)


def test_a_permit_is_settled_once():
    permit = Rig().permit()
    assert not permit.settled
    permit.settle(Outcome.IGNORED)

    assert permit.settled
    with pytest.raises(RuntimeError, match="settled twice"):
        permit.settle(Outcome.SUCCESS)


@pytest.mark.parametrize(("outcome", "state"), [(Outcome.SUCCESS, "closed"), (Outcome.FAILURE, "open")])
def test_a_forced_permit_is_judged_like_a_probe(outcome: Outcome, state: str):
    rig = Rig()
    rig.trip()
    rig.clock.now = 1010.0
    forced = rig.breaker.force()

    assert forced.is_probe
    assert rig.breaker.state == "half-open"
    assert rig.breaker.try_acquire() is None

    forced.settle(outcome)

    assert rig.breaker.state == state
    assert rig.breaker.retry_at == (1040.0 if state == "open" else 1030.0)


def test_a_forced_permit_that_is_ignored_leaves_the_probe_that_is_out_the_only_one():
    """Otherwise a second probe were admitted beside the first."""
    rig = Rig()
    rig.trip()
    rig.clock.now = 1030.0
    probe = rig.permit()
    rig.breaker.force().settle(Outcome.IGNORED)

    assert not rig.breaker.admits
    assert rig.breaker.try_acquire() is None

    probe.settle(Outcome.IGNORED)

    assert rig.breaker.admits


def test_a_forced_permit_on_a_closed_breaker_counts_as_any_other():
    rig = Rig()
    rig.breaker.force().settle(Outcome.FAILURE)

    assert (rig.breaker.state, rig.breaker.consecutive_failures, rig.breaker.admits) == ("closed", 1, True)


def test_one_failure_can_be_enough():
    rig = Rig(fail_max=1, reset_timeout_s=0.5)
    rig.call(Outcome.FAILURE)

    assert (rig.breaker.state, rig.breaker.retry_at) == ("open", 1000.5)


def test_repr_says_state_and_count():
    rig = Rig()
    rig.call(Outcome.FAILURE)

    assert repr(rig.breaker) == "<EndpointBreaker closed failures=1>"

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
    def __init__(self, fail_max: int = 3, reset_timeout_s: float = 30.0, **bounds: float) -> None:
        self.clock = Clock()
        self.transitions: list[str] = []
        settings = BreakerSettings(fail_max, reset_timeout_s, **bounds)
        self.dispensable = True
        self.breaker = EndpointBreaker(
            settings,
            now=self.clock,
            on_transition=self.transitions.append,
            dispensable=lambda: self.dispensable,
        )

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


def test_slow_calls_are_no_reason_unless_somebody_says_what_slow_is():
    assert BreakerSettings().slow_s == 0.0


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

    assert (rig.breaker.state, rig.breaker.admits) == ("open", True)
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


def test_a_forced_permit_that_is_ignored_early_leaves_the_breaker_open_for_the_rest_of_its_time():
    rig = Rig()
    rig.trip()
    rig.clock.now = 1010.0
    rig.breaker.force().settle(Outcome.IGNORED)

    assert (rig.breaker.state, rig.breaker.retry_at, rig.breaker.admits) == ("open", 1030.0, False)
    assert rig.transitions == ["open", "half-open", "open"]


def test_a_probe_that_is_out_for_too_long_makes_room_for_another_one_and_its_verdict_is_ignored():
    rig = Rig(probe_s=60.0)
    rig.trip()
    rig.clock.now = 1030.0
    stale = rig.permit()
    rig.clock.now = 1089.9
    assert rig.breaker.try_acquire() is None
    rig.clock.now = 1090.0
    fresh = rig.permit()

    assert rig.breaker.try_acquire() is None
    stale.settle(Outcome.FAILURE)
    assert (rig.breaker.state, rig.breaker.admits) == ("half-open", False)

    fresh.settle(Outcome.SUCCESS)
    assert rig.transitions == ["open", "half-open", "closed"]


def test_where_users_do_not_probe_only_who_asks_for_the_probe_gets_it():
    rig = Rig()
    rig.breaker.users_probe = False
    assert rig.breaker.probe() is None
    rig.permit().settle(Outcome.SUCCESS)
    rig.trip()
    assert rig.breaker.probe() is None
    rig.clock.now = 1030.0

    assert (rig.breaker.admits, rig.breaker.may_admit, rig.breaker.try_acquire()) == (False, False, None)
    probe = rig.breaker.probe()
    assert probe is not None
    assert rig.breaker.probe(early=True) is None
    assert (rig.breaker.state, rig.breaker.admits, rig.breaker.may_admit) == ("half-open", False, False)

    probe.settle(Outcome.SUCCESS)
    assert rig.breaker.state == "closed"


def test_an_early_probe_does_not_wait_for_the_breakers_time():
    rig = Rig()
    rig.trip()
    rig.clock.now = 1001.0
    probe = rig.breaker.probe(early=True)

    assert probe is not None
    probe.settle(Outcome.SUCCESS)
    assert rig.breaker.state == "closed"


def test_half_of_the_calls_failing_opens_it_although_no_three_fail_in_a_row():
    rig = Rig()
    states = []
    for _ in range(10):
        rig.call(Outcome.SUCCESS)
        rig.call(Outcome.FAILURE)
        states.append(rig.breaker.state)

    assert states == ["closed"] * 9 + ["open"]


@pytest.mark.parametrize(
    ("calls", "spread_s", "bounds"),
    [(19, 0.0, {}), (200, 1.0, {}), (200, 0.0, {"failure_rate": 0.0}), (200, 0.0, {"failure_rate": 0.6})],
    ids=["too few", "too thin", "off", "below the rate"],
)
def test_a_share_of_failures_that_says_too_little_does_not(calls: int, spread_s: float, bounds: dict[str, float]):
    rig = Rig(**bounds)
    for index in range(calls):
        rig.call(Outcome.FAILURE if index % 2 else Outcome.SUCCESS)
        rig.clock.now += spread_s

    assert rig.breaker.state == "closed"


def test_failures_of_before_an_opening_do_not_count_after_it():
    rig = Rig(min_calls=4)
    for outcome in (Outcome.SUCCESS, Outcome.SUCCESS, Outcome.FAILURE, Outcome.FAILURE):
        rig.call(outcome)
    assert rig.breaker.state == "open"
    rig.breaker.reset()
    rig.call(Outcome.SUCCESS)
    rig.call(Outcome.SUCCESS)
    rig.call(Outcome.FAILURE)

    assert rig.breaker.state == "closed"


def answer(rig: Rig, ttft_s: float) -> None:
    permit = rig.permit()
    permit.answered(ttft_s)
    permit.settle(Outcome.SUCCESS)


def test_slow_first_tokens_open_it_although_every_call_succeeds():
    rig = Rig(slow_s=30.0)
    for _ in range(4):
        answer(rig, 31.0)
    assert rig.breaker.state == "closed"
    rig.permit().answered(30.5)

    assert rig.breaker.state == "open"


def test_slow_first_tokens_do_not_open_one_that_cannot_be_spared():
    rig = Rig(slow_s=30.0)
    rig.dispensable = False
    for _ in range(20):
        answer(rig, 31.0)
    assert (rig.breaker.state, rig.transitions) == ("closed", [])

    rig.dispensable = True
    answer(rig, 31.0)

    assert rig.breaker.state == "open"


def test_a_slow_probe_of_one_that_cannot_be_spared_has_succeeded():
    rig = Rig(slow_s=30.0)
    rig.dispensable = False
    rig.trip()
    rig.clock.now = 1030.0
    rig.permit().answered(31.0)

    assert rig.breaker.state == "closed"


@pytest.mark.parametrize(
    ("times_s", "apart_s", "bounds"),
    [
        ([31.0] * 4, 0.0, {}),
        ([30.0] * 20, 0.0, {}),
        ([31.0, 1.0, 1.0] * 10, 0.0, {}),
        ([31.0] * 20, 20.0, {}),
        ([3600.0] * 20, 0.0, {"slow_s": 0.0}),
    ],
    ids=["too few", "just in time", "below the rate", "too thin", "off"],
)
def test_slowness_that_says_too_little_does_not(times_s: list[float], apart_s: float, bounds: dict[str, float]):
    rig = Rig(**{"slow_s": 30.0, **bounds})
    for ttft_s in times_s:
        answer(rig, ttft_s)
        rig.clock.now += apart_s

    assert rig.breaker.state == "closed"


def test_a_late_first_token_of_an_earlier_generation_says_nothing():
    rig = Rig(slow_s=30.0, slow_min_calls=1)
    stale = rig.permit()
    rig.breaker.reset()
    stale.answered(31.0)

    assert rig.breaker.state == "closed"


@pytest.mark.parametrize(("ttft_s", "state"), [(30.0, "closed"), (30.1, "open")])
def test_a_slow_probe_has_failed(ttft_s: float, state: str):
    rig = Rig(slow_s=30.0)
    rig.trip()
    rig.clock.now = 1030.0
    probe = rig.permit()
    probe.answered(ttft_s)
    assert (rig.breaker.state, probe.settled) == (state, True)
    probe.fail_late()

    assert rig.breaker.consecutive_failures == (1 if state == "closed" else 4)


def test_other_bounds_hold_from_now_on():
    rig = Rig()
    rig.call(Outcome.FAILURE)
    rig.breaker.configure(BreakerSettings(fail_max=9, min_calls=2))
    rig.call(Outcome.FAILURE)
    assert rig.breaker.state == "closed"
    rig.call(Outcome.FAILURE)

    assert rig.breaker.state == "open"


def test_one_failure_can_be_enough():
    rig = Rig(fail_max=1, reset_timeout_s=0.5)
    rig.call(Outcome.FAILURE)

    assert (rig.breaker.state, rig.breaker.retry_at) == ("open", 1000.5)


def test_repr_says_state_and_count():
    rig = Rig()
    rig.call(Outcome.FAILURE)

    assert repr(rig.breaker) == "<EndpointBreaker closed failures=1>"

"""The pace of a queue, and what is learned of those who waited."""

from __future__ import annotations

import math

import pytest

from neurogate.edge.pace import Pace
from neurogate.edge.patience import Patience


def test_a_pace_is_not_known_before_some_turns():
    pace = Pace(0.0)
    pace.waited_for(0.0)
    for second in (1.0, 2.0, 3.0):
        pace.turn(second)
    assert pace.seconds(3.0) == 0.0


def test_turns_at_even_distances_have_that_pace():
    pace = Pace(0.0)
    pace.waited_for(0.0)
    for turn in range(1, 101):
        pace.turn(turn * 0.5)
    assert pace.seconds(50.0) == pytest.approx(0.5, rel=0.02)


def test_a_slow_queue_has_a_pace_too():
    pace = Pace(0.0)
    pace.waited_for(0.0)
    for turn in range(1, 41):
        pace.turn(turn * 60.0)
    assert pace.seconds(40 * 60.0) == pytest.approx(60.0, rel=0.25)


def test_bursts_have_the_pace_of_their_mean():
    """An engine that decodes in a batch ends many requests at once."""
    pace = Pace(0.0)
    pace.waited_for(0.0)
    for burst in range(1, 31):
        for _ in range(16):
            pace.turn(burst * 4.0)
    assert pace.seconds(121.0) == pytest.approx(0.25, rel=0.1)


def test_time_without_a_queue_is_not_counted():
    pace = Pace(0.0)
    now = 0.0
    for _ in range(20):
        pace.waited_for(now)
        pace.waited_for(now)
        now += 1.0
        pace.turn(now)
        pace.left(now)
        now += 30.0
    assert pace.seconds(now) == pytest.approx(1.0, rel=0.05)


def test_a_queue_that_stands_still_gets_slower_and_a_fast_one_is_soon_believed():
    pace = Pace(0.0)
    pace.waited_for(0.0)
    for turn in range(1, 61):
        pace.turn(turn * 0.5)
    assert pace.seconds(45.0) > 1.0
    for turn in range(600):
        pace.turn(45.0 + turn * 0.1)
    assert pace.seconds(105.0) < 0.15


def test_usual_times_are_those_of_the_quicker_requests_and_not_known_before_some():
    patience = Patience()
    for _ in range(7):
        patience.answered(2.0)
    assert patience.needed_s == 0.0
    patience.answered(2.0)
    assert patience.needed_s == pytest.approx(1.1 * 2.0)
    for turn in range(400):
        patience.answered(1.0 if turn % 3 == 0 else 60.0)
    assert 0.9 < patience.needed_s < 15.0


def test_more_time_must_be_left_where_those_that_are_begun_run_out_of_it():
    patience = Patience()
    for _ in range(8):
        patience.answered(1.0)
    for _ in range(10):
        patience.ran_out()
    assert patience.needed_s == pytest.approx(1.6)
    for _ in range(1000):
        patience.ran_out()
    assert patience.needed_s == pytest.approx(10.0)
    for _ in range(10_000):
        patience.answered(1.0)
    assert patience.needed_s == pytest.approx(1.1)
    assert patience.limit_s == math.inf


def test_a_few_who_leave_shorten_nothing():
    patience = Patience()
    for turn in range(640):
        if turn % 8 == 0:
            patience.gave_up(0.1)
        else:
            patience.answered(1.0)
    assert patience.limit_s == math.inf


def test_many_who_leave_shorten_the_wait_below_theirs_and_it_grows_back_slowly():
    patience = Patience()
    for _ in range(4):
        patience.gave_up(10.0)
    assert patience.limit_s == pytest.approx(7.0)
    for _ in range(1600):
        patience.answered(0.5)
    assert 8.0 < patience.limit_s < 10.0
    patience.rested()
    assert patience.limit_s > 16.0


def test_the_wait_is_never_shortened_below_what_requests_take():
    patience = Patience()
    for _ in range(8):
        patience.answered(5.0)
    for _ in range(400):
        patience.gave_up(0.01)
    assert patience.limit_s == pytest.approx(5.0)

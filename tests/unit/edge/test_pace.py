"""The pace of a queue."""

from __future__ import annotations

import pytest

from neurogate.edge.pace import Pace


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

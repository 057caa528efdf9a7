"""The share of bad calls of the last seconds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurogate.resilience.window import RateWindow


def test_counts_what_it_was_told() -> None:
    window = RateWindow(10.0)
    for bad in (False, True, False, False):
        window.record(100.0, bad=bad)

    assert (window.calls, window.bad) == (4, 1)


def test_what_is_older_than_the_window_is_forgotten_bucket_by_bucket() -> None:
    window = RateWindow(10.0)
    for second in range(100, 125):
        window.record(float(second), bad=second % 5 == 0)

    assert (window.calls, window.bad) == (10, 2)


@pytest.mark.parametrize(("pause_s", "calls"), [(8.9, 3), (9.9, 3), (10.0, 1), (11.0, 1), (1e6, 1)])
def test_a_pause_forgets_what_lies_before_it(pause_s: float, calls: int) -> None:
    window = RateWindow(10.0)
    window.record(100.0, bad=True)
    window.record(100.0, bad=True)
    window.record(100.0 + pause_s, bad=False)

    assert (window.calls, window.bad) == (calls, calls - 1)


@pytest.mark.parametrize(
    ("good", "bad", "exceeds"), [(10, 10, True), (11, 10, False), (9, 10, False), (0, 20, True), (0, 0, False)]
)
def test_a_share_counts_from_a_volume_on(good: int, bad: int, exceeds: bool) -> None:
    window = RateWindow(10.0)
    for index in range(good + bad):
        window.record(100.0, bad=index >= good)

    assert window.exceeds(0.5, 20) is exceeds


def test_clear_forgets_everything() -> None:
    window = RateWindow(1.0)
    window.record(100.0, bad=True)
    window.clear()
    window.record(100.5, bad=False)

    assert (window.calls, window.bad) == (1, 0)


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=60))
def test_counts_what_lies_in_the_last_ten_buckets_however_calls_are_spread(calls: list[tuple[int, bool]]) -> None:
    window = RateWindow(10.0)
    now, made = 100, []
    for pause_s, bad in calls:
        now += pause_s
        made.append((now, bad))
        window.record(float(now), bad=bad)
        within = [was_bad for at, was_bad in made if at > now - 10]

        assert (window.calls, window.bad) == (len(within), sum(within))


def test_many_calls_at_once_do_not_run_over() -> None:
    window = RateWindow(10.0)
    for _ in range(70_000):
        window.record(100.0, bad=True)
    window.record(101.0, bad=False)

    assert (window.calls, window.bad) == (70_001, 70_000)

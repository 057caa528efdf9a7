"""How much time a request must have left, learned from those that are like it."""

from __future__ import annotations

import pytest

from neurogate.edge.need import Need, Needs

LANE = ("small", "")


def test_usual_times_are_those_of_the_quicker_requests_and_not_known_before_some() -> None:
    need = Need()
    for _ in range(7):
        need.answered(2.0)
    assert (need.seconds, need.usual_s) == (0.0, 0.0)
    need.answered(2.0)
    assert (need.seconds, need.usual_s) == (pytest.approx(1.1 * 2.0), pytest.approx(2.0))
    for turn in range(400):
        need.answered(1.0 if turn % 3 == 0 else 60.0)
    assert 0.9 < need.seconds < 15.0


def test_more_time_must_be_left_where_those_that_are_begun_run_out_of_it() -> None:
    need = Need()
    for _ in range(8):
        need.answered(1.0)
    for _ in range(10):
        need.ran_out()
    assert need.seconds == pytest.approx(1.6)
    for _ in range(1000):
        need.ran_out()
    assert need.seconds == pytest.approx(10.0)
    for _ in range(10_000):
        need.answered(1.0)
    assert need.seconds == pytest.approx(1.1)


def test_short_requests_need_nothing_of_what_long_ones_take() -> None:
    needs = Needs()
    for _ in range(100):
        needs.of(LANE, 4096).answered(60.0)
        needs.of(LANE, None).answered(30.0)
        needs.of(("large", ""), 16).answered(20.0)
        needs.of(("small", "/v1/embeddings"), 16).answered(10.0)
    assert needs.of(LANE, 16).seconds == 0.0
    for _ in range(8):
        needs.of(LANE, 16).answered(0.5)
    assert needs.of(LANE, 16).seconds == pytest.approx(0.55)
    assert needs.of(LANE, 4096).seconds == pytest.approx(66.0)


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (16, 9, True),
        (64, 17, True),
        (16, 17, False),
        (64, 65, False),
        (1, 4, False),
        (0, 1, True),
        (16384, 16385, False),
        (20_000, 10**30, True),
        (None, 10**30, False),
    ],
)
def test_requests_are_alike_that_ask_for_about_as_many_tokens(one: int | None, other: int | None, alike: bool) -> None:
    needs = Needs()
    assert (needs.of(LANE, one) is needs.of(LANE, other)) is alike


def test_kinds_that_were_not_seen_for_the_longest_are_forgotten() -> None:
    needs = Needs()
    kept, lost = needs.of(("kept", ""), 1), needs.of(("lost", ""), 1)
    for number in range(1022):
        needs.of((f"model-{number}", ""), 1)
    assert needs.of(("kept", ""), 1) is kept
    needs.of(("one more", ""), 1)
    assert needs.of(("kept", ""), 1) is kept
    assert needs.of(("lost", ""), 1) is not lost

"""What a worker measures of itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurogate.inference import Usage
from neurogate.worker.meter import EXPECTED_TOKENS, Meter


def test_the_first_second_of_work_is_the_rate() -> None:
    meter = Meter()
    meter.tick(10)
    job = meter.begin(None)
    job.tokens(50)
    meter.tick(11)
    assert meter.decode_tokens_per_s == 50


def test_rates_follow_smoothly() -> None:
    """The newest second weighs 0.3."""
    meter = Meter()
    meter.tick(10)
    job = meter.begin(None)
    job.tokens(100)
    meter.tick(11)
    job.tokens(50)
    meter.tick(12)
    assert meter.decode_tokens_per_s == pytest.approx(100 + 0.3 * (50 - 100))


def test_an_idle_second_leaves_the_rates_as_they_are() -> None:
    """A rate is a worker's ability, not its luck: an idle worker must not look slow."""
    meter = Meter()
    meter.tick(10)
    job = meter.begin(None)
    job.tokens(100)
    job.end(Usage(40, 100))
    meter.tick(11)
    for second in range(12, 20):
        meter.tick(second)
    assert (meter.decode_tokens_per_s, meter.prompt_tokens_per_s) == (100, 40)


def test_a_second_of_waiting_for_the_first_token_counts() -> None:
    meter = Meter()
    meter.tick(10)
    job = meter.begin(None)
    job.tokens(100)
    meter.tick(11)
    meter.tick(12)
    assert meter.decode_tokens_per_s == pytest.approx(70)


def test_two_ticks_at_once_change_nothing() -> None:
    meter = Meter()
    meter.tick(10)
    meter.begin(None).tokens(10)
    meter.tick(10)
    assert meter.decode_tokens_per_s == 0


def test_exact_usage_corrects_what_was_counted_on_the_way() -> None:
    meter = Meter()
    job = meter.begin(None)
    job.tokens(7)
    job.end(Usage(3, 5))
    assert (meter.prompt_tokens_total, meter.completion_tokens_total) == (3, 5)


def test_a_correction_downwards_is_no_negative_rate() -> None:
    meter = Meter()
    meter.tick(10)
    job = meter.begin(None)
    job.tokens(100)
    meter.tick(11)
    job.end(Usage(0, 1))
    meter.tick(12)
    assert meter.decode_tokens_per_s == pytest.approx(70)


def test_outstanding_work_shrinks_with_every_token_and_never_vanishes_early() -> None:
    meter = Meter()
    limited, open_ended = meter.begin(3), meter.begin(None)
    assert meter.tokens_outstanding == 3 + EXPECTED_TOKENS
    limited.tokens(10)
    open_ended.tokens(6)
    assert meter.tokens_outstanding == 1 + EXPECTED_TOKENS - 6
    limited.end(None)
    open_ended.end(None)
    assert (meter.tokens_outstanding, meter.active, meter.requests_total) == (0, 0, 2)


@given(st.lists(st.tuples(st.integers(0, 200), st.none() | st.integers(0, 300), st.booleans()), max_size=20))
def test_whatever_happens_everything_is_counted_out(jobs: list[tuple[int, int | None, bool]]) -> None:
    meter = Meter()
    expected = 0
    for tokens, limit, exact in jobs:
        job = meter.begin(limit)
        job.tokens(tokens)
        usage = Usage(1, tokens // 2) if exact else None
        expected += tokens // 2 if exact else tokens
        job.end(usage)
        job.end(None)
    assert (meter.active, meter.tokens_outstanding) == (0, 0)
    assert meter.completion_tokens_total == expected
    assert meter.requests_total == len(jobs)

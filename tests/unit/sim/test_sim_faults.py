"""Reading and deciding the faults of the simulated engine."""

from __future__ import annotations

import random

import pytest

from neurogate.engines.sim.faults import Break, Faults, parse
from neurogate.errors import ConfigError


def test_no_text_is_no_fault() -> None:
    assert parse("") == parse(" , ") == Faults()


def test_every_fault_can_be_given() -> None:
    text = "error=0.25, busy=1,cut_after=1,error_after=2,hang_after=3,exit_after=4,refuse=1,slow_start=1.5,"
    text += "slow_after=5,token_every=2.5"
    assert parse(text) == Faults(
        error=0.25,
        busy=1.0,
        cut_after=1,
        error_after=2,
        hang_after=3,
        exit_after=4,
        refuse=True,
        slow_start_s=1.5,
        slow_after=5,
        token_every_s=2.5,
    )


def test_an_unknown_name_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(ConfigError) as raised:
        parse("explode=1")
    assert str(raised.value) == (
        "NEUROGATE_SIM_FAULTS: unknown fault 'explode'; valid are busy, cut_after, error, error_after, exit_after, "
        "hang_after, refuse, slow_after, slow_start, token_every"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("error=2", "error must be a probability from 0 to 1 (got '2')"),
        ("error=nan", "error must be a probability from 0 to 1 (got 'nan')"),
        ("busy=often", "busy must be a probability from 0 to 1 (got 'often')"),
        ("cut_after=-1", "cut_after must be a number of tokens (got '-1')"),
        ("hang_after=1.5", "hang_after must be a number of tokens (got '1.5')"),
        ("refuse=yes", "refuse must be 0 or 1 (got 'yes')"),
        ("slow_start=inf", "slow_start must be seconds (got 'inf')"),
        ("slow_start", "slow_start must be seconds (got '')"),
        ("cut_after=1,cut_after=2", "cut_after is given twice"),
    ],
)
def test_a_bad_value_is_refused_and_named(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse(text)
    assert str(raised.value) == f"NEUROGATE_SIM_FAULTS: {told}"


def test_a_switch_can_be_off() -> None:
    assert not parse("refuse=0").refuse


def test_the_same_seed_fails_the_same_requests() -> None:
    faults = parse("error=0.3,busy=0.3")

    def draws() -> list[str]:
        rng = random.Random(7)
        return [faults.draw(rng) for _ in range(200)]

    assert draws() == draws()
    assert set(draws()) == {"", "error", "busy"}


def test_without_probabilities_no_chance_is_taken() -> None:
    rng = random.Random(1)
    before = rng.getstate()
    assert Faults().draw(rng) == ""
    assert rng.getstate() == before


@pytest.mark.parametrize(
    ("text", "length", "expected"),
    [
        ("", 9, (9, None)),
        ("cut_after=5", 4, (4, None)),
        ("cut_after=5", 5, (5, Break.CUT)),
        ("error_after=0", 5, (0, Break.ERROR)),
        ("exit_after=8,hang_after=3", 9, (3, Break.HANG)),
        ("exit_after=8,hang_after=30", 9, (8, Break.EXIT)),
    ],
)
def test_the_earliest_fault_an_answer_reaches_ends_it(
    text: str, length: int, expected: tuple[int, Break | None]
) -> None:
    assert parse(text).breaks(length) == expected

"""The retry budget: an account of retries, filled by first attempts."""

from __future__ import annotations

from neurogate.resilience.retry import RetryBudget


def test_begins_with_its_reserve_so_that_a_quiet_gateway_may_retry():
    budget = RetryBudget(ratio=0.2)

    assert budget.balance == 10.0
    assert [budget.withdraw() for _ in range(11)] == [True] * 10 + [False]


def test_each_first_attempt_brings_a_share_of_a_retry():
    budget = RetryBudget(ratio=0.25, reserve=1.0)
    assert budget.withdraw()

    for _ in range(3):
        budget.deposit()
        assert not budget.withdraw()
    budget.deposit()

    assert budget.withdraw()
    assert budget.balance == 0.0


def test_never_holds_more_than_the_reserve():
    budget = RetryBudget(ratio=1.0, reserve=2.0)
    for _ in range(100):
        budget.deposit()

    assert budget.balance == 2.0


def test_a_ratio_of_zero_turns_charged_retries_off():
    budget = RetryBudget(ratio=0.0)
    budget.deposit()

    assert not budget.withdraw()


def test_a_refused_withdrawal_costs_nothing():
    budget = RetryBudget(ratio=0.5, reserve=0.5)
    assert not budget.withdraw()

    assert budget.balance == 0.5

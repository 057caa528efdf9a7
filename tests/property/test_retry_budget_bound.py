"""The retry budget's one promise: retries add only a share to the load."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from neurogate.resilience.retry import RetryBudget

ratios = st.one_of(st.just(0.0), st.floats(0.001, 1.0))


@given(ratio=ratios, reserve=st.floats(0, 50), events=st.lists(st.sampled_from(["request", "retry"]), max_size=400))
def test_retries_never_exceed_the_reserve_and_a_share_of_the_requests(ratio: float, reserve: float, events: list[str]):
    budget = RetryBudget(ratio=ratio, reserve=reserve)
    requests = retries = 0
    for event in events:
        if event == "request":
            requests += 1
            budget.deposit()
        else:
            could = budget.balance >= 1.0
            made = budget.withdraw()
            retries += made
            assert made is could  # a retry is refused only when the account does not hold one

        assert retries <= reserve + ratio * requests + 1e-6
        assert 0.0 <= budget.balance <= reserve


@given(ratio=st.floats(0.05, 1.0), reserve=st.floats(1.0, 50), spent=st.integers(0, 60))
def test_enough_requests_always_bring_a_retry_back(ratio: float, reserve: float, spent: int):
    budget = RetryBudget(ratio=ratio, reserve=reserve)
    for _ in range(spent):
        budget.withdraw()
    for _ in range(int(1 / ratio) + 2):
        budget.deposit()

    assert budget.withdraw()

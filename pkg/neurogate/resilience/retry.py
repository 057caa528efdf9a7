"""The retry budget: retries may add only a share to the load.

Every first attempt deposits `ratio` of a retry, every charged retry takes one out, and the account holds at most
`reserve`: so a fleet that fails everywhere is asked at most `1 + ratio` times as often as it was (finagle's scheme,
which needs no clock). Moving a request away from a worker that died is not charged: the dead worker does no work.
"""

from __future__ import annotations

RETRIES_AT_ONCE = 100.0
"""What a gateway's account holds: a burst that meets a failing worker before its breaker opens is served."""


class RetryBudget:
    """One gateway's account of retries."""

    def __init__(self, *, ratio: float, reserve: float = 10.0) -> None:
        self._ratio = ratio
        self._reserve_max = reserve
        self._reserve = reserve if ratio > 0 else 0.0
        self._balance = self._reserve

    @property
    def balance(self) -> float:
        """Retries that could be made now."""
        return self._balance

    def configure(self, *, ratio: float) -> None:
        """Take another ratio; what is on the account stays, unless there are to be no retries."""
        self._ratio = ratio
        self._reserve = self._reserve_max if ratio > 0 else 0.0
        self._balance = min(self._balance, self._reserve)

    def deposit(self) -> None:
        """Count a first attempt."""
        self._balance = min(self._reserve, self._balance + self._ratio)

    def withdraw(self) -> bool:
        """Take one retry; False when the budget is spent."""
        if self._balance < 1.0:
            return False
        self._balance -= 1.0
        return True

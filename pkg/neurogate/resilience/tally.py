"""What pybreaker does for a breaker: it counts failures in a row, and moves.

Its listener is a base here alone, so that the breaker can be compiled (ADR 0030).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from neurogate.imports import absent

with absent("redis"):  # 0.1 s of start-up for a storage of tallies that is not used here
    import pybreaker

CLOSED, OPEN, HALF_OPEN = pybreaker.STATE_CLOSED, pybreaker.STATE_OPEN, pybreaker.STATE_HALF_OPEN


class _FailureRecorded(Exception):  # noqa: N818 - not an error: it is how pybreaker is told of a failure
    pass


def _succeed() -> None:
    pass


def _fail() -> None:
    raise _FailureRecorded


class _Ear(pybreaker.CircuitBreakerListener):
    """Hears of pybreaker's transitions."""

    def __init__(self, moved: Callable[[str], None]) -> None:
        self._moved = moved

    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,  # noqa: ARG002 - pybreaker's signature
        old_state: pybreaker.CircuitBreakerState | None,  # noqa: ARG002
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        self._moved(new_state.name)


class Tally:
    """The failures in a row of one endpoint, and the state that they led to."""

    __slots__ = ("_breaker",)

    def __init__(self, fail_max: int, moved: Callable[[str], None]) -> None:
        """`moved` hears of every transition: `CLOSED`, `OPEN` or `HALF_OPEN`."""
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=fail_max, listeners=[_Ear(moved)], throw_new_error_on_trip=False
        )

    @property
    def failures(self) -> int:
        """Since the last success."""
        return self._breaker.fail_counter

    def configure(self, fail_max: int) -> None:
        """Open at another number of failures from now on."""
        self._breaker.fail_max = fail_max

    def succeed(self) -> None:
        """Count a success: the failures are forgotten, and a half-open breaker closes."""
        self._breaker.call(_succeed)

    def fail(self) -> None:
        """Count a failure: one too many, or any while half-open, opens it."""
        with contextlib.suppress(_FailureRecorded):
            self._breaker.call(_fail)

    def open(self) -> None:
        """Open it."""
        self._breaker.open()

    def half_open(self) -> None:
        """Let a probe out."""
        self._breaker.half_open()

    def close(self) -> None:
        """Close it, and forget the failures."""
        self._breaker.close()

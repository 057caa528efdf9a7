"""How large a share of the calls of the last seconds was bad: a ring of buckets, one record per call.

Calls are counted in buckets of a tenth of the window each, nothing is remembered of single calls, and what is told
covers between nine and ten tenths of the window. The ring is one integer of a digit per bucket, the newest the lowest:
a record is one addition, time passes by a shift, and a worker's window fits beside its breaker in the cache; with lists
of buckets, a large fleet's windows did not.
"""

from __future__ import annotations

_BUCKETS = 10

_COUNT_BITS = 32
_COUNT = (1 << _COUNT_BITS) - 1
_GOOD = 1
_BAD = 1 | 1 << _COUNT_BITS
"""What a call adds to a digit: its lower half counts calls, its upper one those that were bad."""

_DIGIT_BITS = 2 * _COUNT_BITS
_DIGIT = (1 << _DIGIT_BITS) - 1
_RING = (1 << _BUCKETS * _DIGIT_BITS) - 1


class RateWindow:
    """Counts of the last `seconds`. Time is the caller's, in seconds, and must not go back."""

    __slots__ = ("_latest", "_ring", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._latest = 0
        """Number of the bucket that was written last."""
        self._ring = 0

    @property
    def calls(self) -> int:
        """As of the last record, like `bad`."""
        return self._ring % _DIGIT & _COUNT  # a number has the same remainder as the sum of its digits

    @property
    def bad(self) -> int:
        """Those of the calls that were bad."""
        return self._ring % _DIGIT >> _COUNT_BITS

    def record(self, now: float, *, bad: bool) -> None:
        """Count a call that ended now."""
        bucket = int(now / self.seconds * _BUCKETS)
        passed = bucket - self._latest
        if passed:
            self._latest = bucket
            self._ring = self._ring << passed * _DIGIT_BITS & _RING if passed < _BUCKETS else 0
        self._ring += _BAD if bad else _GOOD

    def exceeds(self, rate: float, min_calls: int) -> bool:
        """Whether at least this share was bad, of at least so many calls, as of the last record."""
        calls = self.calls
        return calls >= min_calls and self.bad >= rate * calls

    def clear(self) -> None:
        """Forget everything."""
        self._ring = 0

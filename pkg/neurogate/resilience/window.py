"""How large a share of the calls of the last seconds was bad: a ring of buckets, one record per call.

Calls are counted in buckets of a tenth of the window each, so a record is a few additions whatever the traffic, nothing
is remembered of single calls, and what is told covers between nine and ten tenths of the window.
"""

from __future__ import annotations

_BUCKETS = 10


class RateWindow:
    """Counts of the last `seconds`. Time is the caller's, in seconds, and must not go back."""

    __slots__ = ("_bad", "_bucket_s", "_calls", "_latest", "bad", "calls", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.calls = 0
        """As of the last record, like `bad`."""
        self.bad = 0
        self._bucket_s = seconds / _BUCKETS
        self._latest = 0
        """Number of the bucket that was written last."""
        self._calls = [0] * _BUCKETS
        self._bad = [0] * _BUCKETS

    def record(self, now: float, *, bad: bool) -> None:
        """Count a call that ended now."""
        bucket = int(now / self._bucket_s)
        if bucket != self._latest:
            self._turn(bucket)
        self._calls[bucket % _BUCKETS] += 1
        self.calls += 1
        if bad:
            self._bad[bucket % _BUCKETS] += 1
            self.bad += 1

    def exceeds(self, rate: float, min_calls: int) -> bool:
        """Whether at least this share was bad, of at least so many calls, as of the last record."""
        return self.calls >= min_calls and self.bad >= rate * self.calls

    def clear(self) -> None:
        """Forget everything."""
        if self.calls:
            self.calls = self.bad = 0
            self._calls = [0] * _BUCKETS
            self._bad = [0] * _BUCKETS

    def _turn(self, bucket: int) -> None:
        """Empty the buckets between the last one written and this one: they are from a window ago."""
        for passed in range(max(self._latest, bucket - _BUCKETS) + 1, bucket + 1):
            place = passed % _BUCKETS
            self.calls -= self._calls[place]
            self.bad -= self._bad[place]
            self._calls[place] = self._bad[place] = 0
        self._latest = bucket

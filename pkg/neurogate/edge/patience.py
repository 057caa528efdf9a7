"""How long the clients of a key wait that do not say it, learned from those who leave in the middle of their answers.

When most who had waited leave, the wait was too long, and engines work for nobody: then others of the same key may wait
less (ADR 0023). It takes many to learn that, few to go on believing it, and one to disprove it who waited longer than
they did and was answered. What is not seen again is believed less and less, and then not at all.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from statistics import fmean, median

_LOOK_AT, _MANY = 32, 16
"""Endings that are judged together, and how many of them must have been for nothing: half."""
_LOOK_AGAIN_AT, _STILL_MANY = 16, 4
"""The same where it is known: fewer than a quarter may have any reason to leave."""

_SHORTEN = 0.7
_LEAST_S = 5.0
"""People who press stop, and editors that ask anew at each key, have nobody refused who would wait less than this."""
_LEAST_TIMED_S = 1.0
"""The same of clients that all leave at one age, as no person does: they have a timeout."""
_SAME, _SAME_SHARE = 0.1, 0.75
"""Ages are one when so many are so close to their median. Few may be so by chance, and only bear out what is known."""

_DOUBLES_S = 120.0
"""Seconds in which what is not seen again doubles, to be forgotten then."""
_DOUBLES_AFTER = 4.0
"""The same as a multiple of the time that it took to learn: slow fleets see little in a minute."""

_KEYS_MAX = 1024


class Patience:
    """Of the keys of one gateway; those whose clients have not left for the longest are forgotten.

    Times are the loop's.
    """

    def __init__(self) -> None:
        self._by_key: OrderedDict[str, _Learned] = OrderedDict()

    def limit_s(self, key_id: str, now: float) -> float:
        """Seconds that a request of this key should wait at most, going by those before it."""
        learned = self._by_key.get(key_id)
        return math.inf if learned is None else learned.limit_s(now)

    def leaves_at(self, key_id: str, queued_at: float, now: float) -> float:
        """When a client of this key leaves that came before it was known how long they wait; infinite for others."""
        learned = self._by_key.get(key_id)
        return math.inf if learned is None else learned.leaves_at(queued_at, now)

    def answered(self, key_id: str, *, waited_s: float, age_s: float, now: float) -> None:
        """A request was answered whole, `age_s` after it came, of which it waited so much for its turn."""
        learned = self._by_key.get(key_id)
        if learned is not None:
            learned.answered(waited_s, age_s, now)

    def gave_up(self, key_id: str, *, waited_s: float, age_s: float, usual_s: float, now: float) -> None:
        """A client left after its turn had come, and nobody knows why.

        The wait is never made shorter than `usual_s`, which is what such a request takes after its turn.
        """
        learned = self._by_key.get(key_id)
        if learned is None:
            learned = self._by_key[key_id] = _Learned(now)
            if len(self._by_key) > _KEYS_MAX:
                self._by_key.popitem(last=False)
        else:
            self._by_key.move_to_end(key_id)
        learned.gave_up(waited_s, age_s, usual_s, now)

    def rested(self) -> None:
        """There was no queue for a while: what comes next may be other clients, with other patience."""
        self._by_key.clear()


class _Learned:
    """Of one key."""

    __slots__ = (
        "_ages_s",
        "_began_at",
        "_doubles_s",
        "_ended",
        "_learned_at",
        "_limit_s",
        "_longest_s",
        "_timeout_s",
        "_waits_s",
    )

    def __init__(self, now: float) -> None:
        self._limit_s = self._timeout_s = math.inf
        self._learned_at = now
        self._doubles_s = _DOUBLES_S
        self._longest_s = 0.0
        """That somebody had waited who left."""
        self._look_anew(now)

    def limit_s(self, now: float) -> float:
        if self._limit_s < math.inf and now - self._learned_at >= self._doubles_s:
            self._forget(now)
        return self._limit_s * math.exp2((now - self._learned_at) / self._doubles_s)

    def leaves_at(self, queued_at: float, now: float) -> float:
        known = self.limit_s(now) < math.inf and queued_at < self._learned_at
        return queued_at + self._timeout_s if known else math.inf

    def answered(self, waited_s: float, age_s: float, now: float) -> None:
        limit_s = self.limit_s(now)
        if waited_s > max(limit_s, self._longest_s) or age_s > (1 + _SAME) * self._timeout_s:
            self._forget(now)
        else:
            self._count(known=limit_s < math.inf, now=now)

    def gave_up(self, waited_s: float, age_s: float, usual_s: float, now: float) -> None:
        limit_s = self.limit_s(now)
        known = limit_s < math.inf
        if known and now - age_s < self._learned_at:
            return  # it came when the wait was longer
        self._waits_s.append(waited_s)
        self._ages_s.append(age_s)
        if len(self._ages_s) < (_STILL_MANY if known else _MANY):
            self._count(known=known, now=now)
            return
        timeout_s = self._timeout_s if known else median(self._ages_s)
        if not _are_at(timeout_s, self._ages_s):
            timeout_s = math.inf
        timed = timeout_s < math.inf
        long_s = timeout_s - usual_s if timed and not known else fmean(self._waits_s)
        least_s = max(_LEAST_TIMED_S if timed else _LEAST_S, usual_s)
        shorter_s = max(least_s, _SHORTEN * min(limit_s, long_s))
        if shorter_s < limit_s:
            self._longest_s = max(self._longest_s, *self._waits_s)
            self._limit_s, self._timeout_s, self._learned_at = shorter_s, timeout_s, now
            self._doubles_s = max(_DOUBLES_S, _DOUBLES_AFTER * (now - self._began_at))
        self._look_anew(now)

    def _count(self, *, known: bool, now: float) -> None:
        self._ended += 1
        if self._ended >= (_LOOK_AGAIN_AT if known else _LOOK_AT):
            self._look_anew(now)

    def _forget(self, now: float) -> None:
        self._limit_s = self._timeout_s = math.inf
        self._longest_s = 0.0
        self._look_anew(now)

    def _look_anew(self, now: float) -> None:
        self._began_at = now
        self._ended = 0
        self._waits_s: list[float] = []
        self._ages_s: list[float] = []


def _are_at(timeout_s: float, ages_s: Sequence[float]) -> bool:
    return sum(abs(age_s - timeout_s) <= _SAME * timeout_s for age_s in ages_s) >= _SAME_SHARE * len(ages_s)

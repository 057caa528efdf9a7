"""What is known of requests that waited for a turn: how long they take after it, and how long their clients wait.

Most clients do not say when they will give up. When many of those who waited leave in the middle of their answers, the
wait was too long, and the engines worked for nobody: then others may wait less. It grows back slowly. Of those who do
say, it is learned how much time they must have left to be worth beginning (ADR 0023).
"""

from __future__ import annotations

import math

_LOOK_EVERY = 16
"""Endings that are judged together."""
_TOO_MANY_LEFT = 4
"""Of these; fewer may have any reason to leave."""
_SHORTEN = 0.7
_LENGTHEN = 1.003
"""Small, for what is found at the end of everybody's patience is that all who wait have waited too long."""
_LEAST_S = 1.0

_DOWN, _UP = 0.3, 0.03
"""Steps towards shorter and longer durations: they settle where about one request in ten is quicker."""
_KNOWN_AFTER = 8

_RESERVE_MIN, _RESERVE_MAX = 1.1, 10.0
_RESERVE_STEP = 0.05
_MAY_RUN_OUT = 0.03
"""How many of those that are begun may have too little time: the reserve settles where that is so."""


class Patience:
    """Of one gateway's clients and requests."""

    __slots__ = ("_ended", "_left", "_left_waited_s", "_measured", "_reserve", "_usual_s", "limit_s")

    def __init__(self) -> None:
        self.limit_s = math.inf
        """Seconds that a request should wait at most, going by those before it."""
        self._usual_s = 0.0
        self._measured = 0
        self._reserve = _RESERVE_MIN
        self._forget_window()

    @property
    def needed_s(self) -> float:
        """Seconds that must be left of a request's time when it is begun; 0 while that is not known."""
        return self._reserve * self._usual_s if self._measured >= _KNOWN_AFTER else 0.0

    def answered(self, took_s: float) -> None:
        """A request that had waited was answered whole."""
        self._measured += 1
        step = _DOWN if took_s < self._usual_s else _UP
        self._usual_s = took_s if self._measured == 1 else self._usual_s + step * (took_s - self._usual_s)
        self._reserve = max(_RESERVE_MIN, self._reserve - _RESERVE_STEP * _MAY_RUN_OUT)
        self._count()

    def ran_out(self) -> None:
        """A request that had waited was begun, and its own time was over before its answer."""
        self._reserve = min(_RESERVE_MAX, self._reserve + _RESERVE_STEP)

    def gave_up(self, waited_s: float) -> None:
        """A client left after its turn had come, and nobody knows why."""
        self._left += 1
        self._left_waited_s += waited_s
        self._count()

    def rested(self) -> None:
        """There was no queue for a long time: these may be other clients, with other patience."""
        self.limit_s *= 2.0
        self._forget_window()

    def _count(self) -> None:
        self._ended += 1
        if self._left >= _TOO_MANY_LEFT:
            waited_s = min(self.limit_s, self._left_waited_s / self._left)
            self.limit_s = max(_LEAST_S, self._usual_s, _SHORTEN * waited_s)
            self._forget_window()
        elif self._ended >= _LOOK_EVERY:
            self.limit_s *= _LENGTHEN
            self._forget_window()

    def _forget_window(self) -> None:
        self._ended = self._left = 0
        self._left_waited_s = 0.0

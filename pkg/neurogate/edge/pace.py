"""How fast a queue moves: seconds between turns, while somebody waits for one.

Time without a queue says nothing and is not counted. Turns and time fade together, so that bursts (a batching engine
ends several requests at once) and single slow ones even out, and a change shows within half a minute, or within eight
turns where those take longer (ADR 0023).
"""

from __future__ import annotations

import math

_FADE_S = 30.0
_FADE_TURNS = 8.0
_FADE_IDLE_S = 300.0
"""What was seen before the queue was empty for long still says something, but is soon outvoted."""

_TURNS_MIN = 4.0
"""Fewer, faded ones included, say nothing yet."""


class Pace:
    """The pace of one queue. Times are the loop's."""

    __slots__ = ("_at", "_busy_s", "_turns", "_waited_for")

    def __init__(self, now: float) -> None:
        self._turns = 0.0
        self._busy_s = 0.0
        self._at = now
        self._waited_for = False

    def waited_for(self, now: float) -> None:
        """Somebody waits from now on, if nobody did. Idempotent."""
        if not self._waited_for:
            keep = math.exp((self._at - now) / _FADE_IDLE_S)
            self._turns *= keep
            self._busy_s *= keep
            self._at, self._waited_for = now, True

    def left(self, now: float) -> None:
        """Nobody waits any more."""
        self._advance(now)
        self._waited_for = False

    def turn(self, now: float) -> None:
        """One of those who wait has got a turn."""
        self._advance(now)
        self._turns += 1.0

    def seconds(self, now: float) -> float:
        """Seconds between two turns; 0 while that is not known."""
        self._advance(now)
        return self._busy_s / self._turns if self._turns >= _TURNS_MIN else 0.0

    def _advance(self, now: float) -> None:
        if self._waited_for and now > self._at:
            fade_s = max(_FADE_S, _FADE_TURNS * self._busy_s / self._turns) if self._turns >= 1.0 else _FADE_S
            keep = math.exp((self._at - now) / fade_s)
            self._turns *= keep
            self._busy_s = self._busy_s * keep + fade_s * (1.0 - keep)
            self._at = now

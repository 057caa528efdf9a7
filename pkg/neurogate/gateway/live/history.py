"""The last minute of some figures, one point a second, for as long as somebody looks."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from neurogate.gateway.live.picture import HISTORY, Points


class History:
    """Figures by name. A name that is missing from a `take` is forgotten."""

    def __init__(self) -> None:
        self._points: dict[str, deque[float | None]] = {}
        self._taken_at: float | None = None

    def take(self, figures: Mapping[str, float], now: float) -> None:
        """The figures of this second; seconds in which there was no `take` have no point. `now` is loop time."""
        missed = 0 if self._taken_at is None else min(HISTORY, max(0, round(now - self._taken_at) - 1))
        self._taken_at = now
        before = self._points
        self._points = {name: before.get(name) or deque(maxlen=HISTORY) for name in figures}
        for name, figure in figures.items():
            points = self._points[name]
            points.extend([None] * missed if points else ())
            points.append(round(figure, 1))

    def of(self, name: str) -> Points:
        """The points of a figure, the latest last."""
        return tuple(self._points.get(name, ()))

"""What went another way than it should, lately: retries, resumes, failures, and workers that changed their state.

Kept whether somebody looks or not, because it is looked at afterwards. What comes again shortly after is counted, so
that a storm of one kind leaves room for the rest.
"""

from __future__ import annotations

from collections.abc import Callable

from neurogate.gateway.in_flight import Flight
from neurogate.gateway.live.picture import Happening

KEPT_MAX = 50
_AGAIN_S = 10.0
"""Seconds within which the same is counted as one."""


class Recent:
    """The latest KEPT_MAX happenings."""

    def __init__(self, *, wall: Callable[[], float]) -> None:
        """`wall` tells seconds since 1970."""
        self._wall = wall
        self._kept: dict[tuple[str, str, str], Happening] = {}
        """By kind, worker and reason; the latest last."""

    def note(self, kind: str, worker: str, reason: str, request_id: str = "") -> None:
        """Something happened; see `Happening`."""
        now, key = self._wall(), (kind, worker, reason)
        before = self._kept.pop(key, None)
        count = before.count + 1 if before is not None and now - before.at <= _AGAIN_S else 1
        if len(self._kept) >= KEPT_MAX:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = Happening(kind, now, worker, reason, request_id, count)

    def failed(self, flight: Flight) -> None:
        """A request ended with an error that is not its client's."""
        self.note("failure", flight.worker_id, flight.failure, flight.request_id)

    @property
    def happenings(self) -> tuple[Happening, ...]:
        """The latest first."""
        return tuple(reversed(self._kept.values()))

"""Whether the workers that have a model could take one request more: what admission asks before a request may go."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from operator import attrgetter

from neurogate.dataplane.dispatch import Dispatcher
from neurogate.dataplane.member import Member

_UNBOUNDED = 1 << 30
"""Room of a worker whose engine does not tell its slots."""

_slots = attrgetter("slots")


class Room:
    """The room of a fleet: its slots times a factor, or a fixed number of requests.

    With nobody at all there is room: what to tell such a request is the dispatcher's business. With nobody but workers
    that are kept out there is theirs, so that a queue is not poured out over a last resort; those that rest, and for no
    longer than a request may wait at the dispatcher, are waited for here.
    """

    def __init__(self, dispatcher: Dispatcher, *, max_concurrent: int, factor: float) -> None:
        self._dispatcher = dispatcher
        self._generation = -1
        self._rooms: dict[tuple[str, str], tuple[tuple[Member, ...], int]] = {}
        """Of whom, and how much; as long as it is of the same members, whatever else happens in a large fleet."""
        self.configure(max_concurrent=max_concurrent, factor=factor)

    def configure(self, *, max_concurrent: int, factor: float) -> None:
        """`max_concurrent` requests of all models, 0 for any number, -1 for what the slots times `factor` allow."""
        self._max_concurrent = max_concurrent
        self._factor = factor
        self._rooms = {}

    def has_room(self, lane: tuple[str, str], taken: int) -> bool:
        """Whether one request more for this (model, API) may go, beside `taken` that are about to."""
        in_flight = self._dispatcher.in_flight + taken
        snapshot = self._dispatcher.pool.snapshot
        if self._max_concurrent >= 0:
            if not self._max_concurrent or in_flight < self._max_concurrent:
                return True
            return not snapshot.admitting(*lane) and self._has_last_resort(lane, taken)
        if snapshot.generation != self._generation:
            self._generation = snapshot.generation
            self._rooms = {lane: had for lane, had in self._rooms.items() if snapshot.admitting(*lane) is had[0]}
        had = self._rooms.get(lane)
        if had is not None:
            room = had[1]
        else:
            members = snapshot.admitting(*lane)
            room = self._of_all(members)
            if room:  # names that clients make up are not kept
                self._rooms[lane] = members, room
        if not room:
            return self._has_last_resort(lane, taken)
        if in_flight < room:  # the usual case: whatever is in flight would fit here
            return True
        return taken + sum(member.in_flight for member in snapshot.admitting(*lane)) < room

    def _has_last_resort(self, lane: tuple[str, str], taken: int) -> bool:
        kept_out = self._dispatcher.pool.snapshot.suspended(*lane)
        awake = [member for member in kept_out if member.rest is None]
        if awake:
            return taken + sum(member.in_flight for member in awake) < self._of_all(awake)
        if not kept_out:
            return True
        rested_at = min(member.resting_until for member in kept_out)
        return rested_at - self._dispatcher.loop.time() > self._dispatcher.failfast_s

    def _of_all(self, members: Sequence[Member]) -> int:
        """Worked out by number of slots: of a large fleet, most workers have the same."""
        of_slots = Counter(map(_slots, members))
        return sum(
            workers * (math.ceil(slots * self._factor) if slots else _UNBOUNDED) for slots, workers in of_slots.items()
        )

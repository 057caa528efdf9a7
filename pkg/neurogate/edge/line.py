"""The tickets of one priority, in the order of their turns: for each key a queue for each lane (ADR 0017).

A line also knows its own pace, lane by lane, and so how long one request more would wait (ADR 0023).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from neurogate.edge.pace import Pace

if TYPE_CHECKING:
    from neurogate.edge.admission import Ticket

Lane = tuple[str, str]
"""The model, and the API, empty for those that every worker has."""


class Line:
    """The keys are in the order of their turns. Times are the loop's."""

    def __init__(self) -> None:
        self._by_key: dict[str, dict[Lane, deque[Ticket]]] = {}
        self._by_lane: dict[Lane, int] = {}
        self._paces: dict[Lane, Pace] = {}
        """Of lanes that have been waited for: who waits does so for workers' models, and not for made-up names."""
        self.length = 0

    def put(self, ticket: Ticket) -> None:
        """Take a ticket in, behind the others of its key and lane."""
        lane = ticket.lane
        self._by_key.setdefault(ticket.key_id, {}).setdefault(lane, deque()).append(ticket)
        self._by_lane[lane] = self._by_lane.get(lane, 0) + 1
        self.length += 1
        pace = self._paces.get(lane)
        if pace is None:
            pace = self._paces[lane] = Pace(ticket.queued_at)
        pace.waited_for(ticket.queued_at)

    def take(self, has_room: Callable[[Lane], bool], now: float) -> Ticket | None:
        """The next ticket whose lane has room; its key goes behind the others."""
        for key_id, lanes in self._by_key.items():
            for lane, queue in lanes.items():
                if has_room(lane):
                    ticket = queue[0]
                    self.remove(ticket, now)
                    if key_id in self._by_key:
                        self._by_key[key_id] = self._by_key.pop(key_id)
                    return ticket
        return None

    def granted(self, ticket: Ticket, now: float) -> None:
        """A ticket that was taken has had its turn: that is what the pace is made of."""
        self._paces[ticket.lane].turn(now)

    def remove(self, ticket: Ticket, now: float) -> bool:
        """Take a ticket out; False when it is not here."""
        lane = ticket.lane
        lanes = self._by_key.get(ticket.key_id, {})
        queue = lanes.get(lane)
        if queue is None or ticket not in queue:
            return False
        queue.remove(ticket)
        if not queue:
            del lanes[lane]
        if not lanes:
            del self._by_key[ticket.key_id]
        self.length -= 1
        self._by_lane[lane] -= 1
        if not self._by_lane[lane]:
            del self._by_lane[lane]
            self._paces[lane].left(now)
        return True

    def position(self, ticket: Ticket) -> int:
        """How many turns until this ticket's, itself included."""
        own = self._by_key.get(ticket.key_id, {}).get(ticket.lane)
        if own is None or ticket not in own:
            return 1
        place = own.index(ticket) + 1
        others = (lanes for key_id, lanes in self._by_key.items() if key_id != ticket.key_id)
        return place + sum(min(sum(map(len, lanes.values())), place) for lanes in others)

    def expected_s(self, lane: Lane, key_id: str, now: float, *, at_most_s: float) -> float:
        """Seconds that one request more would wait, 0 while that is not known. Up to `at_most_s` it may be fewer."""
        waiting = self._by_lane.get(lane)
        if waiting is None:
            return 0.0
        pace_s = self._paces[lane].seconds(now)
        if pace_s * (waiting + 1) <= at_most_s:  # spares the count where it cannot matter
            return pace_s * (waiting + 1)
        place = len(self._by_key.get(key_id, {}).get(lane, ())) + 1
        others = (lanes.get(lane, ()) for other, lanes in self._by_key.items() if other != key_id)
        return pace_s * (place + sum(min(len(queue), place) for queue in others))

    def whole_s(self, lane: Lane, now: float) -> float:
        """Seconds until all who wait in this lane have had their turns; 0 while that is not known."""
        pace = self._paces.get(lane)
        return pace.seconds(now) * self._by_lane.get(lane, 0) if pace is not None else 0.0

"""Who waits for a turn, and whose turn is next.

Requests for one model form a lane; those for an API that not every worker has form one of their own. Within a lane
interactive requests go before batch ones, nearly always, and the keys of one priority take turns, so that a key with a
hundred requests delays its own and nobody else's (ADR 0017). Whether a lane has room is asked of the data plane;
nothing here counts requests in flight but the turns that are not used yet.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import Callable

from neurogate.edge.caller import Priority
from neurogate.edge.settings import AdmissionSettings
from neurogate.errors import QueueFullError, QueueTimeoutError

Lane = tuple[str, str]
"""The model, and the API, empty for those that every worker has."""

INTERACTIVE_TURNS = 8
"""Interactive turns after which a waiting batch request has one."""

_RETRY_MIN_S, _RETRY_MAX_S = 1.0, 60.0
_PACE_WEIGHT = 0.2


class Ticket:
    """One request's place in a queue, or its turn. Whoever took it ends with `turn` returned or raised, or `leave`."""

    __slots__ = ("_admission", "_outcome", "_state", "key_id", "lane", "priority", "queued_at")

    def __init__(
        self, admission: Admission, lane: Lane, key_id: str, priority: Priority, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.lane = lane
        self.key_id = key_id
        self.priority: Priority = priority
        self.queued_at = loop.time()
        self._admission = admission
        self._outcome: asyncio.Future[None] = loop.create_future()
        self._state = _State.WAITING

    async def turn(self, deadline: float) -> bool:
        """Wait for the turn; True when it has come, False when `leave` was called meanwhile.

        The turn must be used (the request dispatched) before anything else is awaited. Raises QueueTimeoutError at
        `deadline` (loop time) or after the queue's own time, whichever is first.
        """
        admission = self._admission
        limit = min(deadline, self.queued_at + admission.timeout_s)
        timer = asyncio.get_running_loop().call_at(limit, self._expire)
        try:
            await self._outcome
        except asyncio.CancelledError:
            self.leave()
            raise
        finally:
            timer.cancel()
        if self._state is _State.EXPIRED:
            raise admission.too_late(limit - self.queued_at)
        if self._state is _State.GRANTED:
            self._state = _State.OVER
            admission.used()
            return True
        return False

    def leave(self) -> None:
        """Give the place up, or a turn that came and was not used. Idempotent."""
        before, self._state = self._state, _State.OVER
        self._admission.left(self, granted=before is _State.GRANTED)
        self._tell()

    @property
    def position(self) -> int:
        """How many turns until this one, itself included; at least 1, and an estimate."""
        return self._admission.position(self)

    def grant(self) -> None:
        """The turn has come: said by the admission alone."""
        self._state = _State.GRANTED
        self._tell()

    def _expire(self) -> None:
        if self._state is _State.WAITING:
            self.leave()
            self._state = _State.EXPIRED

    def _tell(self) -> None:
        if not self._outcome.done():
            self._outcome.set_result(None)


class _State(enum.Enum):
    WAITING = enum.auto()
    GRANTED = enum.auto()
    EXPIRED = enum.auto()
    OVER = enum.auto()


class _Line:
    """The tickets of one priority in one lane: a queue for each key, served in turn."""

    def __init__(self) -> None:
        self.by_key: dict[str, deque[Ticket]] = {}
        self.length = 0

    def put(self, ticket: Ticket) -> None:
        self.by_key.setdefault(ticket.key_id, deque()).append(ticket)
        self.length += 1

    def pop(self) -> Ticket:
        key_id = next(iter(self.by_key))
        queue = self.by_key.pop(key_id)
        ticket = queue.popleft()
        if queue:
            self.by_key[key_id] = queue  # behind the other keys
        self.length -= 1
        return ticket

    def remove(self, ticket: Ticket) -> bool:
        queue = self.by_key.get(ticket.key_id)
        if queue is None or ticket not in queue:
            return False
        queue.remove(ticket)
        if not queue:
            del self.by_key[ticket.key_id]
        self.length -= 1
        return True

    def position(self, ticket: Ticket) -> int:
        own = self.by_key.get(ticket.key_id)
        if own is None or ticket not in own:
            return 1
        place = own.index(ticket) + 1
        others = sum(min(len(queue), place) for key_id, queue in self.by_key.items() if key_id != ticket.key_id)
        return place + others


class _Lane:
    """The two lines of one model."""

    def __init__(self) -> None:
        self.interactive = _Line()
        self.batch = _Line()
        self._since_batch = 0

    @property
    def length(self) -> int:
        return self.interactive.length + self.batch.length

    def line(self, priority: Priority) -> _Line:
        return self.interactive if priority == "interactive" else self.batch

    def pop(self) -> Ticket:
        if self.batch.length and (not self.interactive.length or self._since_batch >= INTERACTIVE_TURNS):
            self._since_batch = 0
            return self.batch.pop()
        self._since_batch += 1
        return self.interactive.pop()


class Admission:
    """The queues of one gateway. `has_room(lane, taken)` tells whether one request more may go to its workers."""

    def __init__(
        self,
        settings: AdmissionSettings,
        *,
        has_room: Callable[[Lane, int], bool],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._settings = settings
        self._has_room = has_room
        self._loop = loop
        self._lanes: dict[Lane, _Lane] = {}
        self._taken = 0
        self._waiting: dict[Priority, int] = {"interactive": 0, "batch": 0}
        self._pace_s = 0.0
        self._last_turn_at = 0.0

    @property
    def waiting(self) -> int:
        """Requests in all queues."""
        return self._waiting["interactive"] + self._waiting["batch"]

    @property
    def timeout_s(self) -> float:
        """Seconds a request may wait for its turn."""
        return self._settings.queue_timeout_s

    @property
    def keepalive_s(self) -> float:
        """Seconds between the signs of life that a waiting streamed request gets; 0 is none."""
        return self._settings.keepalive_s

    @property
    def taken(self) -> int:
        """Turns that came and are not used yet."""
        return self._taken

    def configure(self, settings: AdmissionSettings) -> None:
        """Take new settings; who waits goes on waiting, with the time it had."""
        self._settings = settings
        self.wake()

    def free(self, lane: Lane) -> bool:
        """Whether a request may go at once: there is room and nobody waits for it."""
        return lane not in self._lanes and self._has_room(lane, self._taken)

    def queue(self, lane: Lane, *, key_id: str, priority: Priority) -> Ticket:
        """Take a place; what follows is `await ticket.turn(...)`. Raises QueueFullError."""
        limit = self._settings.max_queue if priority == "interactive" else self._settings.max_batch_queue
        if self._waiting[priority] >= limit:
            name = "NEUROGATE_MAX_QUEUE" if priority == "interactive" else "NEUROGATE_MAX_BATCH_QUEUE"
            raise QueueFullError(
                f"{limit} {priority} requests wait for their turn already ({name}); try again later",
                retry_after_s=self._retry_after_s(),
            )
        ticket = Ticket(self, lane, key_id, priority, self._loop)
        self._lanes.setdefault(lane, _Lane()).line(priority).put(ticket)
        self._waiting[priority] += 1
        self.wake()
        return ticket

    def left(self, ticket: Ticket, *, granted: bool) -> None:
        """A ticket was given up; `granted` when its turn had come."""
        if granted:
            self.used()
            self.wake()
            return
        lane = self._lanes.get(ticket.lane)
        if lane is not None and lane.line(ticket.priority).remove(ticket):
            self._gone(ticket)

    def used(self) -> None:
        """A turn is used, or was given back: it counts as a request in flight from now on, or not at all."""
        self._taken -= 1

    def too_late(self, waited_s: float) -> QueueTimeoutError:
        """The error for a ticket whose turn did not come."""
        return QueueTimeoutError(
            f"the request's turn did not come within {waited_s:.1f} s (NEUROGATE_QUEUE_TIMEOUT_S, or its own time)",
            retry_after_s=self._retry_after_s(),
        )

    def wake(self) -> None:
        """Hand out whatever turns there is room for: a request ended, or the fleet changed."""
        for lane in [*self._lanes]:
            while (queue := self._lanes.get(lane)) is not None and self._has_room(lane, self._taken):
                self._take_turn(queue.pop())

    def position(self, ticket: Ticket) -> int:
        """See Ticket.position."""
        lane = self._lanes.get(ticket.lane)
        if lane is None:
            return 1
        ahead = 0 if ticket.priority == "interactive" else lane.interactive.length
        return ahead + lane.line(ticket.priority).position(ticket)

    def _take_turn(self, ticket: Ticket) -> None:
        self._gone(ticket)
        self._taken += 1
        now = self._loop.time()
        if self._last_turn_at:
            self._pace_s += _PACE_WEIGHT * (now - self._last_turn_at - self._pace_s)
        self._last_turn_at = now
        ticket.grant()

    def _gone(self, ticket: Ticket) -> None:
        self._waiting[ticket.priority] -= 1
        lane = self._lanes.get(ticket.lane)
        if lane is not None and not lane.length:
            del self._lanes[ticket.lane]

    def _retry_after_s(self) -> float:
        """The time the whole queue needs at its recent pace."""
        return min(_RETRY_MAX_S, max(_RETRY_MIN_S, self._pace_s * self.waiting))

"""Who waits for a turn, and whose turn is next.

Interactive requests go before batch ones, nearly always, and the keys of one priority take turns, so that a key with a
hundred requests delays its own and nobody else's (ADR 0017). What a request needs is its lane: a model, and an API that
not every worker has. A lane without room is passed over, and nobody waits behind it who needs another one. Whether a
lane has room is asked of the data plane; nothing here counts requests in flight but the turns that are not used yet.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import Callable
from typing import Literal

from neurogate.edge.caller import Priority
from neurogate.edge.settings import AdmissionSettings
from neurogate.errors import QueueFullError, QueueTimeoutError

Lane = tuple[str, str]
"""The model, and the API, empty for those that every worker has."""

Outcome = Literal["turn", "left", "timeout", "full"]
"""How a wait ended; `full` is none."""

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
            admission.used(self)
            return True
        return False

    def leave(self) -> None:
        """Give the place up, or a turn that came and was not used. Idempotent."""
        before, self._state = self._state, _State.OVER
        if before in {_State.WAITING, _State.GRANTED}:
            self._admission.left(self, granted=before is _State.GRANTED, outcome="left")
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
            self._state = _State.EXPIRED
            self._admission.left(self, granted=False, outcome="timeout")
            self._tell()

    def _tell(self) -> None:
        if not self._outcome.done():
            self._outcome.set_result(None)


class _State(enum.Enum):
    WAITING = enum.auto()
    GRANTED = enum.auto()
    EXPIRED = enum.auto()
    OVER = enum.auto()


class _Line:
    """The tickets of one priority: for each key a queue for each lane. The keys are in the order of their turns."""

    def __init__(self) -> None:
        self._by_key: dict[str, dict[Lane, deque[Ticket]]] = {}
        self.length = 0

    def put(self, ticket: Ticket) -> None:
        self._by_key.setdefault(ticket.key_id, {}).setdefault(ticket.lane, deque()).append(ticket)
        self.length += 1

    def take(self, has_room: Callable[[Lane], bool]) -> Ticket | None:
        """The next ticket whose lane has room; its key goes behind the others."""
        for key_id, lanes in self._by_key.items():
            for lane, queue in lanes.items():
                if has_room(lane):
                    ticket = queue[0]
                    self.remove(ticket)
                    if key_id in self._by_key:
                        self._by_key[key_id] = self._by_key.pop(key_id)
                    return ticket
        return None

    def remove(self, ticket: Ticket) -> bool:
        lanes = self._by_key.get(ticket.key_id, {})
        queue = lanes.get(ticket.lane)
        if queue is None or ticket not in queue:
            return False
        queue.remove(ticket)
        if not queue:
            del lanes[ticket.lane]
        if not lanes:
            del self._by_key[ticket.key_id]
        self.length -= 1
        return True

    def position(self, ticket: Ticket) -> int:
        own = self._by_key.get(ticket.key_id, {}).get(ticket.lane)
        if own is None or ticket not in own:
            return 1
        place = own.index(ticket) + 1
        others = (lanes for key_id, lanes in self._by_key.items() if key_id != ticket.key_id)
        return place + sum(min(sum(map(len, lanes.values())), place) for lanes in others)


class Admission:
    """The queues of one gateway. `has_room(lane, taken)` tells whether one request more may go to its workers."""

    def __init__(
        self,
        settings: AdmissionSettings,
        *,
        has_room: Callable[[Lane, int], bool],
        loop: asyncio.AbstractEventLoop,
        on_left: Callable[[float, Outcome], None] = lambda _seconds, _outcome: None,
    ) -> None:
        """`on_left` hears of everybody who had to wait: for how long, and how it ended."""
        self._settings = settings
        self._has_room = has_room
        self._loop = loop
        self._on_left = on_left
        self._lines: dict[Priority, _Line] = {"interactive": _Line(), "batch": _Line()}
        self._waiting_for: dict[Lane, int] = {}
        self._since_batch = 0
        self._taken = 0
        self._pace_s = 0.0
        self._last_turn_at = 0.0

    @property
    def waiting(self) -> int:
        """Requests in all queues."""
        return self._lines["interactive"].length + self._lines["batch"].length

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
        return lane not in self._waiting_for and self._has_room(lane, self._taken)

    def queue(self, lane: Lane, *, key_id: str, priority: Priority) -> Ticket:
        """Take a place; what follows is `await ticket.turn(...)`. Raises QueueFullError."""
        limit = self._settings.max_queue if priority == "interactive" else self._settings.max_batch_queue
        if self._lines[priority].length >= limit:
            self._on_left(0.0, "full")
            name = "NEUROGATE_MAX_QUEUE" if priority == "interactive" else "NEUROGATE_MAX_BATCH_QUEUE"
            raise QueueFullError(
                f"{limit} {priority} requests wait for their turn already ({name}); try again later",
                retry_after_s=self._retry_after_s(),
            )
        ticket = Ticket(self, lane, key_id, priority, self._loop)
        self._lines[priority].put(ticket)
        self._waiting_for[lane] = self._waiting_for.get(lane, 0) + 1
        self.wake()
        return ticket

    def left(self, ticket: Ticket, *, granted: bool, outcome: Outcome) -> None:
        """A ticket was given up; `granted` when its turn had come."""
        self._on_left(self._loop.time() - ticket.queued_at, outcome)
        if granted:
            self._taken -= 1
            self.wake()
        elif self._lines[ticket.priority].remove(ticket):
            self._gone(ticket.lane)

    def used(self, ticket: Ticket) -> None:
        """A turn is used: it counts as a request in flight from now on."""
        self._on_left(self._loop.time() - ticket.queued_at, "turn")
        self._taken -= 1

    def too_late(self, waited_s: float) -> QueueTimeoutError:
        """The error for a ticket whose turn did not come."""
        return QueueTimeoutError(
            f"the request's turn did not come within {waited_s:.1f} s (NEUROGATE_QUEUE_TIMEOUT_S, or its own time)",
            retry_after_s=self._retry_after_s(),
        )

    def wake(self) -> None:
        """Hand out whatever turns there is room for: a request ended, or the fleet changed."""
        full: set[Lane] = set()  # what has no room now gets none while turns are handed out

        def has_room(lane: Lane) -> bool:
            if lane in full:
                return False
            if self._has_room(lane, self._taken):
                return True
            full.add(lane)
            return False

        while self.waiting and (ticket := self._next(has_room)) is not None:
            self._gone(ticket.lane)
            self._taken += 1
            now = self._loop.time()
            if self._last_turn_at:
                self._pace_s += _PACE_WEIGHT * (now - self._last_turn_at - self._pace_s)
            self._last_turn_at = now
            ticket.grant()

    def position(self, ticket: Ticket) -> int:
        """See Ticket.position."""
        ahead = 0 if ticket.priority == "interactive" else self._lines["interactive"].length
        return ahead + self._lines[ticket.priority].position(ticket)

    def _next(self, has_room: Callable[[Lane], bool]) -> Ticket | None:
        interactive, batch = self._lines["interactive"], self._lines["batch"]
        if self._since_batch >= INTERACTIVE_TURNS:
            ticket = batch.take(has_room)
            if ticket is not None:
                self._since_batch = 0
                return ticket
        ticket = interactive.take(has_room)
        if ticket is not None:
            self._since_batch += 1
            return ticket
        ticket = batch.take(has_room)
        if ticket is not None:
            self._since_batch = 0
        return ticket

    def _gone(self, lane: Lane) -> None:
        self._waiting_for[lane] -= 1
        if not self._waiting_for[lane]:
            del self._waiting_for[lane]

    def _retry_after_s(self) -> float:
        """The time the whole queue needs at its recent pace."""
        return min(_RETRY_MAX_S, max(_RETRY_MIN_S, self._pace_s * self.waiting))

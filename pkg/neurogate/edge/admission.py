"""Who waits for a turn, and whose turn is next.

Interactive requests go before batch ones, nearly always, and the keys of one priority take turns, so that a key with a
hundred requests delays its own and nobody else's (ADR 0017). What a request needs is its lane: a model, and an API that
not every worker has. A lane without room is passed over, and nobody waits behind it who needs another one. Whether a
lane has room is asked of the data plane; nothing here counts requests in flight but the turns that are not used yet.
Who cannot be served in time is told so at once, not after having waited for nothing (ADR 0023).
"""

from __future__ import annotations

import asyncio
import enum
import math
from collections.abc import Callable
from typing import Literal

from neurogate.edge.caller import Priority
from neurogate.edge.line import Lane, Line
from neurogate.edge.need import Need, Needs
from neurogate.edge.patience import Patience
from neurogate.edge.settings import AdmissionSettings
from neurogate.errors import QueueFullError, QueueTimeoutError, QueueTooLongError

Outcome = Literal["turn", "left", "timeout", "full", "too_long"]
"""How a wait ended; `full` and `too_long` are none."""

INTERACTIVE_TURNS = 8
"""Interactive turns after which a waiting batch request has one."""

_RETRY_MIN_S, _RETRY_MAX_S = 1.0, 60.0

_HOPE = 0.9
"""The share of an expected wait that must be too long before a request is refused for it."""

_ABOUT = 0.05
"""Clients whose own clocks are ahead of ours by this share of their time have left because it was over."""

_REST_S = 10.0
"""Seconds without a queue after which clients' patience is learned anew."""


class Ticket:
    """One request's place in a queue, or its turn. Whoever took it ends with `turn` returned or raised, or `leave`."""

    __slots__ = (
        "_admission",
        "_outcome",
        "_state",
        "deadline",
        "give_up_at",
        "guessed",
        "key_id",
        "lane",
        "need",
        "priority",
        "queued_at",
        "turn_at",
    )

    def __init__(
        self,
        admission: Admission,
        lane: Lane,
        key_id: str,
        priority: Priority,
        *,
        need: Need,
        guessed: bool,
        deadline: float,
        give_up_at: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """`deadline` is when the request must be over, `give_up_at` until when it may wait: loop time, as all here.

        `guessed`: how long its client waits is learned from others, and others' is learned from it.
        """
        self.lane = lane
        self.key_id = key_id
        self.priority: Priority = priority
        self.need = need
        self.guessed = guessed
        self.deadline = deadline
        self.give_up_at = give_up_at
        self.queued_at = loop.time()
        self.turn_at = 0.0
        """Once it was granted."""
        self._admission = admission
        self._outcome: asyncio.Future[None] = loop.create_future()
        self._state = _State.WAITING

    async def turn(self) -> bool:
        """Wait for the turn; True when it has come, False when `leave` was called meanwhile.

        The turn must be used (the request dispatched) before anything else is awaited. Raises QueueTimeoutError when
        it does not come while it is of use.
        """
        admission = self._admission
        timer = asyncio.get_running_loop().call_at(self.give_up_at, self.expire)
        try:
            await self._outcome
        except asyncio.CancelledError:
            self.leave()
            raise
        finally:
            timer.cancel()
        if self._state is _State.EXPIRED:
            raise admission.too_late(self)
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

    def grant(self, now: float) -> None:
        """The turn has come: said by the admission alone."""
        self._state = _State.GRANTED
        self.turn_at = now
        self._tell()

    def expire(self) -> None:
        """The turn has not come, or comes too late to be of use."""
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
        """`on_left` hears of everybody who had to wait, or to go: for how long, and how it ended."""
        self._settings = settings
        self._has_room = has_room
        self._loop = loop
        self._on_left = on_left
        self._lines: dict[Priority, Line] = {"interactive": Line(), "batch": Line()}
        self._waiting_for: dict[Lane, int] = {}
        self._since_batch = 0
        self._taken = 0
        self._patience = Patience()
        self._needs = Needs()
        self._empty_since = 0.0

    @property
    def waiting(self) -> int:
        """Requests in all queues."""
        return self._lines["interactive"].length + self._lines["batch"].length

    @property
    def idle(self) -> bool:
        """Whether nobody waits."""
        return not self._waiting_for

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

    def queue(
        self,
        lane: Lane,
        *,
        key_id: str,
        priority: Priority,
        deadline: float,
        told: bool = False,
        max_tokens: int | None = None,
    ) -> Ticket:
        """Take a place; what follows is `await ticket.turn()`. `deadline` is loop time: the request must be over then.

        `told`: the deadline is its client's own, who need not be guessed at. `max_tokens` is what it asks for at most,
        where it says so. Raises QueueFullError, and QueueTooLongError when the turn would come too late.
        """
        now, line = self._loop.time(), self._lines[priority]
        if not self.waiting and now - self._empty_since > _REST_S:
            self._patience.rested()
        length_max, timeout_s = self._bounds(priority)
        if line.length >= length_max:
            self._on_left(0.0, "full")
            name = "NEUROGATE_MAX_QUEUE" if priority == "interactive" else "NEUROGATE_MAX_BATCH_QUEUE"
            raise QueueFullError(
                f"{length_max} {priority} requests wait for their turn already ({name}); try again later",
                retry_after_s=_retry_after(line.whole_s(lane, now)),
            )
        need = self._needs.of(lane, max_tokens)
        guessed = not told and priority == "interactive"  # batch clients wait: that is what they said
        give_up_at = min(now + timeout_s, deadline - need.seconds)
        limit_s = self._patience.limit_s(key_id, now) if guessed else math.inf
        may_wait_s = min(give_up_at - now, limit_s) / _HOPE
        expected_s = line.expected_s(lane, key_id, now, at_most_s=may_wait_s)
        if expected_s > may_wait_s:
            self._on_left(0.0, "too_long")
            raise QueueTooLongError(
                f"the request's turn would come in about {expected_s:.1f} s, which is too late; try again later",
                retry_after_s=_retry_after(expected_s),
            )
        ticket = Ticket(
            self,
            lane,
            key_id,
            priority,
            need=need,
            guessed=guessed,
            deadline=deadline,
            give_up_at=give_up_at,
            loop=self._loop,
        )
        line.put(ticket)
        self._waiting_for[lane] = self._waiting_for.get(lane, 0) + 1
        self.wake()
        return ticket

    def left(self, ticket: Ticket, *, granted: bool, outcome: Outcome) -> None:
        """A ticket was given up; `granted` when its turn had come."""
        now = self._loop.time()
        self._on_left(now - ticket.queued_at, outcome)
        if granted:
            self._taken -= 1
            self.wake()
        elif self._lines[ticket.priority].remove(ticket, now):
            self._gone(ticket.lane, now)

    def used(self, ticket: Ticket) -> None:
        """A turn is used: it counts as a request in flight from now on."""
        self._on_left(self._loop.time() - ticket.queued_at, "turn")
        self._taken -= 1

    def answered(self, ticket: Ticket) -> None:
        """The request that used this turn was answered."""
        now, queued_at, turn_at = self._loop.time(), ticket.queued_at, ticket.turn_at
        ticket.need.answered(now - turn_at)
        if ticket.guessed:
            self._patience.answered(ticket.key_id, waited_s=turn_at - queued_at, age_s=now - queued_at, now=now)

    def wasted(self, ticket: Ticket, *, client_left: bool) -> None:
        """What an engine did for the request that used this turn was for nothing."""
        now, queued_at, need = self._loop.time(), ticket.queued_at, ticket.need
        if now >= ticket.deadline - _ABOUT * (ticket.deadline - queued_at):
            need.ran_out()
        elif client_left and ticket.guessed:
            waited_s, age_s = ticket.turn_at - queued_at, now - queued_at
            self._patience.gave_up(ticket.key_id, waited_s=waited_s, age_s=age_s, usual_s=need.usual_s, now=now)

    def too_late(self, ticket: Ticket) -> QueueTimeoutError:
        """The error for a ticket whose turn did not come."""
        now = self._loop.time()
        name = "NEUROGATE_QUEUE_TIMEOUT_S" if ticket.priority == "interactive" else "NEUROGATE_BATCH_QUEUE_TIMEOUT_S"
        return QueueTimeoutError(
            f"the request's turn did not come within {now - ticket.queued_at:.1f} s ({name}, or its own time)",
            retry_after_s=_retry_after(self._lines[ticket.priority].whole_s(ticket.lane, now)),
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

        now = self._loop.time()
        while self.waiting and (ticket := self._next(has_room, now)) is not None:
            self._gone(ticket.lane, now)
            if self._ends_at(ticket, now) - now < ticket.need.seconds:
                ticket.expire()  # it would be started, and not finished in time: the turn is the next one's
                continue
            self._had_turn(ticket.priority)
            self._lines[ticket.priority].granted(ticket, now)
            self._taken += 1
            ticket.grant(now)

    def position(self, ticket: Ticket) -> int:
        """See Ticket.position."""
        ahead = 0 if ticket.priority == "interactive" else self._lines["interactive"].length
        return ahead + self._lines[ticket.priority].position(ticket)

    def _next(self, has_room: Callable[[Lane], bool], now: float) -> Ticket | None:
        first, second = self._lines["interactive"], self._lines["batch"]
        if self._since_batch >= INTERACTIVE_TURNS:
            first, second = second, first
        return first.take(has_room, now) or second.take(has_room, now)

    def _had_turn(self, priority: Priority) -> None:
        self._since_batch = self._since_batch + 1 if priority == "interactive" else 0

    def _ends_at(self, ticket: Ticket, now: float) -> float:
        """When the request is over, whoever ends it."""
        if not ticket.guessed:
            return ticket.deadline
        return min(ticket.deadline, self._patience.leaves_at(ticket.key_id, ticket.queued_at, now))

    def _gone(self, lane: Lane, now: float) -> None:
        self._waiting_for[lane] -= 1
        if not self._waiting_for[lane]:
            del self._waiting_for[lane]
        self._empty_since = now

    def _bounds(self, priority: Priority) -> tuple[int, float]:
        """How many may wait, and for how many seconds each."""
        settings = self._settings
        if priority == "interactive":
            return settings.max_queue, settings.queue_timeout_s
        return settings.max_batch_queue, settings.batch_queue_timeout_s


def _retry_after(seconds: float) -> float:
    return min(_RETRY_MAX_S, max(_RETRY_MIN_S, seconds))

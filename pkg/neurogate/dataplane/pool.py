"""The endpoint pool: the single writer of member state, and the publisher of snapshots.

Everything that happens to a worker arrives here as a synchronous call on the event loop (a link event, a breaker
transition, a resolver's new set), changes the members, and publishes a new snapshot. That is made when the first reader
asks for it, so a hundred workers that link in one turn of the loop cost one. Readers keep whichever snapshot they hold;
whoever waits for a better one registers with `wait`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Protocol

from neurogate.channel import LinkObserver
from neurogate.dataplane.following import follow
from neurogate.dataplane.member import LinkChannel, Member
from neurogate.dataplane.roster import Roster
from neurogate.dataplane.snapshot import Snapshot
from neurogate.dataplane.state import WorkerState
from neurogate.discovery.resolver import Resolver
from neurogate.endpoint import Endpoint, WorkerReport
from neurogate.errors import WorkerNotFoundError
from neurogate.resilience.breaker import BreakerSettings, EndpointBreaker

Connect = Callable[[Endpoint, LinkObserver], LinkChannel]

_TIMER_SLACK_S = 0.001
"""Loops round timers to a millisecond: one may fire that much before the moment it was set for."""

_CALM_S = 0.02
"""Rests come in storms: they make a snapshot at most this often."""

_AT_ONCE = 16
"""Workers that come or go in one turn of the loop: a millisecond or two."""


class PoolObserver(Protocol):
    """Hears what happens to the fleet, for logs and metrics."""

    def breaker_changed(self, worker_id: str, state: str) -> None:
        """A breaker moved to `closed`, `open` or `half-open`."""
        ...

    def worker_changed(self, worker_id: str, event: str, detail: str) -> None:
        """`added`, `linked`, `lost`, `left`, `ready`, `not_ready`, `draining` or `removed`."""
        ...

    def state_changed(self, worker_id: str, state: WorkerState, why: str) -> None:
        """A worker's state is another one than was told last; the first is `unreachable`, and is not told."""
        ...


class EndpointPool:
    """The fleet of one gateway."""

    def __init__(
        self,
        connect: Connect,
        *,
        breaker: BreakerSettings,
        loop: asyncio.AbstractEventLoop,
        observer: PoolObserver,
        leave_s: float = 0.0,
        rest_max_s: float = 60.0,
    ) -> None:
        """`leave_s` is how long a removed worker may finish what it holds, `rest_max_s` how long one may rest."""
        self.leave_s = leave_s
        self.rest_max_s = rest_max_s
        self.stopped = False
        """`run` is over: whatever is heard from now on is of no more use."""
        self._connect = connect
        self._breaker_settings = breaker
        self._loop = loop
        self._observer = observer
        self._members: dict[str, Member] = {}
        self._links: dict[str, asyncio.Task[None]] = {}
        self._leaving: dict[Member, asyncio.TimerHandle] = {}
        """Removed workers that finish what they hold, with the moment at which they may no longer."""
        self._waiting: dict[Callable[[], None], None] = {}
        self._listeners: list[Callable[[], None]] = []
        self._resolved = asyncio.Event()
        self._published_at = 0.0
        self._publishing: asyncio.TimerHandle | None = None
        self._due: set[Callable[[], None]] = set()
        """Listeners that are about to hear: once in a turn of the loop, however often was published in it."""
        self._generation = 0
        self._roster = Roster()
        self._changed: dict[Member, None] = {}
        """Members that the latest snapshot does not tell of as they are."""
        self._calmed: dict[Member, None] = {}
        """Members that changed and are to be published in a moment."""
        self._ranks = 0
        self._snapshot = self._roster.snapshot(0, (), is_known=self._is_known)

    async def run(self, resolver: Resolver) -> None:
        """Follow the resolver and keep a link to every endpoint, until cancelled."""
        try:
            await follow(resolver, self._follow, self._stop)
        finally:
            for timer in self._leaving.values():
                timer.cancel()
            for member in self._members.values():
                _let_be(member)
            if self._publishing is not None:
                self._publishing.cancel()

    @property
    def snapshot(self) -> Snapshot:
        """The fleet as it was published last."""
        if self._snapshot.generation != self._generation:
            changed, self._changed = self._changed, {}
            self._snapshot = self._roster.snapshot(self._generation, changed, is_known=self._is_known)
        return self._snapshot

    async def resolved(self) -> None:
        """Wait until the resolver has named the fleet once."""
        await self._resolved.wait()

    @property
    def leaving(self) -> tuple[Member, ...]:
        """Workers that were removed and finish what they hold; no snapshot has them."""
        return tuple(self._leaving)

    def states(self) -> dict[str, WorkerState]:
        """Every worker's state by its id, those included that were removed and finish what they hold."""
        return {member.id: member.state for member in (*self._leaving, *self._members.values())}

    def default_model(self, worker_id: str) -> str:
        """The model of requests that name none, on this worker; empty when it is not known."""
        member = self._members.get(worker_id)
        return member.report.default_model if member is not None else ""

    def cordon(self, worker_id: str) -> Member:
        """Let a worker have nothing new; what it holds goes on. Raises WorkerNotFoundError when there is none."""
        member = self._find(worker_id)
        if not member.cordoned:
            member.cordoned = True
            self._tell(member, "draining", "cordoned")
            self._tell_state(member)
            self.publish(member)
        return member

    def uncordon(self, worker_id: str) -> Member:
        """Take a `cordon` back. Raises WorkerNotFoundError when there is no such worker."""
        member = self._find(worker_id)
        if member.cordoned:
            member.cordoned = False
            self._tell(member, "ready" if member.usable else "not_ready", "no longer cordoned")
            self._tell_state(member)
            self.publish(member)
        return member

    def reset_breaker(self, worker_id: str) -> Member:
        """Close a worker's breaker and end its rest. Raises WorkerNotFoundError when there is no such worker."""
        member = self._find(worker_id)
        self._wake(member)
        member.breaker.reset()
        return member

    def rest(self, member: Member, seconds: float, *, until_room: bool) -> None:
        """Let a worker alone that asked for it; `until_room` when all it wants is fewer requests than it has."""
        until = self._loop.time() + min(seconds, self.rest_max_s)
        if until <= self._loop.time() or self.stopped or not self._is_known(member):
            return
        if member.rest is not None:
            member.rest.cancel()
            until = max(until, member.resting_until)
            until_room = until_room and member.on_room is not None
        began = member.rest is None
        member.rest = self._loop.call_at(until + _TIMER_SLACK_S, self._wake, member)
        member.resting_until = until
        member.rest_load = member.load
        member.on_room = (lambda: self._wake(member)) if until_room else None
        member.aside = True
        if began:
            self._tell_state(member)
            self._publish_calmly(member)

    def eject(self, member: Member, *, ejected: bool, why: str = "") -> None:
        """Keep a worker out that is much worse than its peers, or take that back; `why` says in what."""
        if member.ejected is not ejected:
            member.ejected, member.ejected_for = ejected, why
            member.aside = ejected or member.rest is not None
            self._tell_state(member)
            self.publish(member)

    def configure(self, breaker: BreakerSettings) -> None:
        """Judge workers by other bounds, those that are there as well."""
        self._breaker_settings = breaker
        for member in self._members.values():
            member.breaker.configure(breaker)
            if member.readmission is not None:
                self._readmit_later(member)
        self.publish(*self._members.values())

    @property
    def waiting(self) -> int:
        """Callers registered with `wait`."""
        return len(self._waiting)

    def on_publish(self, callback: Callable[[], None]) -> None:
        """Call back, soon after, whenever a snapshot was published."""
        self._listeners.append(callback)

    def wait(self, callback: Callable[[], None]) -> None:
        """Call back once, after the next snapshot is published."""
        self._waiting[callback] = None

    def unwait(self, callback: Callable[[], None]) -> None:
        """Take a `wait` back; does nothing when it has been called."""
        self._waiting.pop(callback, None)

    def publish(self, *changed: Member) -> None:
        """Publish a new snapshot, in which these are as they are now."""
        self._changed |= dict.fromkeys(changed) | self._calmed
        self._calmed = {}
        self._generation += 1
        self._published_at = self._loop.time()
        if self._publishing is not None:
            self._publishing.cancel()
            self._publishing = None
        for listener in self._listeners:
            if listener not in self._due:
                self._due.add(listener)
                self._loop.call_soon(self._tell_of_snapshot, listener)
        if self._waiting:
            waiting, self._waiting = self._waiting, {}
            for callback in waiting:
                self._loop.call_soon(callback)

    def __repr__(self) -> str:
        in_flight = sum(member.in_flight for member in self._members.values())
        linked = sum(member.linked for member in self._members.values())
        return (
            f"<EndpointPool [Workers: {linked} linked, {len(self._members)} known | "
            f"Requests: {in_flight} in flight, {len(self._waiting)} waiting]>"
        )

    def _stop(self) -> None:
        self.stopped = True

    async def _follow(self, endpoints: tuple[Endpoint, ...], links: asyncio.TaskGroup) -> None:
        await self._apply(endpoints, links)
        self._resolved.set()

    async def _apply(self, endpoints: tuple[Endpoint, ...], links: asyncio.TaskGroup) -> None:
        """Follow a resolver's new set, in steps between which tokens pass.

        Who is new comes first, so that no half of a fleet is ever all there seems to be: while somebody was not heard
        of yet, a model that nobody has is waited for.
        """
        wanted = {endpoint.id: endpoint for endpoint in endpoints}
        new = [endpoint for endpoint in wanted.values() if endpoint.id not in self._members]
        moved = [
            (member, endpoint)
            for member in self._members.values()
            if (endpoint := wanted.get(member.id)) is not None and endpoint.address != member.endpoint.address
        ]
        gone = [member for member in self._members.values() if member.id not in wanted]
        steps: list[Callable[[], tuple[Member, ...]]] = [
            *(partial(self._admit, endpoint, links) for endpoint in new),
            *(partial(self._replace, member, endpoint, links) for member, endpoint in moved),
            *(partial(self._part_with, member) for member in gone),
        ]
        changed: list[Member] = []
        for number, step in enumerate(steps, 1):
            changed += step()
            if number % _AT_ONCE == 0:
                self.publish(*changed)
                changed = []
                await asyncio.sleep(0)
        self.publish(*changed)

    def _replace(self, member: Member, endpoint: Endpoint, links: asyncio.TaskGroup) -> tuple[Member, ...]:
        return (*self._part_with(member), *self._admit(endpoint, links))

    def _part_with(self, member: Member) -> tuple[Member, ...]:
        self._remove(self._members.pop(member.id), self._links.pop(member.id))
        return (member,)

    def _remove(self, member: Member, link: asyncio.Task[None]) -> None:
        """See a worker off: at once when it holds nothing, and else when it has finished or its time is over."""
        _let_be(member)
        if not member.in_flight or not self.leave_s:
            link.cancel()
            self._observer.worker_changed(member.id, "removed", "")
            return
        self._observer.worker_changed(member.id, "draining", "removed")

        def part() -> None:
            member.on_idle = None
            self._leaving.pop(member).cancel()
            link.cancel()
            if member.id not in self._members:
                self._observer.worker_changed(member.id, "removed", "")

        member.on_idle = part
        self._leaving[member] = self._loop.call_later(self.leave_s, part)

    def _find(self, worker_id: str) -> Member:
        member = self._members.get(worker_id)
        if member is None:
            raise WorkerNotFoundError(f"there is no worker {worker_id!r}; the workers are: {', '.join(self._members)}")
        return member

    def _admit(self, endpoint: Endpoint, links: asyncio.TaskGroup) -> tuple[Member, ...]:
        breaker = EndpointBreaker(
            self._breaker_settings,
            now=self._loop.time,
            on_transition=lambda state: self._breaker_moved(member, state),
            dispensable=lambda: self._dispensable(member),
        )
        member = Member(endpoint, breaker)
        member.rank = self._ranks = self._ranks + 1
        member.channel = self._connect(endpoint, _MemberEvents(self, member))
        self._members[endpoint.id] = member
        self._observer.worker_changed(endpoint.id, "added", endpoint.address)
        self._links[endpoint.id] = links.create_task(member.channel.run(), name=endpoint.id)
        return (member,)

    def _dispensable(self, member: Member) -> bool:
        """Whether, without it, half of the usable workers of each of its models would still be well."""

        def half_is_well(model: str) -> bool:
            peers = (*self.snapshot.admitting(model), *self.snapshot.suspended(model))
            well = sum(peer is not member and peer.breaker.state == "closed" and not peer.ejected for peer in peers)
            return 2 * well >= len(peers)

        return half_is_well("") and all(half_is_well(served.name) for served in member.report.models)

    def _is_known(self, member: Member) -> bool:
        """Whether it is still of the fleet: a removed one lives on for a moment, and its name may be another's now."""
        return self._members.get(member.id) is member

    def _tell(self, member: Member, event: str, detail: str) -> None:
        if self._is_known(member):
            self._observer.worker_changed(member.id, event, detail)

    def _tell_state(self, member: Member) -> None:
        if member.told is not member.state and self._is_known(member):
            member.told = member.state
            self._observer.state_changed(member.id, member.state, member.why)

    def _breaker_moved(self, member: Member, state: str) -> None:
        if not self._is_known(member):
            return
        self._observer.breaker_changed(member.id, state)
        self._tell_state(member)
        if member.readmission is not None:
            member.readmission.cancel()
            member.readmission = None
        if state == "closed":
            member.came_back = False
        elif not self.stopped:
            self._readmit_later(member)
        self.publish(member)

    def _tell_of_snapshot(self, listener: Callable[[], None]) -> None:
        self._due.remove(listener)
        listener()

    def _readmit_later(self, member: Member) -> None:
        """When a breaker admits a probe, the first or one in place of another, a snapshot must say so."""
        if member.readmission is not None:
            member.readmission.cancel()
        member.readmission = self._loop.call_at(member.breaker.look_at + _TIMER_SLACK_S, self.publish, member)

    def _wake(self, member: Member) -> None:
        """A worker's rest is over, if it rests."""
        if member.rest is None:
            return
        _end_rest(member)
        self._tell_state(member)
        self._publish_calmly(member)

    def _publish_calmly(self, member: Member) -> None:
        """Publish now, unless that was done a moment ago: then together with what comes in this moment."""
        self._calmed[member] = None
        if self._publishing is not None or self.stopped:
            return
        due = self._published_at + _CALM_S
        if self._loop.time() >= due:
            self.publish()
        else:
            self._publishing = self._loop.call_at(due, self.publish)

    def _link_up(self, member: Member, report: WorkerReport) -> None:
        member.linked = True
        member.reachable_once = True
        member.last_error = ""
        member.came_back = member.breaker.state == "open"
        self._tell(member, "linked", report.worker_id)
        self._note(member, report)
        self.publish(member)
        _look_for_room(member, report)
        self._tell_state(member)

    def _take_report(self, member: Member, report: WorkerReport) -> None:
        """Most reports say what the last one said, so there is little done here: a large fleet brings many a second."""
        if self._note(member, report):
            self.publish(member)
            _look_for_room(member, report)
            self._tell_state(member)
        else:
            _look_for_room(member, report)

    def _note(self, member: Member, report: WorkerReport) -> bool:
        """Store a report, and tell what is new in it; True when it changes who may be picked for what or how much."""
        before = member.report
        if not member.take_report(report, self._loop.time()):
            return False
        if report.draining and not before.draining:
            self._tell(member, "draining", "")
        elif report.ready != before.ready:
            if report.ready and member.breaker.state == "open":
                member.came_back = True  # another life of its engine: the failures were the last one's
            self._tell(member, "ready" if report.ready else "not_ready", report.detail)
        return True

    def _link_down(self, member: Member, reason: str, *, planned: bool) -> None:
        member.linked = False
        member.forget_load()
        member.last_error = reason
        _end_rest(member)
        self._tell(member, "left" if planned else "lost", reason)
        self._tell_state(member)
        if planned:
            member.reachable_once = False  # a worker that said goodbye is not failing while it is away
        else:
            member.breaker.record_failure()
        self.publish(member)

    def _connect_failed(self, member: Member, reason: str) -> None:
        member.last_error = reason
        if member.reachable_once:  # a worker that has not come up yet is not failing either
            member.breaker.record_failure()


def _look_for_room(member: Member, report: WorkerReport) -> None:
    if member.on_room is not None and report.running + report.queued < member.rest_load:
        member.on_room()


def _end_rest(member: Member) -> None:
    if member.rest is not None:
        member.rest.cancel()
        member.rest = None
        member.on_room = None
        member.aside = member.ejected


def _let_be(member: Member) -> None:
    """Nothing is to happen to it by itself any more."""
    _end_rest(member)
    if member.readmission is not None:
        member.readmission.cancel()
        member.readmission = None


class _MemberEvents:
    """A channel's observer: binds what it hears to one member."""

    __slots__ = ("_member", "_pool")

    def __init__(self, pool: EndpointPool, member: Member) -> None:
        self._pool = pool
        self._member = member

    def link_up(self, report: WorkerReport) -> None:
        self._pool._link_up(self._member, report)  # noqa: SLF001 - the pool's own ear

    def link_report(self, report: WorkerReport) -> None:
        self._pool._take_report(self._member, report)  # noqa: SLF001

    def link_down(self, reason: str, *, planned: bool) -> None:
        self._pool._link_down(self._member, reason, planned=planned)  # noqa: SLF001

    def connect_failed(self, reason: str) -> None:
        self._pool._connect_failed(self._member, reason)  # noqa: SLF001

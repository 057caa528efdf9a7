"""Probes of breakers by canaries: whether a worker is well again is not found out at a user's expense (ADR 0019).

A canary is one call of the gateway's own that makes the worker's engine generate a token. It takes the breaker's probe
permit and nothing else: no lease, no count, no limit. The prober has no task. It looks whenever the pool has published
a snapshot, and the pool publishes when a worker links, becomes ready, or has its breaker's time over.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from neurogate.channel import Call, End, EndCode
from neurogate.dataplane.member import Member
from neurogate.dataplane.pool import EndpointPool
from neurogate.dataplane.verdict import judge
from neurogate.operations import CANARY_PATH
from neurogate.resilience.breaker import Outcome, Permit


class ProbeObserver(Protocol):
    """Hears of canaries, for logs and metrics."""

    def probed(self, worker_id: str, outcome: Outcome, why: str) -> None:
        """A canary ended; with IGNORED, it said nothing, and a user's request will be the probe."""
        ...


class Prober:
    """Sends canaries to the members of one pool."""

    def __init__(
        self,
        pool: EndpointPool,
        *,
        enabled: bool,
        timeout_s: float,
        loop: asyncio.AbstractEventLoop,
        observer: ProbeObserver,
    ) -> None:
        """`timeout_s` is how long a worker may take to generate one token."""
        self._pool = pool
        self._loop = loop
        self._observer = observer
        self._out: dict[Member, _Canary] = {}
        self._inconclusive: dict[Member, float] = {}
        """Members whose canary said nothing, with when their breaker opened: users probe them until it opens again."""
        self.configure(enabled=enabled, timeout_s=timeout_s)
        pool.on_publish(self.look)

    def configure(self, *, enabled: bool, timeout_s: float) -> None:
        """Probe from now on, or leave it to users; canaries that are out are judged by the bounds of before."""
        self._enabled = enabled
        self._timeout_s = timeout_s
        self.look()

    @property
    def out(self) -> int:
        """Canaries that have not ended."""
        return len(self._out)

    def look(self) -> None:
        """Send a canary to every member whose breaker wants a probe now."""
        unproved = self._pool.snapshot.unproved
        if self._pool.stopped:
            return
        if self._inconclusive:
            self._inconclusive = {
                member: self._inconclusive[member] for member in unproved if member in self._inconclusive
            }
        handed_over = []
        for member in unproved:
            if member not in self._out and member.usable:
                if self._hand_over(member):
                    handed_over.append(member)
                if not member.breaker.users_probe:
                    self._probe(member)
        if handed_over:
            self._pool.publish(*handed_over)

    def _hand_over(self, member: Member) -> bool:
        """Take a member's probe in charge, or leave it to users; True when that is another answer than before."""
        breaker = member.breaker
        if member.came_back:
            self._inconclusive.pop(member, None)  # it may be another program by now
        before = breaker.users_probe
        breaker.users_probe = not self._enabled or self._inconclusive.get(member) == breaker.opened_at
        return breaker.users_probe is not before

    def _probe(self, member: Member) -> None:
        opened_at = member.breaker.opened_at
        permit = member.breaker.probe(early=member.came_back)
        if permit is not None:
            member.came_back = False
            self._out[member] = _Canary(
                self, member, permit, opened_at=opened_at, timeout_s=self._timeout_s, loop=self._loop
            )

    def ended(self, canary: _Canary, outcome: Outcome, why: str) -> None:
        """A canary's last word: for itself to say."""
        member = canary.member
        del self._out[member]
        if outcome is Outcome.IGNORED:
            self._inconclusive[member] = canary.opened_at
        self._observer.probed(member.id, outcome, why)
        canary.permit.settle(outcome)


class _Canary:
    """One call on its way: the sink of its answer."""

    __slots__ = ("_prober", "_ticket", "_timer", "member", "opened_at", "permit")

    def __init__(
        self,
        prober: Prober,
        member: Member,
        permit: Permit,
        *,
        opened_at: float,
        timeout_s: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._prober = prober
        self.member = member
        self.permit = permit
        self.opened_at = opened_at
        deadline = loop.time() + timeout_s
        call = Call(CANARY_PATH, b"", stream=False, deadline=deadline, request_id="canary")
        self._ticket = member.channel.submit(call, self)
        self._timer = loop.call_at(deadline, self._expire, timeout_s)

    def on_chunk(self, data: bytes) -> None:
        """The body of the answer, which says nothing."""

    def on_end(self, end: End) -> None:
        """The worker's word."""
        self._timer.cancel()
        if end.code is EndCode.ANSWERED and end.http_status == 200:
            self._prober.ended(self, Outcome.SUCCESS, "")
            return
        told = f"it answered {end.http_status}" if end.http_status else end.message or end.code.name.lower()
        failed = judge(end).outcome is Outcome.FAILURE
        self._prober.ended(self, Outcome.FAILURE if failed else Outcome.IGNORED, told)

    def _expire(self, timeout_s: float) -> None:
        self.member.channel.cancel(self._ticket)
        told = f"no token within {timeout_s:g} s (NEUROGATE_CANARY_PROBE_TIMEOUT_S)"
        self._prober.ended(self, Outcome.FAILURE, told)

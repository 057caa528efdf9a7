"""Looks every few seconds whether a worker is much worse than its peers, and keeps it out for a while if so.

The decisions are those of `neurogate.resilience.outliers`. Here is who the peers are (workers with the same default
model), where their samples come from (leases count into `Member.tally`), and what is done: `EndpointPool.eject`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from neurogate.dataplane.member import Member
from neurogate.dataplane.pool import EndpointPool
from neurogate.resilience.outliers import OutlierSettings, Record, Sample, Tally, judge

INTERVAL_S = 10.0
"""Seconds between two looks."""

_STALE_S = 60.0
"""After so long a sample says nothing about now, and a tally that is not full by then begins anew."""


@dataclass(slots=True)
class _Watched:
    tally: Tally
    record: Record = field(default_factory=Record)
    sample: Sample | None = None
    sampled_at: float = 0.0


class OutlierWatch:
    """Watches one pool. `run` it, or call `look` oneself."""

    def __init__(self, pool: EndpointPool, settings: OutlierSettings, *, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._settings = settings
        self._loop = loop
        self._watched: dict[Member, _Watched] = {}

    def configure(self, settings: OutlierSettings) -> None:
        """Judge by other bounds from now on; turned off, everybody comes back at once."""
        self._settings = settings
        self.look()

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(INTERVAL_S)

    def look(self) -> None:
        """Judge everybody now."""
        now = self._loop.time()
        members = self._pool.snapshot.members
        self._follow(members, now)
        groups: dict[str, list[Member]] = {}
        for member in members:
            if member.usable:
                groups.setdefault(member.report.default_model, []).append(member)
        for member in members:
            if member.ejected and not member.usable:  # it is gone, and what it was is over
                self._watched[member].record.out_until = None
                self._pool.eject(member, ejected=False)
        for peers in groups.values():
            self._judge(peers, now)

    def _follow(self, members: tuple[Member, ...], now: float) -> None:
        """Have a tally on everybody, and on nobody who is gone."""
        if len(members) != len(self._watched) or any(member not in self._watched for member in members):
            self._watched = {member: self._watched.get(member) or _Watched(Tally(now)) for member in members}
        for member, watched in self._watched.items():
            member.tally = watched.tally if self._settings.enabled else None

    def _judge(self, peers: list[Member], now: float) -> None:
        fresh: dict[str, Sample] = {}
        known: dict[str, Sample] = {}
        for member in peers:
            watched = self._watched[member]
            sample = watched.tally.take(self._settings.requests_min, now)
            if sample is not None:
                watched.sample, watched.sampled_at = sample, now
                fresh[member.id] = sample
            elif now - watched.tally.began_at > _STALE_S:
                watched.tally.clear(now)
            if watched.sample is not None and now - watched.sampled_at <= _STALE_S and not member.ejected:
                known[member.id] = watched.sample
        by_id = {member.id: member for member in peers}
        changes = judge(
            {member.id: self._watched[member].record for member in peers},
            fresh=fresh,
            known=known,
            usable=[member.id for member in peers if not member.aside and member.breaker.state == "closed"],
            settings=self._settings,
            now=now,
        )
        for name in changes.returned:
            member = by_id[name]
            watched = self._watched[member]
            watched.sample = None
            watched.tally.clear(now)
            self._pool.eject(member, ejected=False)
        for name, why in changes.ejected.items():
            self._pool.eject(by_id[name], ejected=True, why=why)

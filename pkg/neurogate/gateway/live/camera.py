"""Takes pictures of a fleet. It reads what there is and changes nothing; the histories alone are its own."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable
from itertools import islice

from neurogate import __version__
from neurogate.dataplane.member import Member
from neurogate.dataplane.pool import EndpointPool
from neurogate.gateway.in_flight import InFlight
from neurogate.gateway.live.first_tokens import FirstTokens
from neurogate.gateway.live.history import History
from neurogate.gateway.live.picture import (
    MODELS_MAX,
    REQUESTS_MAX,
    WORKERS_MAX,
    FleetNow,
    Picture,
    Points,
    WorkerNow,
)
from neurogate.gateway.live.recent import Recent

INTERVAL_S = 1.0
"""Between two pictures."""

_RATE_S = 5.0
"""Over which requests are counted for their rate; 0 while no picture of that time is known."""


class Camera:
    """Of one gateway."""

    def __init__(
        self,
        *,
        gateway: str,
        pool: EndpointPool,
        in_flight: InFlight,
        waiting: Callable[[], int],
        recent: Recent,
        first_tokens: FirstTokens,
        readiness: Callable[[], tuple[bool, bool]],
        loop: asyncio.AbstractEventLoop,
        wall: Callable[[], float],
    ) -> None:
        """`gateway` is its name; `waiting` how many wait for their turn; `readiness` whether it is ready, and drains.

        `wall` tells seconds since 1970.
        """
        self._gateway = gateway
        self._pool = pool
        self._in_flight = in_flight
        self._waiting = waiting
        self._recent = recent
        self._first_tokens = first_tokens
        self._readiness = readiness
        self._loop = loop
        self._wall = wall
        self._began_at = loop.time()
        self._speeds = History()
        self._totals = History()
        self._came: deque[tuple[float, int]] = deque()
        """(loop time, requests that had ever come by then)."""
        self._latest: Picture | None = None
        self._taken_at = 0.0

    def latest(self) -> Picture:
        """The last picture, or a new one when that is as old as one may be."""
        if self._latest is None or self._loop.time() - self._taken_at >= INTERVAL_S:
            return self.take()
        return self._latest

    def take(self) -> Picture:
        """A picture of now."""
        now = self._taken_at = self._loop.time()
        leaving = self._pool.leaving
        members = (*self._pool.snapshot.members, *leaving)
        ready, draining = self._readiness()
        fleet = self._fleet(members, now)
        shown = sorted(members, key=_looks_well)[:WORKERS_MAX] if len(members) > WORKERS_MAX else members
        self._latest = picture = Picture(
            at=round(self._wall(), 3),
            gateway=self._gateway,
            version=__version__,
            uptime_s=round(now - self._began_at, 1),
            ready=ready,
            draining=draining,
            fleet=fleet,
            workers=tuple(_worker(member, self._speeds.of(_key(member)), now, leaving) for member in shown),
            workers_more=len(members) - len(shown),
            requests=tuple(islice(self._in_flight.rows(now), REQUESTS_MAX)),
            requests_more=max(0, len(self._in_flight) - REQUESTS_MAX),
            recent=self._recent.happenings,
        )
        return picture

    def _fleet(self, members: Iterable[Member], now: float) -> FleetNow:
        speeds = {_key(member): member.report.tokens_per_s for member in members}
        self._speeds.take(speeds, now)
        totals = {
            "tokens": sum(speeds.values()),
            "requests": self._requests_per_s(now),
            "in_flight": float(len(self._in_flight)),
        }
        self._totals.take(totals, now)
        states = Counter(str(member.state) for member in members)
        median, slow = self._first_tokens.quantiles((0.5, 0.95), now)
        return FleetNow(
            workers=len(speeds),
            states=dict(states),
            in_flight=len(self._in_flight),
            queued=self._waiting(),
            requests_per_s=round(totals["requests"], 2),
            tokens_per_s=round(totals["tokens"], 1),
            ttft_p50_s=median,
            ttft_p95_s=slow,
            requests_history=self._totals.of("requests"),
            tokens_history=self._totals.of("tokens"),
            in_flight_history=self._totals.of("in_flight"),
        )

    def _requests_per_s(self, now: float) -> float:
        came = self._came
        came.append((now, self._in_flight.total))
        while came[0][0] < now - _RATE_S:
            came.popleft()
        began_at, before = came[0]
        return (came[-1][1] - before) / (now - began_at) if now > began_at else 0.0


def _key(member: Member) -> str:
    """One that was removed may have a namesake."""
    return f"{member.id} {member.endpoint.address}"


def _looks_well(member: Member) -> bool:
    return member.state.available


def _worker(member: Member, history: Points, now: float, leaving: tuple[Member, ...]) -> WorkerNow:
    report = member.report
    names = [model.name for model in report.models]
    return WorkerNow(
        id=member.id,
        address=member.endpoint.address,
        state=str(member.state),
        why=member.why,
        breaker=member.breaker.state,
        failures=member.breaker.consecutive_failures,
        in_flight=member.in_flight,
        slots_busy=report.slots_busy,
        slots_total=report.slots_total,
        running=report.running,
        queued=report.queued,
        tokens_per_s=round(report.tokens_per_s, 1),
        history=history,
        kv_used=report.kv_used_ratio,
        models=tuple(names[:MODELS_MAX]),
        models_more=max(0, len(names) - MODELS_MAX),
        engine=report.engine_kind,
        engine_version=report.engine_version,
        engine_restarts=report.engine_restarts,
        version=report.version,
        uptime_s=round(report.uptime_s, 1),
        reported_s=round(now - member.reported_at, 2) if member.reported_at else None,
        last_words=report.last_words,
        leaving=member in leaving,
    )

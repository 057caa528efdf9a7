"""One worker as the pool sees it: its breaker, its channel, what it last said, and how much it holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from neurogate.channel import WorkerChannel
from neurogate.dataplane.state import WorkerState
from neurogate.endpoint import Endpoint, WorkerReport
from neurogate.resilience.breaker import EndpointBreaker
from neurogate.resilience.outliers import Tally

NEVER_HEARD = WorkerReport(detail="not connected yet")


class LinkChannel(WorkerChannel, Protocol):
    """A channel with a life of its own."""

    async def run(self) -> None:
        """Keep the link open, reconnecting with backoff, until cancelled; then end every call in flight."""
        ...


class _Picked:
    """What a pick reads and writes of a worker.

    Slots lie in memory in the order of their names, those of a base first: a pick then waits for one or two lines of
    memory and not for four, where the fleet is too large for the cache.
    """

    __slots__ = (
        "_others",
        "_report",
        "aside",
        "breaker",
        "in_flight",
        "on_idle",
        "on_room",
        "slots",
        "tally",
        "usable",
    )


class Member(_Picked):
    """Mutable state of one endpoint. The pool alone writes it; pickers and the edge read it."""

    __slots__ = (
        "_cordoned",
        "_linked",
        "came_back",
        "channel",
        "ejected",
        "ejected_for",
        "endpoint",
        "id",
        "last_error",
        "rank",
        "reachable_once",
        "readmission",
        "reported_at",
        "rest",
        "rest_load",
        "resting_until",
        "told",
    )

    def __init__(self, endpoint: Endpoint, breaker: EndpointBreaker) -> None:
        self.id = endpoint.id
        self.endpoint = endpoint
        self.rank = 0
        """Its place in the order of the fleet: later ones have larger numbers."""
        self.breaker = breaker
        self.channel: LinkChannel
        self.in_flight = 0
        self.usable = False
        """Could be asked, its breaker, rest and ejection aside: linked, ready, neither draining nor cordoned."""
        self.on_idle: Callable[[], None] | None = None
        """Called when its last request ends: it is on its way out of the fleet."""
        self.on_room: Callable[[], None] | None = None
        """Called when one of its requests ends: it rests because it is full."""
        self.ejected = False
        """It is much worse than its peers."""
        self.ejected_for = ""
        """In what."""
        self.tally: Tally | None = None
        """What is counted of it, to compare it with its peers; None when nobody does."""
        self.rest: asyncio.TimerHandle | None = None
        """Runs while it rests."""
        self.resting_until = 0.0
        """Loop time; meaningless while it does not rest."""
        self.rest_load = 0
        """Requests it held when it refused one."""
        self.aside = False
        """It rests or is ejected, and so is not picked: one look for the hot path."""
        self.came_back = False
        """Its link or its engine came back while its breaker was open, and nobody has probed it since."""
        self.told = WorkerState.UNREACHABLE
        """The state that was told last."""
        self.reachable_once = False
        self.slots = 0
        """Of its report: who adds up a large fleet's does not wait for the memory of all reports."""
        self.reported_at = 0.0
        self.last_error = ""
        self.readmission: asyncio.TimerHandle | None = None
        """Runs while the breaker is not closed: at its end a snapshot must say that a probe is admitted."""
        self._linked = False
        self._cordoned = False
        self._report = NEVER_HEARD
        self._others = 0

    @property
    def linked(self) -> bool:
        """Frames arrive: the worker process lives and answers."""
        return self._linked

    @linked.setter
    def linked(self, linked: bool) -> None:
        self._linked = linked
        self._judge()

    @property
    def cordoned(self) -> bool:
        """An admin lets it have nothing new."""
        return self._cordoned

    @cordoned.setter
    def cordoned(self, cordoned: bool) -> None:
        self._cordoned = cordoned
        self._judge()

    @property
    def report(self) -> WorkerReport:
        """What it said last."""
        return self._report

    @report.setter
    def report(self, report: WorkerReport) -> None:
        self._report = report
        self.slots = report.slots_total
        self._judge()

    @property
    def load(self) -> int:
        """Requests it holds: this gateway's exactly, other callers' as of its last report."""
        return self.in_flight + self._others

    @property
    def state(self) -> WorkerState:
        """What it is, in one word: the first that holds of those in the order of `WorkerState`."""
        if not self.usable or self.on_idle is not None:
            return self._unusable()
        if self.breaker.state != "closed":
            return WorkerState.OPEN if self.breaker.state == "open" else WorkerState.HALF_OPEN
        if self.ejected:
            return WorkerState.EJECTED
        return WorkerState.READY if self.rest is None else WorkerState.RESTING

    @property
    def why(self) -> str:
        """What is known of why it is in that state; often empty."""
        match self.state:
            case WorkerState.UNREACHABLE:
                return self.last_error or self.report.detail
            case WorkerState.OPEN | WorkerState.HALF_OPEN:
                return self.breaker.opened_for
            case WorkerState.EJECTED:
                return self.ejected_for
            case _:
                return self.report.detail

    def take_report(self, report: WorkerReport, now: float) -> bool:
        """Store a report; True when it changes who may be picked for what, or for how much."""
        before = self.report
        if before.resumes and not (report.ready or report.resumes):
            report = replace(report, resumes=before.resumes)  # an engine that is away does not tell what it can do
        self.report = report
        self.reported_at = now
        self._others = max(0, report.running + report.queued - self.in_flight)
        return (
            report.ready is not before.ready
            or report.draining is not before.draining
            or report.slots_total != before.slots_total
            or report.models != before.models
            or report.apis != before.apis
            or report.resumes != before.resumes
        )

    def forget_load(self) -> None:
        """The worker is gone, and with it what it was doing; what it can do is remembered."""
        self._others = 0
        self.report = replace(
            self.report,
            ready=False,
            loading=False,
            slots_busy=0,
            running=0,
            queued=0,
            tokens_outstanding=0,
            decode_tokens_per_s=0.0,
            prompt_tokens_per_s=0.0,
        )

    def serves(self, model: str) -> bool:
        """Whether its engine has the model; every worker serves the empty name with its default."""
        return not model or any(served.name == model for served in self.report.models)

    def can_do(self, api: str) -> bool:
        """Whether its engine has the API; every worker has those without a name."""
        return not api or api in self.report.apis

    def _judge(self) -> None:
        """Worked out where it changes, once a second at most, and not at every pick."""
        report = self._report
        self.usable = self._linked and report.ready and not report.draining and not self._cordoned

    def _unusable(self) -> WorkerState:
        if not self.linked:
            return WorkerState.UNREACHABLE
        if self.report.draining or self.on_idle is not None:
            return WorkerState.DRAINING
        return WorkerState.CORDONED if self.cordoned else WorkerState.NOT_READY

    def __repr__(self) -> str:
        return f"<Member {self.id} {self.state} {self.breaker.state} in_flight={self.in_flight}>"

"""The dispatcher: who gets a request, whether it may be tried again, and what is in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from neurogate.balancing.picker import Picker
from neurogate.channel import Call, End, EndCode
from neurogate.dataplane.consider import Considered, consider
from neurogate.dataplane.deadlines import Deadlines
from neurogate.dataplane.exchange import Exchange
from neurogate.dataplane.journal import Journal
from neurogate.dataplane.lease import Lease
from neurogate.dataplane.member import Member
from neurogate.dataplane.pool import EndpointPool
from neurogate.dataplane.receiver import Receiver
from neurogate.dataplane.recovery import NoRecovery, Recovery
from neurogate.dataplane.snapshot import Snapshot
from neurogate.dataplane.stalls import StallWatch
from neurogate.dataplane.state import WorkerState
from neurogate.dataplane.verdict import Retry, judge
from neurogate.endpoint import ModelIdentity
from neurogate.errors import BusyError, GatewayError, ModelNotFoundError, NoWorkerError, UnsupportedError
from neurogate.resilience.breaker import Outcome
from neurogate.resilience.retry import RetryBudget
from neurogate.telemetry.concern import about

_MODELS_TOLD = 50
"""The most names that an error lists."""

_HEDGES_AT_ONCE = 2.0
"""Hedges that a burst may have before the share counts."""

ASKED_MAX = 16
"""Workers that one request is offered to, where those before cannot do what it asks for: that takes them no work."""

MOVES_MAX = 5
"""Workers that may be lost under one request before its first byte."""


def _anybody(_: Member) -> bool:
    return True


class DispatchObserver(Protocol):
    """Hears of retries, for metrics."""

    def retried(self, worker_id: str, reason: str, request_id: str) -> None:
        """A request left this worker for another one before its first byte."""
        ...

    def resumed(self, worker_id: str, reason: str, request_id: str) -> None:
        """A stream broke on this worker, and another one is to continue it."""
        ...

    def not_resumed(self, worker_id: str, reason: str, request_id: str) -> None:
        """A stream broke on this worker, and nobody may continue it."""
        ...

    def hedged(self, worker_id: str, *, won: bool) -> None:
        """This worker's first token was late and a second one was asked; or, `won`, the second one was first."""
        ...


@dataclass(frozen=True, slots=True)
class DispatchLimits:
    """Bounds of every exchange."""

    retries: int = 2
    """Other workers tried before the first byte."""
    failfast_s: float = 2.0
    """Seconds a request waits for any usable worker."""
    max_waiting: int = 1024
    """Requests that may wait so at once."""
    max_answer_bytes: int = 64 * 1024 * 1024
    """Largest unstreamed answer held in memory."""
    resume_attempts: int = 5
    """How often one stream may be continued that engines break; twice as often in a row where workers are lost before a
    token comes of it, and ten times as often in all."""
    resume_wait_s: float = 15.0
    """Seconds a broken stream waits for any usable worker."""
    resume_buffer_bytes: int = 32 * 1024
    """Bytes of a stream that are kept as they were; of more than those, only the text is."""
    hedge_after_s: float = 0.0
    """Seconds without an answer after which a second worker is asked; 0 is never."""
    hedge_share: float = 0.05
    """Hedges, as a share of requests."""
    stall_s: float = 0.0
    """Seconds without a piece of a stream that has begun after which its worker is left; 0 is never."""


class Dispatcher:
    """Starts exchanges and answers their questions. Single-threaded, on one event loop."""

    def __init__(
        self,
        pool: EndpointPool,
        picker: Picker,
        *,
        budget: RetryBudget,
        limits: DispatchLimits,
        loop: asyncio.AbstractEventLoop,
        observer: DispatchObserver,
        recovery: Recovery | None = None,
    ) -> None:
        self.pool = pool
        self.loop = loop
        self.recovery = recovery or NoRecovery()
        self._hedges = RetryBudget(ratio=limits.hedge_share, reserve=_HEDGES_AT_ONCE)
        self._stalls = StallWatch(loop)
        self.configure(limits)
        self._picker = picker
        self._budget = budget
        self._observer = observer
        self._exchanges: set[Exchange] = set()
        self._deadlines = Deadlines(self._exchanges, loop)
        self._beside = 0

    def configure(self, limits: DispatchLimits) -> None:
        """Take other bounds; exchanges that are under way meet them at their next question."""
        self.failfast_s = limits.failfast_s
        self.max_answer_bytes = limits.max_answer_bytes
        self.resume_attempts = limits.resume_attempts
        self.resume_wait_s = limits.resume_wait_s
        self.resume_buffer_bytes = limits.resume_buffer_bytes
        self.hedge_after_s = limits.hedge_after_s
        self._hedges.configure(ratio=limits.hedge_share)
        self._stalls.configure(limits.stall_s)
        self._limits = limits

    def use(self, picker: Picker) -> None:
        """Pick by another policy from now on."""
        self._picker = picker

    @property
    def in_flight(self) -> int:
        """Requests that have not ended, exchanges or not."""
        return len(self._exchanges) + self._beside

    def dispatch(self, call: Call, receiver: Receiver, journal: Journal | None = None) -> Exchange:
        """Send a request on its way; the receiver and the journal hear the rest, possibly before this returns."""
        self._budget.deposit()
        if self.hedge_after_s:
            self._hedges.deposit()
        exchange = Exchange(self, call, receiver, journal)
        if not exchange.finished:
            self._exchanges.add(exchange)
            self._deadlines.watch(call.deadline)
            self._stalls.watch(self._exchanges)
        return exchange

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Count a request that is no exchange as in flight, while the context lasts; its leases are its own business.

        It begins with the request's turn, before a worker is found: who waits for one is in flight as well.
        """
        self._beside += 1
        try:
            yield
        finally:
            self._beside -= 1

    def acquire(self, call: Call, tried: Collection[str]) -> Lease | None:
        """A lease on a worker that can take the call and was not tried yet, or None when there is none now.

        Workers that have the model loaded go first, while they have a slot for each of their requests.
        """
        snapshot = self.pool.snapshot
        loaded, others = snapshot.candidates(call.model, call.api)
        lease = self._lease(loaded, tried, spare=bool(others))
        if lease is None and others:
            lease = self._lease((*loaded, *others), tried)
        return lease or self._last_resort(snapshot, call, tried)

    def acquire_alike(self, call: Call, tried: Collection[str], like: ModelIdentity) -> Lease | None:
        """A lease on a worker that can go on with an answer of the model: it continues such answers, with the same."""
        snapshot = self.pool.snapshot

        def able(member: Member) -> bool:
            return call.path in member.report.resumes and _has(member, call, like)

        candidates = tuple(filter(able, snapshot.admitting(call.model, call.api)))
        return self._lease(candidates, tried) or self._last_resort(snapshot, call, tried, able)

    def nobody_continues(self, call: Call, like: ModelIdentity) -> str:
        """Why nobody will ever go on with an answer of the model, as far as workers have told; empty when one may.

        With nobody there who has it, one may come.
        """
        members = [member for member in self.pool.snapshot.members if _has(member, call, like)]
        if not members or any(call.path in member.report.resumes for member in members):
            return ""
        return f"the engine of no worker that has {like} continues answers of {call.path}"

    def somebody_loads(self, call: Call, like: ModelIdentity) -> bool:
        """Whether a worker that could go on with an answer of the model is there, and loads it."""
        return any(
            member.linked and member.report.loading and call.path in member.report.resumes and _has(member, call, like)
            for member in self.pool.snapshot.members
        )

    def acquire_spare(self, call: Call, tried: Collection[str]) -> Lease | None:
        """A lease for a second attempt: on a worker that is well and has a free slot, within the share of hedges."""
        if self._hedges.balance < 1.0:
            return None
        able = self.pool.snapshot.candidates(call.model, call.api).loaded
        spare = tuple(
            member
            for member in able
            if member.breaker.state == "closed" and member.load < (member.report.slots_total or 1)
        )
        lease = self._lease(spare, tried)
        if lease is not None:
            self._hedges.withdraw()
        return lease

    def hedged(self, exchange: Exchange, *, won: bool) -> None:
        """A second worker was asked, or was first: tells the observer."""
        self._observer.hedged(exchange.worker_id, won=won)

    def may_retry(self, exchange: Exchange, retry: Retry) -> bool:
        """Whether an exchange whose attempt failed may ask another worker, if there is one."""
        if retry is Retry.ELSEWHERE:
            return exchange.attempts < ASKED_MAX
        if retry is Retry.MOVED:
            return exchange.moved < MOVES_MAX and self._limits.retries > 0
        failed = exchange.attempts - exchange.unable - exchange.moved - exchange.beside
        return failed <= self._limits.retries and (retry is Retry.FREE or self._budget.balance >= 1.0)

    def retried(self, exchange: Exchange, retry: Retry, end: End) -> None:
        """An exchange leaves the worker that ended so: charges the budget if it must, and tells the observer."""
        if retry is Retry.CHARGED:
            self._budget.withdraw()
        with _about(exchange):
            self._observer.retried(exchange.worker_id, end.code.name.lower(), exchange.call.request_id)

    def refused(self, member: Member, end: End) -> None:
        """A worker said when to ask again: if that is a refusal and no failure, it is let alone until then."""
        if end.retry_after_s is not None and judge(end).outcome is Outcome.IGNORED:
            self.pool.rest(member, end.retry_after_s, until_room=end.code is EndCode.BUSY)

    def resumed(self, exchange: Exchange, end: End) -> None:
        """A stream broke on its worker, which ended so, and is to be continued: tells the observer."""
        with _about(exchange):
            self._observer.resumed(exchange.worker_id, end.code.name.lower(), exchange.call.request_id)

    def not_resumed(self, exchange: Exchange, reason: str) -> None:
        """A stream broke, and is not to be continued: tells the observer."""
        with _about(exchange):
            self._observer.not_resumed(exchange.worker_id, reason, exchange.call.request_id)

    def refuse_to_wait(self, call: Call, *, started: bool = False) -> GatewayError | None:
        """Why a request without a worker must not wait for one; None when it may. One that has `started` is good."""
        if started:
            return self.nobody_usable(call) if self.pool.waiting >= self._limits.max_waiting else None
        if self.pool.snapshot.heard_of_all and (self._unknown(call.model) or self._beyond_all(call)):
            return self.nobody_usable(call)
        if self.failfast_s <= 0 or self.pool.waiting >= self._limits.max_waiting:
            return self.nobody_usable(call)
        return self.nobody_usable(call) if (self._rest_s(call) or 0.0) > self.failfast_s else None

    def nobody_usable(self, call: Call) -> GatewayError:
        """The error for a request that no worker can take, saying what each of them lacks."""
        members = self.pool.snapshot.members
        model = call.model
        if self._unknown(model):
            known = sorted(self.pool.snapshot.models)
            more = f" and {len(known) - _MODELS_TOLD} more" if len(known) > _MODELS_TOLD else ""
            return ModelNotFoundError(
                f"model {model!r} not found, no worker has it; the models are: {', '.join(known[:_MODELS_TOLD])}{more}",
                param="model",
            )
        engines = self._beyond_all(call)
        if engines:
            having = f" that has the model {model!r}" if model else ""
            return UnsupportedError(f"no worker{having} can do {call.api}: the engines are {engines}")
        rest_s = self._rest_s(call)
        if rest_s is not None:
            return BusyError(
                f"every worker that could take the request asked to be left alone, one of them for {rest_s:.1f} s more",
                retry_after_s=rest_s,
            )
        states = "; ".join(f"{member.id}: {_why_not(member, call)}" for member in members[:5])
        more = f"; and {len(members) - 5} more" if len(members) > 5 else ""
        told = states + more or "no worker is known; see WORKER_ADDRESSES and NEUROGATE_DISCOVERY"
        return NoWorkerError(f"no worker can take the request now ({told})")

    def explain(self, call: Call, tried: Collection[str], like: ModelIdentity | None = None) -> tuple[Considered, ...]:
        """Every worker as it looks to a pick for the call now; `like` as for `acquire_alike`. Changes nothing."""
        return consider(self.pool.snapshot, call, tried, like, score=self._picker.score)

    def ended(self, exchange: Exchange) -> None:
        """An exchange is over."""
        self._exchanges.discard(exchange)

    def _lease(self, candidates: tuple[Member, ...], tried: Collection[str], *, spare: bool = False) -> Lease | None:
        """A lease on one of the candidates; with others to `spare` for it, not on one that is full."""
        exclude = tried
        while True:
            member = self._picker.pick(candidates, exclude)
            if member is None:
                return None
            full = spare and member.load >= member.report.slots_total
            permit = member.breaker.try_acquire() if member.usable and not (full or member.aside) else None
            if permit is not None:
                return Lease(member, permit, self.loop.time())
            exclude = (*exclude, member.id)

    def _last_resort(
        self, snapshot: Snapshot, call: Call, tried: Collection[str], able: Callable[[Member], bool] = _anybody
    ) -> Lease | None:
        """A fleet never ejects its last member (ADR 0019): those that are ejected, then those whose breaker is open.

        The latter only with no breaker closed. Of several, the least busy one. Who rests is not asked.
        """
        admitting, suspended = snapshot.admitting(call.model, call.api), snapshot.suspended(call.model, call.api)
        usable = [member for member in (*admitting, *suspended) if member.usable and able(member)]
        untried = [member for member in usable if member.id not in tried and member.rest is None]
        ejected = [member for member in untried if member.ejected and member.breaker.state == "closed"]
        if ejected:
            least_busy = min(ejected, key=lambda member: member.load)
            permit = least_busy.breaker.try_acquire()
            return Lease(least_busy, permit, self.loop.time()) if permit is not None else None
        if not untried or any(member.breaker.state == "closed" for member in usable):
            return None
        least_bad = min(untried, key=lambda member: (member.load, member.breaker.retry_at))
        return Lease(least_bad, least_bad.breaker.force(), self.loop.time())

    def _rest_s(self, call: Call) -> float | None:
        """Seconds until the first worker has rested that could take the call; None where rest is not what is needed."""
        snapshot = self.pool.snapshot
        resting = [
            member
            for member in (*snapshot.admitting(call.model, call.api), *snapshot.suspended(call.model, call.api))
            if member.usable and member.breaker.state == "closed"
        ]
        if not resting or any(member.rest is None for member in resting):
            return None
        return max(0.0, min(member.resting_until for member in resting) - self.loop.time())

    def _unknown(self, model: str) -> bool:
        models = self.pool.snapshot.models
        return bool(model and models) and model not in models

    def _beyond_all(self, call: Call) -> str:
        """The engines there are, when none that could serve the model has the API; else empty.

        A worker that never was ready has not told yet what it can do.
        """
        if not call.api:
            return ""
        members = [member for member in self.pool.snapshot.members if member.serves(call.model)]
        told = [member.report.ready or bool(member.report.models) for member in members]
        if not members or not all(told) or any(member.can_do(call.api) for member in members):
            return ""
        return ", ".join(f"{member.report.engine_kind or 'unknown'} ({member.id})" for member in members[:5])


def _about(exchange: Exchange) -> AbstractContextManager[None]:
    """What is logged inside names the request."""
    return about(exchange.call.request_id, exchange.call.traceparent)


def _has(member: Member, call: Call, like: ModelIdentity) -> bool:
    """Whether a member would answer a call with the same model."""
    return member.serves(call.model) and like.may_be(member.report.identity_of(call.model))


def _why_not(member: Member, call: Call) -> str:
    """For whoever asked: not where the worker is, nor what exactly the network said, which an operator sees."""
    why = member.why if member.state is not WorkerState.UNREACHABLE else ""
    state = f"{member.state} ({why})" if why else str(member.state)
    return (_lacking(member, call) or state) if member.usable else state


def _lacking(member: Member, call: Call) -> str:
    if not member.serves(call.model):
        return f"has not the model {call.model}"
    if not member.can_do(call.api):
        return f"its engine {member.report.engine_kind} cannot do {call.api}"
    return ""

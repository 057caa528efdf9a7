"""One admitted request on its way: attempt, first byte, retry, end.

An exchange is the sink of its current attempt and speaks to one receiver. It is a small state machine driven by
callbacks, without a task of its own: a token costs one method call on its way through (ADR 0001). Its rules:

- before the first byte reaches the receiver, a retryable end moves the request to another worker;
- an unstreamed answer has its first byte only when it is whole, so a worker may die in the middle of one unnoticed;
- after the first byte an end other than success lets another worker continue the answer, from the text that the client
  has (ADR 0018); where that cannot be, it is an error, said aloud: a broken answer never looks whole;
- exactly one of `on_answer`, `on_complete` and `on_error` ends the exchange, and nothing is held afterwards.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from neurogate.channel import Call, End, EndCode, Resume
from neurogate.dataplane.hedge import Hedge
from neurogate.dataplane.journal import Journal
from neurogate.dataplane.lease import Lease
from neurogate.dataplane.phase import Phase
from neurogate.dataplane.receiver import Receiver
from neurogate.dataplane.recovery import CannotResumeError
from neurogate.dataplane.sent import Sent
from neurogate.dataplane.verdict import Retry, error_for, judge, what_broke
from neurogate.dataplane.waiting import Wait
from neurogate.endpoint import ModelIdentity
from neurogate.errors import DeadlineError, EngineFailedError, GatewayError, StreamBrokenError
from neurogate.inference import Usage
from neurogate.resilience.breaker import Outcome

if TYPE_CHECKING:
    from neurogate.dataplane.dispatch import Dispatcher

_RESUMES_PER_ATTEMPT = 10
"""How many times as often a stream may be continued that only lost its workers, and had something of each."""

_IN_VAIN_PER_ATTEMPT = 2
"""How many times as often in a row without a token, where workers were lost: it may be its doing, or the fleet's."""

_AGAIN_S = 1.0
"""Until the only worker there is may be asked again to continue a stream that it did not continue."""


class Exchange:
    """One request between a receiver and the workers it is tried on."""

    __slots__ = (
        "_broke",
        "_broken_by",
        "_dispatcher",
        "_doubtful",
        "_fruitless",
        "_hedge",
        "_hedge_timer",
        "_held",
        "_held_bytes",
        "_journal",
        "_lease",
        "_like",
        "_receiver",
        "_resume",
        "_sent",
        "_silent",
        "_ticket",
        "_tried",
        "_wait",
        "attempts",
        "beside",
        "call",
        "chunks",
        "finished",
        "moved",
        "resumes",
        "started",
        "unable",
        "usage",
        "worker_id",
    )

    def __init__(self, dispatcher: Dispatcher, call: Call, receiver: Receiver, journal: Journal | None = None) -> None:
        self.call = call
        self.attempts = 0
        """Workers asked so far, the present one included."""
        self.unable = 0
        """Of those, how many cannot do what is asked."""
        self.moved = 0
        """Of those, how many were gone before the first byte."""
        self.beside = 0
        """Of those, how many were asked beside another one."""
        self.worker_id = ""
        """Who is, or was last, asked."""
        self.resumes = 0
        """How often a broken stream was continued."""
        self.chunks = 0
        """Pieces of a streamed answer that the receiver had: about one a token."""
        self.started = False
        """The receiver has had a first byte."""
        self.finished = False
        self.usage: Usage | None = None
        self._dispatcher = dispatcher
        self._receiver = receiver
        self._journal = journal
        self._lease: Lease | None = None
        self._ticket = 0
        self._tried: tuple[str, ...] = ()
        self._silent = True
        """Nothing of a stream came from the present worker."""
        self._sent = Sent(dispatcher.recovery, call) if call.resumable else None
        """What the receiver had; None when the stream is not to be continued."""
        self._resume: Resume | None = None
        self._fruitless = 0
        """Continuations in a row of which not a token came."""
        self._doubtful = 0
        """Continuations of what an engine broke: the request may be why."""
        self._like: ModelIdentity | None = None
        """The model of the stream that is to be continued; None while there is no such stream."""
        self._broke = ""
        self._broken_by = End()
        """How the attempt ended that is to be continued."""
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._hedge: Hedge | None = None
        self._hedge_timer: asyncio.TimerHandle | None = None
        self._wait: Wait | None = None
        self._attempt()

    def on_chunk(self, data: bytes) -> None:
        """Pass a chunk on (streamed) or hold it until the answer is whole (unstreamed)."""
        if self._silent:
            if not self.call.stream:
                self._hold(data)
                return
            self._start()
        self.chunks += 1
        sent = self._sent
        if sent is not None and sent.kept is not None:
            sent.kept.append(data)
            sent.size += len(data)
            if sent.size > self._dispatcher.resume_buffer_bytes:
                sent.read()
        self._receiver.on_chunk(data)

    def _hold(self, data: bytes) -> None:
        if self._hedge_timer is not None or self._hedge is not None:
            self._unhedge()
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > self._dispatcher.max_answer_bytes:
            self._abandon(Outcome.IGNORED)
            self._fail(
                EngineFailedError(
                    f"the answer is larger than NEUROGATE_MAX_ANSWER_BYTES ({self._dispatcher.max_answer_bytes}); "
                    "ask for less, or stream it"
                )
            )

    def on_end(self, end: End) -> None:
        """Judge the attempt and finish, or go to another worker."""
        if self.started and end.code is EndCode.DEADLINE:
            self.expire()  # the worker's clock was a little faster than ours
            return
        verdict = judge(end)
        lease = self._lease
        if lease is not None:
            self._lease = None
            if lease.member.tally is not None and not self._silent:
                lease.streamed(self.chunks, self._dispatcher.loop.time())
            lease.release(verdict.outcome)
            if self._journal is not None:
                self._journal.left(lease.member.id, end)
            if end.retry_after_s is not None:
                self._dispatcher.refused(lease.member, end)
        if self._hedge is not None and not self.started and verdict.retry is not Retry.NO:
            self._lead(self._hedge)  # it is asked already
            return
        answered = end.code is EndCode.ANSWERED and verdict.outcome is Outcome.SUCCESS
        if answered and (end.http_status < 300 or not self.started):
            self.usage = end.usage
            self._succeed(end)
        elif self.started:
            self._broke = f"the answer broke off: {what_broke(end, self.worker_id)}"
            if self._sent is not None:
                self._continue(end, lease, self._sent)
            else:
                self._fail(StreamBrokenError(self._broke))
        elif verdict.retry is Retry.NO or not self._dispatcher.may_retry(self, verdict.retry):
            self._give_up(end)
        else:
            self._move_on(end, verdict.retry)

    def cancel(self) -> None:
        """The client is gone, or too slow: stop the engine and forget the request. Idempotent, tells nobody."""
        if not self.finished:
            self._finish()

    def expire(self) -> None:
        """The request's time is over."""
        self._abandon(Outcome.IGNORED if self.started else Outcome.FAILURE)
        where = f" on {self.worker_id}" if self.worker_id else ""
        error = DeadlineError(
            f"the request's time ran out{where}; ask for fewer tokens, or allow more time "
            "(the request's own, or NEUROGATE_REQUEST_TIMEOUT_S)"
        )
        self._fail(error)

    @property
    def deadline(self) -> float:
        """Loop time at which it is to be over."""
        return self.call.deadline

    @property
    def phase(self) -> Phase:
        """What it is about now, for whoever looks."""
        if self._resume is not None and (self._silent or self._lease is None):
            return Phase.RESUME
        if self._lease is None:
            return Phase.PICK
        if not self.call.stream:
            return Phase.WHOLE
        return Phase.PREFILL if self._silent else Phase.DECODE

    @property
    def flowing(self) -> bool:
        """The present worker streams: what is silent now was not before."""
        return not self._silent

    def hedge_speaks(self, hedge: Hedge) -> None:
        """The second attempt has an answer first: the first one is taken back."""
        self._abandon(Outcome.IGNORED)
        self._dispatcher.hedged(self, won=True)
        self._lead(hedge)

    def hedge_failed(self, hedge: Hedge, end: End) -> None:
        """The second attempt failed; the first one goes on."""
        self._hedge = None
        self._tried = (*self._tried, hedge.lease.member.id)
        hedge.lease.release(judge(end).outcome)
        if self._journal is not None:
            self._journal.left(hedge.lease.member.id, end)
        self._dispatcher.refused(hedge.lease.member, end)

    def stalled(self, silent_s: float) -> None:
        """Nothing came of a stream that had begun: its worker is left, as if it had said that it broke."""
        if self._lease is not None:
            self._lease.member.channel.cancel(self._ticket)
            self.on_end(End(EndCode.BROKEN, message=f"nothing came for {silent_s:g} s (NEUROGATE_STALL_S)"))

    def _lead(self, hedge: Hedge) -> None:
        """The hedge is the attempt that counts from now on."""
        self._hedge = None
        self._lease, self._ticket = hedge.lease, hedge.ticket
        self._tried = (*self._tried, self.worker_id)
        self.worker_id = hedge.lease.member.id
        self._held.clear()
        self._held_bytes = 0
        hedge.lead()

    def _hedge_now(self) -> None:
        """The first token is late: ask a second worker, if there is one to spare."""
        if self._lease is None:
            return  # nobody is asked now: it is not that one is late
        lease = self._dispatcher.acquire_spare(self.call, (*self._tried, self.worker_id))
        if lease is not None:
            self.attempts += 1
            self.beside += 1
            self._dispatcher.hedged(self, won=False)
            self._hedge = Hedge(self, self._traced(self.call, lease, beside=True), lease)

    def _unhedge(self) -> None:
        """There is an answer, or none is wanted: no second attempt is needed any more."""
        if self._hedge_timer is not None:
            self._hedge_timer.cancel()
            self._hedge_timer = None
        if self._hedge is not None:
            hedge, self._hedge = self._hedge, None
            hedge.drop()
            if self._journal is not None:
                self._journal.left(hedge.lease.member.id, None)

    def _acquire(self) -> Lease | None:
        if self._journal is not None:
            self._journal.looks(self.call, self._tried, self._like)
        if self._like is not None:
            return self._dispatcher.acquire_alike(self.call, self._tried, self._like)
        return self._dispatcher.acquire(self.call, self._tried)

    def _attempt(self) -> None:
        lease = self._acquire()
        if lease is None:
            self._wait_for_worker()
        else:
            self._ask(lease)

    def _move_on(self, end: End, retry: Retry) -> None:
        """Leave a worker that failed for another one; only when it is gone, wait for one."""
        self._held.clear()
        self._held_bytes = 0
        self.unable += retry is Retry.ELSEWHERE
        self.moved += retry is Retry.MOVED
        self._tried = (*self._tried, self.worker_id)
        lease = self._acquire()
        if lease is None and retry not in {Retry.FREE, Retry.MOVED}:
            self._give_up(end)
            return
        if lease is None:
            self._tried = (self.worker_id,)  # of those that were asked before, one may do better now
            lease = self._acquire()
        self._dispatcher.retried(self, retry, end)
        if lease is None:
            self._wait_for_worker()
        else:
            self._ask(lease)

    def _ask(self, lease: Lease) -> None:
        if self._wait is not None:
            self._wait.stop()
        if self._resume is not None:
            self.resumes += 1
            self._fruitless += 1
            self._doubtful += judge(self._broken_by).retry is not Retry.MOVED
            self._dispatcher.resumed(self, self._broken_by)
        self._lease = lease
        self.worker_id = lease.member.id
        self.attempts += 1
        self._silent = True
        call = self.call
        if self._resume is not None:
            call = msgspec.structs.replace(call, resume=self._resume)
            self._receiver.on_resume()
        elif self._dispatcher.hedge_after_s and self._hedge_timer is None:
            self._hedge_timer = self._dispatcher.loop.call_later(self._dispatcher.hedge_after_s, self._hedge_now)
        self._ticket = lease.member.channel.submit(self._traced(call, lease), self)

    def _traced(self, call: Call, lease: Lease, *, beside: bool = False) -> Call:
        """The call with the trace context of its attempt."""
        if self._journal is None:
            return call
        traceparent = self._journal.asked(lease.member.id, resumed=call.resume is not None, beside=beside)
        return msgspec.structs.replace(call, traceparent=traceparent) if traceparent else call

    def _continue(self, end: End, broken: Lease | None, sent: Sent) -> None:
        """The stream broke on this worker: go on with it on another one, or say that it broke."""
        if self._like is None and broken is not None:
            self._like = broken.report.identity_of(self.call.model)  # as it was then: by now it may be another one
        try:
            resume = self._where_it_stopped(end, sent)
        except CannotResumeError as error:
            self._dispatcher.not_resumed(self, str(error))
            self._fail(StreamBrokenError(f"{self._broke}; it was not continued: {error}"))
            return
        if resume is None:  # all that is missing is the worker's word to us that it was the end
            self._finish()
            self._receiver.on_complete()
            return
        self._resume, self._broken_by = resume, end
        self._tried = (*self._tried, self.worker_id)
        lease = self._acquire()
        if lease is None and not self._silent:
            self._tried = ()  # with nobody else there, a worker that was asked is better than none
            lease = self._acquire()
        if lease is not None:
            self._ask(lease)
            return
        self._wait_for_worker(again_s=(end.retry_after_s or _AGAIN_S) if self._silent else None)

    def _where_it_stopped(self, end: End, sent: Sent) -> Resume | None:
        """What the client has; None when that is all, with the end mark. Raises CannotResumeError."""
        resume = sent.where_it_stopped()
        if resume is None:
            return None
        if end.code is EndCode.ANSWERED and end.http_status < 500 and end.http_status != 429:
            raise CannotResumeError("the worker that was asked to refused it")
        attempts = self._dispatcher.resume_attempts
        in_vain = self._doubtful >= attempts or self._fruitless >= attempts * _IN_VAIN_PER_ATTEMPT
        if in_vain or self.resumes >= attempts * _RESUMES_PER_ATTEMPT:
            raise CannotResumeError(f"that was tried {self.resumes} times (NEUROGATE_RESUME_ATTEMPTS)")
        if self._like is not None and (why_not := self._dispatcher.nobody_continues(self.call, self._like)):
            raise CannotResumeError(why_not)
        return resume

    def _wait_for_worker(self, again_s: float | None = None) -> None:
        """No worker is usable now: one may come (back) within the failfast time, or be asked after `again_s`."""
        refusal = self._dispatcher.refuse_to_wait(self.call, started=self.started)
        if refusal is not None:
            self._nobody(refusal)
            return
        if self._journal is not None:
            self._journal.waits()
        self._tried = ()  # a worker that was lost and came back is as good as another
        if self._wait is None:
            dispatcher = self._dispatcher
            self._wait = Wait(dispatcher.pool, dispatcher.loop, look=self._attempt, over=self._failfast)
        wait_s = self._dispatcher.resume_wait_s if self.started else self._dispatcher.failfast_s
        self._wait.go_on(wait_s, again_s=again_s)

    def _failfast(self) -> None:
        if self._like is not None and self._dispatcher.somebody_loads(self.call, self._like):
            self._wait_for_worker()  # it will be there, in however long its model takes
            return
        self._nobody(self._dispatcher.nobody_usable(self.call))

    def _nobody(self, refusal: GatewayError) -> None:
        if self.started:
            self._dispatcher.not_resumed(self, refusal.message)
            refusal = StreamBrokenError(f"{self._broke}; {refusal.message}")
        self._fail(refusal)

    def _start(self) -> None:
        """The first bytes of a stream came from the present worker."""
        self.started = True
        self._silent = False
        self._fruitless = 0
        self._unhedge()
        if self._lease is not None:
            self._lease.answered(self._dispatcher.loop.time(), self.chunks)
            if self._journal is not None:
                self._journal.answered(self._lease.member.id)

    def _succeed(self, end: End) -> None:
        if self.call.stream and end.http_status < 300:
            self._finish()
            self._receiver.on_complete()
            return
        body = end.body or b"".join(self._held)
        self._finish()
        self._receiver.on_answer(end, body)

    def _give_up(self, end: End) -> None:
        self._fail(error_for(end, self.worker_id))

    def _fail(self, error: GatewayError) -> None:
        self._finish()
        self._receiver.on_error(error)

    def _abandon(self, outcome: Outcome) -> None:
        """Take the present attempt back from its worker."""
        lease = self._lease
        if lease is not None:
            self._lease = None
            lease.member.channel.cancel(self._ticket)
            lease.release(outcome)
            if self._journal is not None:
                self._journal.left(lease.member.id, None)

    def _finish(self) -> None:
        self.finished = True
        self._held = []
        self._sent = None
        if self._lease is not None:
            self._abandon(Outcome.IGNORED)
        if self._hedge_timer is not None or self._hedge is not None:
            self._unhedge()
        if self._wait is not None:
            self._wait.stop()
        self._dispatcher.ended(self)

    def __repr__(self) -> str:
        state = "finished" if self.finished else "started" if self.started else "waiting"
        return f"<Exchange {self.call.request_id} {state} worker={self.worker_id!r} attempts={self.attempts}>"

"""One admitted request on its way: attempt, first byte, retry, end.

An exchange is the sink of its current attempt and speaks to one receiver. It is a small state machine driven by
callbacks, without a task of its own: a token costs one method call on its way through (ADR 0001). Its rules:

- before the first byte reaches the receiver, a retryable end moves the request to another worker;
- an unstreamed answer has its first byte only when it is whole, so a worker may die in the middle of one unnoticed;
- after the first byte an end other than success is an error, said aloud: a broken answer never looks whole;
- exactly one of `on_answer`, `on_complete` and `on_error` ends the exchange, and nothing is held afterwards.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from neurogate.channel import Call, End, EndCode
from neurogate.dataplane.lease import Lease
from neurogate.dataplane.verdict import Retry, error_for, judge, what_broke
from neurogate.errors import DeadlineError, EngineFailedError, GatewayError, StreamBrokenError
from neurogate.inference import Usage
from neurogate.resilience.breaker import Outcome

if TYPE_CHECKING:
    from neurogate.dataplane.dispatch import Dispatcher


class Receiver(Protocol):
    """Takes the answer of one request. Called on the event loop; must not block and must not raise."""

    def on_chunk(self, data: bytes) -> None:
        """Take a piece of a streamed answer: whole events."""
        ...

    def on_answer(self, end: End, body: bytes) -> None:
        """Take a whole answer: an unstreamed one, or the engine's own refusal (4xx) of either kind."""
        ...

    def on_complete(self) -> None:
        """The streamed answer is complete."""
        ...

    def on_error(self, error: GatewayError) -> None:
        """There is no answer, or what came of it so far is all there is."""
        ...


class Exchange:
    """One request between a receiver and the workers it is tried on."""

    __slots__ = (
        "_deadline_timer",
        "_dispatcher",
        "_failfast_timer",
        "_held",
        "_held_bytes",
        "_lease",
        "_receiver",
        "_ticket",
        "_tried",
        "attempts",
        "call",
        "finished",
        "started",
        "unable",
        "usage",
        "worker_id",
    )

    def __init__(self, dispatcher: Dispatcher, call: Call, receiver: Receiver) -> None:
        self.call = call
        self.attempts = 0
        """Workers asked so far, the present one included."""
        self.unable = 0
        """Of those, how many cannot do what is asked."""
        self.worker_id = ""
        """Who is, or was last, asked."""
        self.started = False
        """The receiver has had a first byte."""
        self.finished = False
        self.usage: Usage | None = None
        self._dispatcher = dispatcher
        self._receiver = receiver
        self._lease: Lease | None = None
        self._ticket = 0
        self._tried: tuple[str, ...] = ()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._failfast_timer: asyncio.TimerHandle | None = None
        self._deadline_timer = dispatcher.loop.call_at(call.deadline, self._expire)
        self._attempt()

    def on_chunk(self, data: bytes) -> None:
        """Pass a chunk on (streamed) or hold it until the answer is whole (unstreamed)."""
        if self.call.stream:
            if not self.started:
                self._start()
            self._receiver.on_chunk(data)
            return
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
            self._expire()  # the worker's clock was a little faster than ours
            return
        verdict = judge(end)
        lease = self._lease
        if lease is not None:
            self._lease = None
            lease.release(verdict.outcome)
        answered = end.code is EndCode.ANSWERED and verdict.outcome is Outcome.SUCCESS
        if answered and (end.http_status < 300 or not self.started):
            self.usage = end.usage
            self._succeed(end)
        elif self.started:
            self._fail(StreamBrokenError(f"the answer broke off: {what_broke(end, self.worker_id)}"))
        elif verdict.retry is Retry.NO or not self._dispatcher.may_retry(self, verdict.retry):
            self._give_up(end)
        else:
            self._move_on(end, verdict.retry)

    def cancel(self) -> None:
        """The client is gone, or too slow: stop the engine and forget the request. Idempotent, tells nobody."""
        if not self.finished:
            self._abandon(Outcome.IGNORED)
            self._finish()

    def _attempt(self) -> None:
        lease = self._dispatcher.acquire(self.call, self._tried)
        if lease is None:
            self._wait_for_worker()
        else:
            self._ask(lease)

    def _move_on(self, end: End, retry: Retry) -> None:
        """Leave a worker that failed for another one; only when it is gone, wait for one."""
        self._held.clear()
        self._held_bytes = 0
        self.unable += retry is Retry.ELSEWHERE
        self._tried = (*self._tried, self.worker_id)
        lease = self._dispatcher.acquire(self.call, self._tried)
        if lease is None and retry is not Retry.FREE:
            self._give_up(end)
            return
        self._dispatcher.retried(self, retry, end)
        if lease is None:
            self._wait_for_worker()
        else:
            self._ask(lease)

    def _ask(self, lease: Lease) -> None:
        if self._failfast_timer is not None:
            self._failfast_timer.cancel()
            self._failfast_timer = None
        self._lease = lease
        self.worker_id = lease.member.id
        self.attempts += 1
        self._ticket = lease.member.channel.submit(self.call, self)

    def _wait_for_worker(self) -> None:
        """No worker is usable now: one may come (back) within the failfast time."""
        refusal = self._dispatcher.refuse_to_wait(self.call)
        if refusal is not None:
            self._fail(refusal)
            return
        if self._failfast_timer is None:
            self._failfast_timer = self._dispatcher.loop.call_later(self._dispatcher.failfast_s, self._failfast)
        self._tried = ()  # a worker that was lost and came back is as good as another
        self._dispatcher.pool.wait(self._look_again)

    def _look_again(self) -> None:
        if not self.finished:
            self._attempt()

    def _failfast(self) -> None:
        self._fail(self._dispatcher.nobody_usable(self.call))

    def _expire(self) -> None:
        """The request's time is over."""
        self._abandon(Outcome.IGNORED if self.started else Outcome.FAILURE)
        where = f" on {self.worker_id}" if self.worker_id else ""
        error = DeadlineError(
            f"the request's time ran out{where}; ask for fewer tokens, or raise NEUROGATE_REQUEST_TIMEOUT_S"
        )
        self._fail(error)

    def _start(self) -> None:
        self.started = True
        if self._lease is not None:
            self._lease.answered()

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

    def _finish(self) -> None:
        self.finished = True
        self._held = []
        self._deadline_timer.cancel()
        if self._failfast_timer is not None:
            self._failfast_timer.cancel()
            self._dispatcher.pool.unwait(self._look_again)
        self._dispatcher.ended(self)

    def __repr__(self) -> str:
        state = "finished" if self.finished else "started" if self.started else "waiting"
        return f"<Exchange {self.call.request_id} {state} worker={self.worker_id!r} attempts={self.attempts}>"

"""The gateway behind its public gRPC listener: the same edge and the same dispatcher as over HTTP.

A prompt becomes the `Call` that `POST /prompt` makes, so that whatever the data plane does for one it does for the
other. A proxied call gets what every attempt of an exchange has, a lease, and settles it itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

from neurogate.channel import Call
from neurogate.dataplane.dispatch import Dispatcher
from neurogate.dataplane.lease import Lease
from neurogate.dataplane.member import Member
from neurogate.edge.limits import Reservation
from neurogate.errors import GatewayError, NoWorkerError, TooLargeError
from neurogate.gateway.dialects.prompt import PromptDialect
from neurogate.gateway.edge import Edge
from neurogate.gateway.grpc_answers import StreamedAnswer, WholeAnswer
from neurogate.gateway.intake import BodyBudget, trace_context
from neurogate.gateway.metrics import GatewayMetrics
from neurogate.gateway.response import CLIENT_GONE
from neurogate.gateway.settings import GatewaySettings
from neurogate.httpd import FLUSH_TIMEOUT_S
from neurogate.inference import Usage
from neurogate.prompt_api import PromptAnswer
from neurogate.resilience.breaker import Outcome
from neurogate.rpc.call_channel import CallChannel
from neurogate.rpc.public_backend import Begin, Fleet, IncomingRpc, Write
from neurogate.rpc.status import Metadata, SlowClientError

MODEL_KEY = "x-neurogate-model"
"""Metadata of a proxied call: only workers with this model may get it."""

_PROXIED = "proxied"
"""Stands for every proxied method in metrics: their names are the clients' own."""

_PROMPT_PATH = "/prompt"

_LATER_S = 1.0
"""By how much a call's deadline is behind its client's, so that the client is the one who ends it (ADR 0015)."""


class GrpcEdge:
    """A `PublicBackend` over one gateway's data plane."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        edge: Edge,
        *,
        channel_of: Callable[[Member], CallChannel],
        bodies: BodyBudget,
        metrics: GatewayMetrics,
        settings: GatewaySettings,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._dispatcher = dispatcher
        self._edge = edge
        self._channel_of = channel_of
        self._bodies = bodies
        self._metrics = metrics
        self._settings = settings
        self._loop = loop
        self._dialect = PromptDialect()
        self._proxied = 0

    def fleet(self) -> Fleet:
        """How the workers are, now."""
        members = [member for member in self._dispatcher.pool.snapshot.members if member.linked]
        slots = sum(member.report.slots_total for member in members)
        busy = sum(member.report.slots_busy for member in members)
        return Fleet(
            healthy=any(member.usable and member.breaker.admits for member in members),
            load=min(1.0, busy / max(1, slots)),
            active_requests=self._dispatcher.in_flight + self._proxied,
        )

    async def answer(self, rpc: IncomingRpc, body: bytes, begin: Begin) -> PromptAnswer:
        """Answer a prompt whole. Raises GatewayError."""
        async with self._prompt(rpc, body) as visit:
            receiver = WholeAnswer(self._loop)
            exchange = self._dispatcher.dispatch(self._call(rpc, body, visit, stream=False), receiver)
            try:
                answer = await receiver.wait()
            finally:
                exchange.cancel()
                visit.usage = exchange.usage
            answer.worker_id = exchange.worker_id
            await begin(visit.head(exchange.worker_id, exchange.attempts))
            return answer

    async def stream(self, rpc: IncomingRpc, body: bytes, begin: Begin, write: Write) -> None:
        """Answer a prompt token by token. Raises GatewayError, after some tokens too; then no event was `done`."""
        async with self._prompt(rpc, body) as visit:
            receiver = StreamedAnswer(
                self._loop, buffer_bytes=self._settings.stream_buffer_bytes, flush_timeout_s=FLUSH_TIMEOUT_S
            )
            async with receiver.patience():
                exchange = self._dispatcher.dispatch(self._call(rpc, body, visit, stream=True), receiver)
                try:
                    async with aclosing(receiver.events()) as events:
                        async for event in events:
                            if not visit.events:
                                self._metrics.first_byte(rpc.method, self._loop.time() - visit.began_at)
                                await begin(visit.head(exchange.worker_id, exchange.attempts))
                            visit.events += 1
                            await write(event)
                finally:
                    exchange.cancel()
                    visit.usage = exchange.usage

    @asynccontextmanager
    async def proxy(self, rpc: IncomingRpc) -> AsyncIterator[_Candidates]:
        """Let a proxied call in; it may ask one worker after the other. Raises GatewayError."""
        model = rpc.header(MODEL_KEY).decode("utf-8", "replace")
        async with self._let_in(rpc, _PROXIED, model, prompt_bytes=0, max_tokens=0, generates=False) as visit:
            self._proxied += 1
            try:
                call = Call(rpc.method, b"", stream=True, deadline=visit.deadline, model=visit.model)
                yield _Candidates(self._dispatcher, call, self._channel_of, self._settings, self._loop)
            finally:
                self._proxied -= 1

    @asynccontextmanager
    async def _prompt(self, rpc: IncomingRpc, body: bytes) -> AsyncIterator[_Visit]:
        """Let a prompt in, once the body is known to be good, and hold its memory until it is over."""
        size = len(body)
        if size > self._settings.max_body_bytes:
            raise TooLargeError(
                f"the prompt is larger than {self._settings.max_body_bytes} bytes; send less, "
                "or raise NEUROGATE_MAX_BODY_BYTES"
            )
        head = self._dialect.read(body)
        self._bodies.take(size)
        try:
            async with self._let_in(
                rpc, rpc.method, head.model, prompt_bytes=size, max_tokens=head.max_tokens, generates=True
            ) as visit:
                yield visit
        finally:
            self._bodies.give(size)

    @asynccontextmanager
    async def _let_in(
        self, rpc: IncomingRpc, label: str, model: str, *, prompt_bytes: int, max_tokens: int | None, generates: bool
    ) -> AsyncIterator[_Visit]:
        """Through the edge, in the order that it names; and whatever happens, settled and counted at the end."""
        edge = self._edge
        visit = _Visit(rpc.request_id, self._loop.time(), self._settings.request_timeout_s)
        status = CLIENT_GONE
        reservation: Reservation | None = None
        try:
            caller = edge.identify(rpc.header("authorization"), rpc.header("x-api-key"), rpc.method)
            visit.model = edge.route(caller, model)
            reservation = await edge.reserve(
                caller, prompt_bytes=prompt_bytes, max_tokens=max_tokens, n=1, generates=generates
            )
            if reservation is not None:
                visit.quota = tuple((name.decode(), value.decode()) for name, value in reservation.headers)
            ticket = edge.ticket(caller, visit.model, batch=rpc.header("x-neurogate-priority") == b"batch")
            if ticket is not None:
                await ticket.turn(visit.deadline)
            yield visit
            status = 200
        except GatewayError as error:
            status = error.status
            if isinstance(error, SlowClientError):
                self._metrics.slow_client()
            elif visit.events:
                self._metrics.broken_stream()
            raise
        except Exception:
            status = 500
            raise
        finally:
            if reservation is not None:
                reservation.settle(self._used(visit, status, prompt_bytes))
            edge.over()
            self._metrics.request("GRPC", label, status, self._loop.time() - visit.began_at)
            if visit.usage is not None:
                self._metrics.usage(visit.usage.prompt_tokens, visit.usage.completion_tokens)

    def _used(self, visit: _Visit, status: int, prompt_bytes: int) -> int | None:
        """Tokens to charge; None when the request was not served, through no fault of its client."""
        if visit.usage is not None:
            return visit.usage.total_tokens
        if visit.events:
            return self._edge.charge(prompt_bytes, visit.events)
        return None if status >= 500 else 0

    def _call(self, rpc: IncomingRpc, body: bytes, visit: _Visit, *, stream: bool) -> Call:
        time_s = self._settings.request_timeout_s
        if rpc.time_left_s is not None:
            time_s = min(time_s, rpc.time_left_s + _LATER_S)
        trace = trace_context(rpc.header("traceparent"))
        return Call(_PROMPT_PATH, body, stream, visit.began_at + time_s, rpc.request_id, trace, visit.model)


class _Visit:
    """What is known of one call that was let in."""

    def __init__(self, request_id: str, began_at: float, timeout_s: float) -> None:
        self.request_id = request_id
        self.began_at = began_at
        self.deadline = began_at + timeout_s
        self.model = ""
        self.quota: Metadata = ()
        self.usage: Usage | None = None
        self.events = 0
        """Written to the client."""

    def head(self, worker_id: str, attempts: int) -> Metadata:
        """The initial metadata of an answer."""
        return (
            ("x-request-id", self.request_id),
            ("x-neurogate-worker", worker_id),
            ("x-neurogate-attempts", str(attempts)),
            *self.quota,
        )


class _Candidates:
    """The workers that one proxied call may ask."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        call: Call,
        channel_of: Callable[[Member], CallChannel],
        settings: GatewaySettings,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._dispatcher = dispatcher
        self._call = call
        self._channel_of = channel_of
        self._settings = settings
        self._loop = loop
        self._tried: tuple[str, ...] = ()

    async def next(self) -> _LeaseHold:
        """Hold a worker that was not asked yet. Raises GatewayError when there is none, or enough were asked."""
        lease = self._dispatcher.acquire(self._call, self._tried) if self._may_ask() else None
        if lease is None and self._tried:
            raise NoWorkerError(f"{', '.join(self._tried)} could not be reached, and no other worker took the call")
        if lease is None:
            lease = await self._wait()
        self._tried = (*self._tried, lease.member.id)
        return _LeaseHold(lease, self._channel_of(lease.member))

    def _may_ask(self) -> bool:
        return len(self._tried) <= self._settings.retries

    async def _wait(self) -> Lease:
        """No worker is usable now: one may come (back) within the failfast time, as for every request."""
        pool = self._dispatcher.pool
        until = self._loop.time() + self._settings.failfast_s
        while (left_s := until - self._loop.time()) > 0:
            refusal = self._dispatcher.refuse_to_wait(self._call)
            if refusal is not None:
                raise refusal
            published = asyncio.Event()
            pool.wait(published.set)
            try:
                async with asyncio.timeout(left_s):
                    await published.wait()
            except TimeoutError:
                break
            finally:
                pool.unwait(published.set)
            lease = self._dispatcher.acquire(self._call, ())
            if lease is not None:
                return lease
        raise self._dispatcher.nobody_usable(self._call)


class _LeaseHold:
    """A `Hold` that is a lease of the data plane."""

    def __init__(self, lease: Lease, channel: CallChannel) -> None:
        self._lease: Lease | None = lease
        self.worker_id = lease.member.id
        self.channel = channel

    def answered(self) -> None:
        """The worker began to answer."""
        if self._lease is not None:
            self._lease.answered()

    def release(self, outcome: Outcome) -> None:
        """The call is over."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release(outcome)

"""The gateway behind its public gRPC listener: the same edge and the same dispatcher as over HTTP.

A prompt becomes the `Call` that `POST /prompt` makes, so that whatever the data plane does for one it does for the
other. A proxied call gets what every attempt of an exchange has, a lease, and settles it itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from urllib.parse import unquote

from neurogate.channel import Call
from neurogate.dataplane.dispatch import Dispatcher
from neurogate.dataplane.exchange import Exchange
from neurogate.dataplane.member import Member
from neurogate.edge.address_limits import Visit
from neurogate.edge.caller import ANYBODY, Caller
from neurogate.edge.limits import Reservation
from neurogate.errors import GatewayError, TooLargeError
from neurogate.gateway.dialects.prompt import PromptDialect
from neurogate.gateway.edge import Edge
from neurogate.gateway.grpc_answers import StreamedAnswer, WholeAnswer
from neurogate.gateway.grpc_candidates import Candidates
from neurogate.gateway.intake import BodyBudget, trace_context
from neurogate.gateway.metrics import GatewayMetrics
from neurogate.gateway.model_names import with_model
from neurogate.gateway.records import Recorder
from neurogate.gateway.response import CLIENT_GONE
from neurogate.gateway.settings import GatewaySettings
from neurogate.httpd import FLUSH_TIMEOUT_S
from neurogate.inference import Usage
from neurogate.prompt_api import PromptAnswer
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
        recorder: Recorder | None = None,
    ) -> None:
        self._recorder = recorder
        self._dispatcher = dispatcher
        self._edge = edge
        self._channel_of = channel_of
        self._bodies = bodies
        self._metrics = metrics
        self._settings = settings
        self._loop = loop
        self._dialect = PromptDialect()

    def configure(self, settings: GatewaySettings) -> None:
        """Take other bounds, for the calls that come."""
        self._settings = settings

    def fleet(self) -> Fleet:
        """How the workers are, now."""
        members = [member for member in self._dispatcher.pool.snapshot.members if member.linked]
        slots = sum(member.report.slots_total for member in members)
        busy = sum(member.report.slots_busy for member in members)
        return Fleet(
            healthy=any(member.usable and member.breaker.admits for member in members),
            load=min(1.0, busy / max(1, slots)),
            active_requests=self._dispatcher.in_flight,
        )

    async def answer(self, rpc: IncomingRpc, body: bytes, begin: Begin) -> PromptAnswer:
        """Answer a prompt whole. Raises GatewayError."""
        async with self._prompt(rpc, body) as served:
            receiver = WholeAnswer(self._loop)
            exchange = self._dispatcher.dispatch(self._call(rpc, body, served, stream=False), receiver)
            try:
                answer = await receiver.wait()
            finally:
                exchange.cancel()
                served.asked(exchange)
            answer.worker_id = exchange.worker_id
            await begin(served.head(exchange))
            return answer

    async def stream(self, rpc: IncomingRpc, body: bytes, begin: Begin, write: Write) -> None:
        """Answer a prompt token by token. Raises GatewayError, after some tokens too; then no event was `done`."""
        async with self._prompt(rpc, body) as served:
            receiver = StreamedAnswer(
                self._loop, buffer_bytes=self._settings.stream_buffer_bytes, flush_timeout_s=FLUSH_TIMEOUT_S
            )
            async with receiver.patience():
                exchange = self._dispatcher.dispatch(self._call(rpc, body, served, stream=True), receiver)
                try:
                    async with aclosing(receiver.events()) as events:
                        async for event in events:
                            if not served.events:
                                served.first_s = self._loop.time() - served.began_at
                                self._metrics.first_byte(rpc.method, served.first_s)
                                await begin(served.head(exchange))
                            served.events += 1
                            await write(event)
                finally:
                    exchange.cancel()
                    served.asked(exchange)

    @asynccontextmanager
    async def proxy(self, rpc: IncomingRpc) -> AsyncIterator[Candidates]:
        """Let a proxied call in; it may ask one worker after the other. Raises GatewayError."""
        model = rpc.header(MODEL_KEY).decode("utf-8", "replace")
        async with self._let_in(rpc, _PROXIED, model, prompt_bytes=0, max_tokens=0, generates=False) as served:
            call = Call(rpc.method, b"", stream=True, deadline=served.deadline, model=served.model)
            candidates = Candidates(self._dispatcher, call, self._channel_of, self._settings, self._loop)
            with self._dispatcher.beside():
                try:
                    yield candidates
                finally:
                    served.worker_id, served.attempts = candidates.worker_id, candidates.attempts

    @asynccontextmanager
    async def _prompt(self, rpc: IncomingRpc, body: bytes) -> AsyncIterator[_Served]:
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
            ) as served:
                yield served
        finally:
            self._bodies.give(size)

    @asynccontextmanager
    async def _let_in(
        self, rpc: IncomingRpc, label: str, model: str, *, prompt_bytes: int, max_tokens: int | None, generates: bool
    ) -> AsyncIterator[_Served]:
        """Through the edge, in the order that it names; and whatever happens, settled and counted at the end."""
        edge = self._edge
        served = _Served(rpc.request_id, self._loop.time(), self._settings.request_timeout_s)
        served.asked_model = model
        visit: Visit | None = None
        reservation: Reservation | None = None
        try:
            visit = edge.arrive(host_of(rpc.peer), rpc.header("x-forwarded-for"))
            served.caller = caller = edge.identify(
                rpc.header("authorization"), rpc.header("x-api-key"), rpc.method, visit
            )
            served.model = edge.route(caller, model)
            reservation = await edge.reserve(
                caller, prompt_bytes=prompt_bytes, max_tokens=max_tokens, n=1, generates=generates
            )
            if reservation is not None:
                served.quota = tuple((name.decode(), value.decode()) for name, value in reservation.headers)
            ticket = edge.ticket(caller, (served.model, ""), batch=rpc.header("x-neurogate-priority") == b"batch")
            if ticket is not None:
                await ticket.turn(served.deadline)
            yield served
            served.status = 200
        except GatewayError as error:
            served.status = error.status
            if isinstance(error, SlowClientError):
                self._metrics.slow_client()
            elif served.events:
                self._metrics.broken_stream()
            raise
        except Exception:
            served.status = 500
            raise
        finally:
            if reservation is not None:
                reservation.settle(self._used(served, prompt_bytes))
            if visit is not None:
                visit.end()
            edge.over()
            self._record(rpc, label, served)

    def _record(self, rpc: IncomingRpc, label: str, served: _Served) -> None:
        usage = served.usage
        self._metrics.request("GRPC", label, served.status, self._loop.time() - served.began_at)
        if usage is not None:
            self._metrics.usage(usage.prompt_tokens, usage.completion_tokens)
        if self._recorder is not None:
            self._recorder.write(
                "GRPC",
                rpc.method,
                served.status,
                began_at=served.began_at,
                peer=host_of(rpc.peer),
                forwarded_for=rpc.header("x-forwarded-for"),
                request_id=rpc.request_id,
                key_id=served.caller.key_id,
                model=served.model,
                usage=usage,
                ttft_s=served.first_s,
                worker=served.worker_id,
                attempts=served.attempts,
                broken=served.status >= 400 and served.events > 0,
            )

    def _used(self, served: _Served, prompt_bytes: int) -> int | None:
        """Tokens to charge; None when the request was not served, through no fault of its client."""
        if served.usage is not None:
            return served.usage.total_tokens
        if served.events:
            return self._edge.charge(prompt_bytes, served.events)
        return None if served.status >= 500 else 0

    def _call(self, rpc: IncomingRpc, body: bytes, served: _Served, *, stream: bool) -> Call:
        time_s = self._settings.request_timeout_s
        if rpc.time_left_s is not None:
            time_s = min(time_s, rpc.time_left_s + _LATER_S)
        trace = trace_context(rpc.header("traceparent"))
        if served.model != served.asked_model:
            body = with_model(body, served.model)
        return Call(_PROMPT_PATH, body, stream, served.began_at + time_s, rpc.request_id, trace, served.model)


class _Served:
    """What is known of one call that was let in."""

    def __init__(self, request_id: str, began_at: float, timeout_s: float) -> None:
        self.request_id = request_id
        self.began_at = began_at
        self.deadline = began_at + timeout_s
        self.status = CLIENT_GONE
        self.caller: Caller = ANYBODY
        self.asked_model = ""
        self.model = ""
        """The one that is meant by it."""
        self.quota: Metadata = ()
        self.usage: Usage | None = None
        self.worker_id = ""
        self.attempts = 0
        self.first_s: float | None = None
        """From the call to its first token."""
        self.events = 0
        """Written to the client."""

    def asked(self, exchange: Exchange) -> None:
        """What the exchange has come to."""
        self.usage = exchange.usage
        self.worker_id = exchange.worker_id
        self.attempts = exchange.attempts

    def head(self, exchange: Exchange) -> Metadata:
        """The initial metadata of an answer."""
        return (
            ("x-request-id", self.request_id),
            ("x-neurogate-worker", exchange.worker_id),
            ("x-neurogate-attempts", str(exchange.attempts)),
            *self.quota,
        )


def host_of(peer: str) -> str:
    """The address in a peer as gRPC writes it: `ipv4:10.0.0.7:51312`, `ipv6:%5B::1%5D:51312`."""
    host = unquote(peer).partition(":")[2].rpartition(":")[0]
    return host.strip("[]") or peer

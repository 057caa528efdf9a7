"""The gateway behind its public gRPC listener: the same edge and the same dispatcher as over HTTP.

A prompt becomes the `Call` that `POST /prompt` makes, so that whatever the data plane does for one it does for the
other. A proxied call gets what every attempt of an exchange has, a lease, and settles it itself. Of either, the head
goes through the edge before a message is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

from neurogate.channel import Call
from neurogate.dataplane.dispatch import Dispatcher
from neurogate.dataplane.member import Member
from neurogate.edge.permissions import may_call, may_use
from neurogate.errors import BodyTimeoutError, BusyError, GatewayError, TooLargeError
from neurogate.gateway.dialects.prompt import PromptDialect
from neurogate.gateway.edge import Edge
from neurogate.gateway.explain import Explainer
from neurogate.gateway.grpc_answers import StreamedAnswer, WholeAnswer
from neurogate.gateway.grpc_candidates import Candidates
from neurogate.gateway.grpc_served import ServedRpc
from neurogate.gateway.grpc_traffic import ProxiedTraffic, tokens_in
from neurogate.gateway.in_flight import InFlight
from neurogate.gateway.intake import BodyBudget, switched_off
from neurogate.gateway.metrics import GatewayMetrics
from neurogate.gateway.model_names import with_model
from neurogate.gateway.records import Recorder, generation_outcome
from neurogate.gateway.request_trace import begin as begin_trace
from neurogate.gateway.response import CLIENT_GONE
from neurogate.gateway.settings import GatewaySettings
from neurogate.httpd import FLUSH_TIMEOUT_S
from neurogate.rpc.call_channel import CallChannel
from neurogate.rpc.proxying import refuse_private
from neurogate.rpc.public_backend import Begin, Fleet, IncomingRpc, Proxied, Read, WriteAnswer, WriteEvent
from neurogate.rpc.status import SlowClientError, StatusCode, status_of
from neurogate.telemetry.concern import concern
from neurogate.telemetry.tracing import Tracer

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
        resume: bool = True,
        max_calls: int,
        loop: asyncio.AbstractEventLoop,
        recorder: Recorder | None = None,
        tracer: Tracer | None = None,
        in_flight: InFlight | None = None,
        explainer: Explainer | None = None,
    ) -> None:
        """`max_calls` are let in at once, whether they wait or not."""
        self._dispatcher = dispatcher
        self._edge = edge
        self._channel_of = channel_of
        self._bodies = bodies
        self._metrics = metrics
        self._settings = settings
        self._resume = resume
        self._max_calls = max_calls
        self._loop = loop
        self._recorder = recorder
        self._tracer = tracer
        self._in_flight = InFlight() if in_flight is None else in_flight
        self._explainer = explainer
        self._dialect = PromptDialect()
        self._calls = 0

    def configure(self, settings: GatewaySettings, *, resume: bool) -> None:
        """Take other bounds, for the calls that come."""
        self._settings = settings
        self._resume = resume

    def fleet(self) -> Fleet:
        """How the workers are, now."""
        members = [member for member in self._dispatcher.pool.snapshot.members if member.linked]
        slots = sum(member.report.slots_total for member in members)
        busy = sum(member.report.slots_busy for member in members)
        return Fleet(
            healthy=any(member.state.available for member in members),
            load=min(1.0, busy / max(1, slots)),
            active_requests=self._dispatcher.in_flight,
        )

    async def answer(self, rpc: IncomingRpc, read: Read, begin: Begin, write: WriteAnswer) -> None:
        """Answer a prompt whole. Raises GatewayError."""
        async with self._serving(rpc, rpc.method) as served:
            call = await self._prompt(served, read, stream=False)
            receiver = WholeAnswer(self._loop)
            served.exchange = exchange = self._dispatcher.dispatch(call, receiver, served.journal)
            try:
                answer = await receiver.wait()
            finally:
                exchange.cancel()
                served.asked(exchange)
            answer.worker_id = exchange.worker_id
            await begin(served.head(exchange))
            served.bytes_sent = await write(answer)

    async def stream(self, rpc: IncomingRpc, read: Read, begin: Begin, write: WriteEvent) -> None:
        """Answer a prompt token by token. Raises GatewayError, after some tokens too; then no event was `done`."""
        async with self._serving(rpc, rpc.method) as served:
            call = await self._prompt(served, read, stream=True)
            receiver = StreamedAnswer(
                self._loop, buffer_bytes=self._settings.stream_buffer_bytes, flush_timeout_s=FLUSH_TIMEOUT_S
            )
            async with receiver.patience():
                served.exchange = exchange = self._dispatcher.dispatch(call, receiver, served.journal)
                try:
                    async with aclosing(receiver.events()) as events:
                        async for event in events:
                            if not served.chunks:
                                served.first_byte_at = self._loop.time()
                                self._metrics.first_byte(rpc.method, served.first_byte_at - served.began_at)
                                await begin(served.head(exchange))
                            served.chunks += 1
                            served.bytes_sent += await write(event)
                finally:
                    exchange.cancel()
                    served.asked(exchange)

    @asynccontextmanager
    async def proxy(self, rpc: IncomingRpc) -> AsyncIterator[Proxied]:
        """Let a proxied call in; it may ask one worker after the other. Raises GatewayError."""
        async with self._serving(rpc, _PROXIED) as served:
            refuse_private(rpc.method)
            model = rpc.header(MODEL_KEY).decode("utf-8", "replace")
            if served.caller.models is not None and not model:
                may_use(served.caller, "")  # a default model would be another than its message's
            await self._admit(served, model, prompt_bytes=0, max_tokens=None)
            call = Call(rpc.method, b"", stream=True, deadline=served.deadline, model=served.model)
            candidates = Candidates(self._dispatcher, call, self._channel_of, self._settings, self._loop)
            served.proxied = True
            with self._dispatcher.beside():
                try:
                    yield Proxied(candidates, ProxiedTraffic(served, self._edge, self._bodies, self._loop))
                finally:
                    served.worker_id, served.attempts = candidates.worker_id, candidates.attempts

    @asynccontextmanager
    async def _serving(self, rpc: IncomingRpc, label: str) -> AsyncIterator[ServedRpc]:
        """Whose call it is, before anything of it is read; and whatever happens, settled and counted at the end."""
        edge = self._edge
        began_at, timeout_s = self._loop.time(), self._settings.request_timeout_s
        served = ServedRpc(rpc, bodies=self._bodies, began_at=began_at, timeout_s=timeout_s)
        if self._tracer is not None:
            begin_trace(self._tracer, served)
        concern(rpc.request_id, served.traceparent)
        self._calls += 1
        self._in_flight.come(served, rpc.method)
        told = StatusCode.CANCELLED
        try:
            served.visit = edge.arrive(served.peer, served.forwarded_for)
            authorization, api_key = rpc.only("authorization"), rpc.only("x-api-key")
            served.caller = edge.identify(authorization, api_key, served.visit)
            may_call(served.caller, rpc.method)
            self._bound_calls()
            yield served
            served.status, told = 200, StatusCode.OK
        except GatewayError as error:
            served.status, served.failure, told = error.status, error.code, status_of(error)
            self._metrics.turned_away(error)
            if isinstance(error, SlowClientError):
                self._metrics.slow_client()
            elif served.broken:
                self._metrics.broken_stream()
            raise
        except Exception:
            served.status, told = 500, StatusCode.INTERNAL
            raise
        finally:
            self._calls -= 1
            served.let_go(tokens=_used(edge, served))
            edge.over(served.ticket, served.status, broken=served.broken)
            self._in_flight.gone(served)
            if served.trace is not None:
                served.trace.over_rpc(served, rpc.method, status=told.name)
            self._record(label, served)

    def _bound_calls(self) -> None:
        """After the key is known, so that no stranger is among those that take the others' places for long."""
        if self._calls > self._max_calls:
            raise BusyError(
                f"{self._max_calls} gRPC calls are under way already (NEUROGATE_GRPC_MAX_CALLS); come later"
            )

    async def _prompt(self, served: ServedRpc, read: Read, *, stream: bool) -> Call:
        """Read a prompt and see it through the edge, up to its turn."""
        limit, body_timeout_s = self._settings.max_body_bytes, self._settings.body_timeout_s

        def take(size: int) -> None:
            if size > limit:
                raise TooLargeError(
                    f"the prompt is larger than {limit} bytes; send less, or raise NEUROGATE_MAX_BODY_BYTES"
                )
            served.hold(size)

        try:
            async with asyncio.timeout(body_timeout_s):
                body = await read(take)
        except TimeoutError as error:
            raise BodyTimeoutError(f"the prompt did not arrive within {body_timeout_s:g} s") from error
        take(len(body))
        served.body = body
        head = self._dialect.read(body)
        await self._admit(served, head.model, prompt_bytes=len(body), max_tokens=head.max_tokens)
        if served.model != head.model:
            served.body = body = with_model(body, served.model)
        rpc, time_s = served.rpc, self._settings.request_timeout_s
        if rpc.time_left_s is not None:
            time_s = min(time_s, rpc.time_left_s + _LATER_S)
        wanted = rpc.header("x-neurogate-explain")
        if wanted and self._explainer is not None:
            served.explanation = self._explainer.begin(wanted, rpc.request_id, served.caller.key_id)
        resumable = self._resume and stream and not switched_off(rpc.header("x-neurogate-resume"), "x-neurogate-resume")
        deadline = served.began_at + time_s
        return Call(
            _PROMPT_PATH,
            body,
            stream,
            deadline,
            rpc.request_id,
            served.traceparent,
            served.model,
            resumable=resumable,
            tracestate=served.tracestate,
        )

    async def _admit(self, served: ServedRpc, model: str, *, prompt_bytes: int, max_tokens: int | None) -> None:
        """Model, quota and turn, in the order that the edge names. The turn is used before anything else is awaited."""
        edge, caller = self._edge, served.caller
        served.model = edge.route(caller, model)
        served.reservation = await edge.reserve(
            caller, prompt_bytes=prompt_bytes, max_tokens=max_tokens, n=1, generates=True
        )
        batch = served.rpc.header("x-neurogate-priority") == b"batch"
        time_left_s, deadline = served.rpc.time_left_s, served.deadline
        if time_left_s is not None:
            deadline = min(deadline, served.began_at + time_left_s)
        served.ticket = ticket = edge.ticket(
            caller,
            (served.model, ""),
            batch=batch,
            deadline=deadline,
            told=time_left_s is not None,
            max_tokens=max_tokens,
        )
        if ticket is not None:
            await ticket.turn()

    def _record(self, label: str, served: ServedRpc) -> None:
        rpc, usage = served.rpc, served.usage
        first_at, duration_s = served.first_byte_at, self._loop.time() - served.began_at
        self._metrics.request("GRPC", label, served.status, duration_s, served.trace_id)
        self._metrics.generated(
            generation_outcome(served.status, served.failure, broken=served.broken),
            duration_s,
            model=served.model,
            worker_id=served.worker_id,
            key_id=served.caller.key_id,
            usage=usage,
            ttft_s=first_at - served.began_at if first_at is not None else None,
            chunks=served.chunks,
            trace_id=served.trace_id,
        )
        if self._recorder is None:
            return
        self._recorder.write(
            "GRPC",
            rpc.method,
            served.status,
            began_at=served.began_at,
            peer=served.peer,
            forwarded_for=served.forwarded_for,
            request_id=rpc.request_id,
            traceparent=served.traceparent,
            key_id=served.caller.key_id,
            model=served.model,
            usage=usage,
            ttft_s=served.first_byte_at - served.began_at if served.first_byte_at is not None else None,
            worker=served.worker_id,
            attempts=served.attempts,
            size=served.bytes_sent,
            broken=served.broken,
            prompt=served.body,
        )


def _used(edge: Edge, served: ServedRpc) -> int | None:
    """Tokens to charge; None when the request was not served, through no fault of its client."""
    if served.carried:
        return tokens_in(served.carried)
    return edge.used(
        served.usage,
        prompt_bytes=len(served.body),
        chunks=served.chunks,
        left=bool(served.attempts and served.body) and served.status == CLIENT_GONE,
        failed=served.status >= 500,
    )

"""The hot endpoints: pure ASGI, from the request's head to the last token, without a framework in between."""

from __future__ import annotations

import asyncio

import structlog
from starlette.types import Message, Receive, Scope, Send

from neurogate.channel import Call
from neurogate.dataplane.dispatch import Dispatcher
from neurogate.edge.permissions import may_call
from neurogate.errors import BadRequestError, GatewayError
from neurogate.gateway.arrival import ClientGoneError
from neurogate.gateway.dialects import Dialect, Head
from neurogate.gateway.dialects.dialect import EVENT_STREAM
from neurogate.gateway.edge import Edge
from neurogate.gateway.explain import Explainer, both
from neurogate.gateway.in_flight import InFlight
from neurogate.gateway.intake import (
    BodyBudget,
    Headers,
    RequestIds,
    announced_size,
    at_hand,
    read_headers,
    rest_of,
    switched_off,
    time_allowed_s,
    trace_state,
)
from neurogate.gateway.metrics import GatewayMetrics
from neurogate.gateway.model_names import names_one_model, with_model
from neurogate.gateway.records import Record, generation_outcome
from neurogate.gateway.refusal_head import refusal_head
from neurogate.gateway.request_trace import begin, http_facts
from neurogate.gateway.response import CLIENT_GONE, ClientResponse, ResponseLimits
from neurogate.gateway.served import Served
from neurogate.gateway.settings import GatewaySettings
from neurogate.httpd import FLUSH_TIMEOUT_S
from neurogate.operations import Operation
from neurogate.telemetry.concern import about
from neurogate.telemetry.tracing import Tracer

_log = structlog.get_logger("neurogate.gateway")


class GenerationEndpoint:
    """One path that generates text."""

    def __init__(
        self,
        operation: Operation,
        dialect: Dialect,
        *,
        dispatcher: Dispatcher,
        edge: Edge,
        record: Record | None = None,
        request_ids: RequestIds,
        bodies: BodyBudget,
        metrics: GatewayMetrics,
        settings: GatewaySettings,
        tracer: Tracer | None = None,
        resume: bool = True,
        in_flight: InFlight | None = None,
        explainer: Explainer | None = None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._path = operation.path
        self._api = "" if operation.universal else operation.path
        self._generates = operation.generates
        self._resumable = resume and operation.resumes
        self._dialect = dialect
        self._takes_comments = dialect.stream_type == EVENT_STREAM
        self._dispatcher = dispatcher
        self._edge = edge
        self._record = record
        self._request_ids = request_ids
        self._bodies = bodies
        self._metrics = metrics
        self._in_flight = InFlight() if in_flight is None else in_flight
        self._explainer = explainer
        self._tracer = tracer
        self._loop = loop
        self._max_body_bytes = settings.max_body_bytes
        self._body_timeout_s = settings.body_timeout_s
        self._request_timeout_s = settings.request_timeout_s
        self._limits = ResponseLimits(stream_buffer_bytes=settings.stream_buffer_bytes, flush_timeout_s=FLUSH_TIMEOUT_S)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = read_headers(scope["headers"])
        request_id = self._request_ids.choose(headers.request_id)
        served = Served(scope, headers, request_id, bodies=self._bodies, began_at=self._loop.time())
        if self._tracer is not None:
            begin(self._tracer, served)
        self._in_flight.come(served, self._path)
        refusal: tuple[Message, Message] | None = None
        try:
            try:
                await self._serve(served, scope, receive, send)
            except GatewayError as error:
                served.status = error.status
                self._metrics.turned_away(error)
                refusal = self._refusal(error, served)
            except ClientGoneError:
                pass
            except Exception:
                with about(request_id, served.traceparent):
                    _log.exception("request failed in the gateway", request_id=request_id)
                if served.status != CLIENT_GONE:
                    raise  # its answer has begun: the server cuts the connection
                served.status = 500
                bug = GatewayError("internal error; the gateway's log has the details")
                refusal = self._refusal(bug, served)
            if refusal is not None:  # not in the handlers: what waits there cannot be compiled
                head, body = refusal
                await send(head)
                await send(body)
        finally:
            served.let_go(tokens=self._used(served) if served.reservation is not None else None)
            broken = served.broken
            self._edge.over(served.ticket, served.status, broken=broken)
            self._in_flight.gone(served)
            if served.trace is not None:
                served.trace.over_http(served, self._path, http_facts(scope))
            if self._record is not None:
                self._record(self._path, served)
            self._count(served, broken=broken)

    async def _serve(self, served: Served, scope: Scope, receive: Receive, send: Send) -> None:
        edge, headers = self._edge, served.headers
        served.visit = edge.arrive(served.peer, headers.forwarded_for)
        served.caller = caller = edge.identify(headers.authorization, headers.api_key, served.visit)
        may_call(caller, self._path)
        announced_size(headers, self._max_body_bytes)
        arriving, limit = receive(), self._max_body_bytes
        body = at_hand(arriving, limit, served.take)
        if body is None:
            body = await rest_of(arriving, receive, limit, self._body_timeout_s, served.take)
        head = self._dialect.read(body)
        served.model = model = edge.route(caller, head.model)
        served.body = body = body if model == head.model else with_model(body, model)
        if caller.models is not None and not names_one_model(body):
            raise BadRequestError("model: is given more than once; name one model", param="model")
        if edge.bounds(caller):
            tokens = edge.estimate(len(body), head.max_tokens, head.n if self._generates else 0)
            limiter = edge.limiter
            served.reservation = (
                limiter.reserve_now(caller, tokens) if limiter.immediate else await limiter.reserve(caller, tokens)
            )
        allowed_s = time_allowed_s(headers, self._request_timeout_s) if headers.timeout else self._request_timeout_s
        deadline = served.began_at + allowed_s
        resumable = self._resumable and head.stream and not switched_off(headers.resume, "X-NeuroGate-Resume")
        state = trace_state(scope["headers"]) if headers.traceparent else ""
        call = Call(
            self._path,
            body,
            head.stream,
            deadline,
            served.request_id,
            served.traceparent,
            model,
            self._api,
            resumable,
            tracestate=state,
        )
        served.response = response = ClientResponse(
            scope,
            send,
            dialect=self._dialect,
            request_id=served.request_id,
            limits=self._limits,
            metrics=self._metrics,
            loop=self._loop,
            began_at=served.began_at,
            extra=served.lines_out,
            traceparent=served.traceparent,
        )
        if headers.explain and self._explainer is not None:
            response.explanation = self._explainer.begin(headers.explain, served.request_id, caller.key_id)
        try:
            served.ticket = ticket = edge.ticket(
                caller,
                (model, self._api),
                batch=headers.priority == b"batch",
                deadline=deadline,
                told=bool(headers.timeout),
                max_tokens=head.max_tokens,
            )
            if ticket is None or await response.wait(ticket, comment_every_s=self._comments(head, headers)):
                why = response.explanation
                await response.run(self._dispatcher, call, served.trace if why is None else both(served.trace, why))
        finally:
            served.status = response.status

    def _count(self, served: Served, *, broken: bool) -> None:
        status, duration_s = served.status, self._loop.time() - served.began_at
        metrics, response, trace_id = self._metrics, served.response, served.trace_id
        outcome = generation_outcome(status, served.failure, broken=broken)
        model, key_id = served.model, served.caller.key_id
        metrics.request("POST", self._path, status, duration_s, trace_id)
        if response is None:
            metrics.generated(outcome, duration_s, model=model, key_id=key_id, trace_id=trace_id)
            return
        first_at = response.first_byte_at
        metrics.generated(
            outcome,
            duration_s,
            model=model,
            worker_id=response.worker_id,
            key_id=key_id,
            usage=response.usage,
            ttft_s=first_at - served.began_at if first_at is not None else None,
            chunks=response.chunks,
            trace_id=trace_id,
        )

    def _comments(self, head: Head, headers: Headers) -> float:
        wanted = (
            head.stream
            and self._takes_comments
            and not switched_off(headers.queue_comments, "X-NeuroGate-Queue-Comments")
        )
        return self._edge.keepalive_s if wanted else 0

    def _used(self, served: Served) -> int | None:
        """Tokens to charge; None when the request was not served, through no fault of its client."""
        response = served.response
        if response is None:
            return None if served.status >= 500 else 0
        return self._edge.used(
            response.usage,
            prompt_bytes=len(served.body),
            chunks=response.chunks,
            left=response.attempts > 0 and served.status == CLIENT_GONE,
            failed=served.status >= 500,
        )

    def _refusal(self, error: GatewayError, served: Served) -> tuple[Message, Message]:
        """The answer to a request that never became an exchange."""
        request_id = served.request_id
        body = self._dialect.error(error, request_id)
        headers = refusal_head(error, body, request_id, served.headers_out)
        if self._dialect.id_header:
            headers.append((self._dialect.id_header, request_id.encode()))
        if error.status in {408, 413, 503}:
            headers.append((b"connection", b"close"))  # the rest of the body is not read
        served.refusal_bytes, served.problem = len(body), error.code
        start = {"type": "http.response.start", "status": error.status, "headers": headers}
        return start, {"type": "http.response.body", "body": body}

"""The hot endpoints: pure ASGI, from the request's head to the last token, without a framework in between."""

from __future__ import annotations

import asyncio

import structlog
from starlette.types import Receive, Scope, Send

from neurogate.channel import Call
from neurogate.dataplane.dispatch import Dispatcher
from neurogate.edge.caller import ANYBODY
from neurogate.edge.limits import Reservation
from neurogate.errors import GatewayError, RateLimitedError
from neurogate.gateway.dialects import JSON, Dialect, Head
from neurogate.gateway.dialects.dialect import EVENT_STREAM
from neurogate.gateway.edge import Edge
from neurogate.gateway.intake import (
    BodyBudget,
    ClientGoneError,
    Headers,
    RequestIds,
    announced_size,
    read_body,
    read_headers,
    trace_context,
)
from neurogate.gateway.metrics import GatewayMetrics
from neurogate.gateway.response import CLIENT_GONE, ClientResponse, ResponseLimits, retry_after
from neurogate.gateway.settings import GatewaySettings
from neurogate.httpd import FLUSH_TIMEOUT_S
from neurogate.operations import Operation

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
        request_ids: RequestIds,
        bodies: BodyBudget,
        metrics: GatewayMetrics,
        settings: GatewaySettings,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._path = operation.path
        self._generates = operation.generates
        self._dialect = dialect
        self._takes_comments = dialect.stream_type == EVENT_STREAM
        self._dispatcher = dispatcher
        self._edge = edge
        self._request_ids = request_ids
        self._bodies = bodies
        self._metrics = metrics
        self._loop = loop
        self._max_body_bytes = settings.max_body_bytes
        self._body_timeout_s = settings.body_timeout_s
        self._request_timeout_s = settings.request_timeout_s
        self._limits = ResponseLimits(stream_buffer_bytes=settings.stream_buffer_bytes, flush_timeout_s=FLUSH_TIMEOUT_S)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        began_at = self._loop.time()
        headers = read_headers(scope["headers"])
        request_id = self._request_ids.choose(headers.request_id)
        status = CLIENT_GONE
        held = 0
        caller = ANYBODY
        response: ClientResponse | None = None
        reservation: Reservation | None = None

        def take(size: int) -> None:
            nonlocal held
            self._bodies.take(size)
            held += size

        try:
            caller = self._edge.identify(headers.authorization, headers.api_key, self._path)
            announced_size(headers, self._max_body_bytes)
            body = await read_body(receive, limit=self._max_body_bytes, timeout_s=self._body_timeout_s, take=take)
            head = self._dialect.read(body)
            model = self._edge.route(caller, head.model)
            reservation = await self._edge.reserve(
                caller, prompt_bytes=len(body), max_tokens=head.max_tokens, n=head.n, generates=self._generates
            )
            deadline = began_at + self._request_timeout_s
            trace = trace_context(headers.traceparent)
            call = Call(self._path, body, head.stream, deadline, request_id, trace, model)
            response = ClientResponse(
                scope,
                send,
                dialect=self._dialect,
                request_id=request_id,
                limits=self._limits,
                metrics=self._metrics,
                loop=self._loop,
                began_at=began_at,
                extra=reservation.headers if reservation is not None else (),
            )
            try:
                ticket = self._edge.ticket(caller, model, batch=headers.priority == b"batch")
                if ticket is None or await response.wait(
                    ticket, deadline, comment_every_s=self._comments(head, headers)
                ):
                    await response.run(self._dispatcher, call)
            finally:
                status = response.status
        except GatewayError as error:
            status = error.status
            await self._refuse(error, request_id, send)
        except ClientGoneError:
            pass
        except Exception:
            _log.exception("request failed in the gateway", request_id=request_id)
            if status != CLIENT_GONE:
                raise  # its answer has begun: the server cuts the connection
            status = 500
            await self._refuse(GatewayError("internal error; the gateway's log has the details"), request_id, send)
        finally:
            self._bodies.give(held)
            if reservation is not None:
                reservation.settle(self._used(response, status, len(body)))
            self._edge.over()
            self._metrics.request("POST", self._path, status, self._loop.time() - began_at)

    def _comments(self, head: Head, headers: Headers) -> float:
        wanted = head.stream and self._takes_comments and headers.queue_comments != b"off"
        return self._edge.keepalive_s if wanted else 0

    def _used(self, response: ClientResponse | None, status: int, prompt_bytes: int) -> int | None:
        """Tokens to charge; None when the request was not served, through no fault of its client."""
        if response is not None and response.usage is not None:
            return response.usage.total_tokens
        if response is not None and response.chunks:
            return self._edge.charge(prompt_bytes, response.chunks)
        return None if status >= 500 else 0

    async def _refuse(self, error: GatewayError, request_id: str, send: Send) -> None:
        """Answer a request that never became an exchange."""
        body = self._dialect.error(error, request_id)
        headers = [
            (b"content-type", JSON),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", request_id.encode()),
        ]
        if error.retry_after_s is not None:
            headers.append(retry_after(error.retry_after_s))
        if isinstance(error, RateLimitedError):
            headers.extend(error.headers)
        if error.status in {408, 413, 503}:
            headers.append((b"connection", b"close"))  # the rest of the body is not read
        await send({"type": "http.response.start", "status": error.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

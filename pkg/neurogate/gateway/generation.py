"""The hot endpoints: pure ASGI, from the request's head to the last token, without a framework in between."""

from __future__ import annotations

import asyncio

import structlog
from starlette.types import Receive, Scope, Send

from neurogate.channel import Call
from neurogate.dataplane.dispatch import Dispatcher
from neurogate.edge.keys import KeyRing
from neurogate.errors import GatewayError
from neurogate.gateway.dialects import JSON, Dialect
from neurogate.gateway.intake import (
    BodyBudget,
    ClientGoneError,
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

_log = structlog.get_logger("neurogate.gateway")


class GenerationEndpoint:
    """One path that generates text."""

    def __init__(
        self,
        dialect: Dialect,
        *,
        dispatcher: Dispatcher,
        keys: KeyRing,
        request_ids: RequestIds,
        bodies: BodyBudget,
        metrics: GatewayMetrics,
        settings: GatewaySettings,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._dialect = dialect
        self._dispatcher = dispatcher
        self._keys = keys
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

        def take(size: int) -> None:
            nonlocal held
            self._bodies.take(size)
            held += size

        try:
            self._keys.authenticate(headers.authorization, headers.api_key)
            announced_size(headers, self._max_body_bytes)
            body = await read_body(receive, limit=self._max_body_bytes, timeout_s=self._body_timeout_s, take=take)
            head = self._dialect.read(body)
            deadline = began_at + self._request_timeout_s
            trace = trace_context(headers.traceparent)
            call = Call(scope["path"], body, head.stream, deadline, request_id, trace, head.model)
            response = ClientResponse(
                scope,
                send,
                dialect=self._dialect,
                request_id=request_id,
                limits=self._limits,
                metrics=self._metrics,
                loop=self._loop,
                began_at=began_at,
            )
            try:
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
            self._metrics.request("POST", scope["path"], status, self._loop.time() - began_at)

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
        if error.status in {408, 413, 503}:
            headers.append((b"connection", b"close"))  # the rest of the body is not read
        await send({"type": "http.response.start", "status": error.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

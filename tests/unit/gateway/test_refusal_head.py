"""The head of a refusal: the same beside every body."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from config_support import gateway_config
from dataplane_support import rig
from gateway_support import CHAT, DIALECTS, edge_for
from neurogate.errors import BadRequestError, BusyError, GatewayError, RateLimitedError
from neurogate.gateway.lifecycle import Lifecycle
from neurogate.gateway.metrics import GatewayMetrics
from neurogate.gateway.refusal_head import refusal_head, retry_after
from neurogate.gateway.response import ClientResponse, ResponseLimits
from neurogate.gateway.routes import build_app
from neurogate.testing.connections import FakeClient
from neurogate.virtual_time import run

LIMITED = RateLimitedError("too many", retry_after_s=6.5, headers=((b"ratelimit-remaining", b"0"),))


@pytest.mark.parametrize(("seconds", "said"), [(0.0, b"1"), (1.0, b"1"), (1.01, b"2"), (7.4, b"8")])
def test_nobody_is_told_to_come_too_early(seconds: float, said: bytes) -> None:
    assert retry_after(seconds) == (b"retry-after", said)


def test_a_refusal_says_what_it_is_whose_it_is_and_when_to_come_again() -> None:
    assert dict(refusal_head(LIMITED, b"{}", "req-1", [(b"connection", b"close")])) == {
        b"content-type": b"application/json",
        b"content-length": b"2",
        b"x-request-id": b"req-1",
        b"retry-after": b"7",
        b"ratelimit-remaining": b"0",
        b"connection": b"close",
    }
    assert [name for name, _ in refusal_head(BadRequestError("no"), b"", "")] == [b"content-type", b"content-length"]


@pytest.mark.parametrize("error", [LIMITED, BusyError("full", retry_after_s=7)])
def test_any_route_says_when_to_come_again(error: GatewayError) -> None:
    async def main() -> None:
        async def refusing(_: Request) -> Response:
            raise error

        async with rig() as data_plane:
            loop = asyncio.get_running_loop()
            _, edge = edge_for(data_plane, gateway_config(), GatewayMetrics())
            more = [Route("/api/tags", refusing)]
            app = build_app(data_plane.pool, edge.identify, Lifecycle(), hot={}, now=loop.time, more=more)
            client = await FakeClient("/api/tags", method="GET").ask(app)
            assert (client.status, client.headers["retry-after"]) == (error.status, "7")
            assert client.headers["content-type"] == "application/json"
            assert client.headers["content-length"] == str(len(client.body))
            assert ("ratelimit-remaining" in client.headers) == (error is LIMITED)

    run(main())


def test_an_answer_that_turns_out_to_be_a_refusal_says_so_too() -> None:
    async def main() -> None:
        client = FakeClient(CHAT)
        response = ClientResponse(
            client.scope,
            client.send,
            dialect=DIALECTS[CHAT],
            request_id="req-1",
            limits=ResponseLimits(stream_buffer_bytes=1000, flush_timeout_s=1),
            metrics=GatewayMetrics(),
            loop=asyncio.get_running_loop(),
            began_at=0,
        )
        response.on_error(LIMITED)
        assert (client.status, client.headers["x-request-id"]) == (429, "req-1")
        assert (client.headers["ratelimit-remaining"], client.headers["retry-after"]) == ("0", "7")

    run(main())

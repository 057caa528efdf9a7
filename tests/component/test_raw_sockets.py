"""Two hundred malformed requests against a gateway with a worker: what comes back, and what does not get through."""

from __future__ import annotations

import asyncio

from fleet_in_process import KEY, Fleet, fleet
from raw_client import exchange, statuses
from raw_requests import RawRequest, marker, table
from real_loop import run_real

SHORT = {"header_timeout_s": 3.0, "body_timeout_s": 3.0, "idle_timeout_s": 3.0}
"""Short, for what waits for more; long enough for two hundred at once to be read on a busy machine."""


async def outcome(fleet: Fleet, request: RawRequest) -> str:
    """What is wrong with what came back; empty when nothing is."""
    sent = request.sent.replace(b"{key}", KEY.encode())
    port = int(fleet.url.rpartition(":")[2])
    received = await exchange(port, sent, eof=request.eof)
    try:
        said = statuses(received)
    except ValueError as error:
        return f"{request.name}: {error}"
    calls = sum(marker(request.name) in bytes(call.body) for call in fleet.calls)
    if calls != request.calls:
        return f"{request.name}: {calls} calls of an engine, after {said}"
    if len(said) != len(request.statuses) or not all(
        status in allowed for status, allowed in zip(said, request.statuses, strict=True)
    ):
        return f"{request.name}: answered {said}, not {[sorted(allowed) for allowed in request.statuses]}"
    return ""


def test_the_table_holds_two_hundred_different_requests() -> None:
    requests = table()
    assert len({(request.sent, request.eof) for request in requests}) == len(requests)
    assert len({request.name for request in requests}) == len(requests)
    assert len(requests) >= 200


def test_malformed_requests_are_refused_and_reach_no_engine_and_leave_nothing_behind() -> None:
    """Every connection is closed by the gateway; the fleet checks that nothing is in flight afterwards."""

    async def main() -> None:
        async with fleet(**SHORT) as made:
            wrong = [problem for problem in await asyncio.gather(*[outcome(made, one) for one in table()]) if problem]
            assert not wrong, "\n".join(wrong)
            body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
            answer = await made.client.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200
            assert made.gateway.bodies.held == 0
            assert made.http.connections == 1  # the client's own

    run_real(main())

"""What gRPC calls show of themselves: in flight, of which phase, and why they went where they went."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fleet_in_process import Fleet, fleet
from grpc_support import BEARER, listening, public
from neurogate.api.llm.v1 import llm_pb2, llm_pb2_grpc
from neurogate.engines.settings import SimSettings
from neurogate.gateway.in_flight import Row
from real_loop import eventually, run_real

ASK = llm_pb2.PromptRequest(prompt="Why is the sky blue?", max_tokens=12)
ASKS = ("x-neurogate-explain", "on")


@asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[tuple[Fleet, Any]]:
    async with fleet(2, **settings) as made, listening(made.gateway) as (_, channel):
        yield made, llm_pb2_grpc.LLMServiceStub(channel)  # type: ignore[no-untyped-call]
        await eventually(lambda: len(made.gateway.in_flight) == 0)


def rows(made: Any) -> list[Row]:
    return list(made.gateway.in_flight.rows(asyncio.get_running_loop().time()))


def test_a_call_that_asks_hears_why_it_went_to_its_worker() -> None:
    async def main() -> None:
        async with served() as (made, llm):
            whole = llm.GenerateText(ASK, metadata=(BEARER, ASKS, ("x-request-id", "whole")))
            await whole
            stream = llm.StreamGenerateText(ASK, metadata=(BEARER, ASKS, ("x-request-id", "stream")))
            assert [token async for token in stream][-1].done

            for call, request_id in ((whole, "whole"), (stream, "stream")):
                head = dict(await call.initial_metadata())
                assert f"picked={head['x-neurogate-worker']}" in head["x-neurogate-explain"]
                assert "worker-1" in head["x-neurogate-explain"]
                (record,) = made.gateway.explainer.find(request_id)
                assert record.attempts[0].worker == head["x-neurogate-worker"]

    run_real(main())


def test_calls_are_in_flight_with_their_phase() -> None:
    async def main() -> None:
        async with served(sim=SimSettings(prefill_tps=0, decode_tps=20, slots=4)) as (made, llm):
            stream = llm.StreamGenerateText(ASK, metadata=(BEARER, ("x-request-id", "mine")))
            await stream.read()

            (row,) = rows(made)
            assert (row.id, row.path, row.phase) == ("mine", "/llm.v1.LLMService/StreamGenerateText", "decode")
            stream.cancel()
            await eventually(lambda: not rows(made))

    run_real(main())


def test_a_proxied_call_is_in_flight_as_one() -> None:
    async def main() -> None:
        async with public() as made:
            call = made.both("Both")()
            await call.write(b"x")
            assert await call.read() == b"x"

            (row,) = rows(made)
            assert (row.phase, row.path, row.stream) == ("proxied", "/test.Echo/Both", False)
            await call.done_writing()
            call.cancel()
            await eventually(lambda: not rows(made))

    run_real(main())

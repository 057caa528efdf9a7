"""A worker dies in the middle of a stream, over real HTTP, gRPC and links: its client has one whole answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import httpx
import pytest

from fleet_in_process import Fleet, fleet
from grpc_support import BEARER, listening
from neurogate.api.llm.v1 import llm_pb2, llm_pb2_grpc
from neurogate.engines.settings import SimSettings
from real_loop import run_real
from told_support import events_of, read

SPEED = SimSettings(prefill_tps=0, decode_tps=200, slots=64)
SLOW = SimSettings(prefill_tps=0, decode_tps=25, slots=64)
"""So that there is time for three deaths in one answer."""
QUESTION = "Why is the sky 🦊 blue?"
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
USAGE = {"stream_options": {"include_usage": True}}

REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": MESSAGES, "stream": True, "max_tokens": 24, **USAGE}),
    "chat to its end": ("/v1/chat/completions", {"messages": MESSAGES, "stream": True}),
    "completion": ("/v1/completions", {"prompt": QUESTION, "stream": True, "stop": ["table"], **USAGE}),
    "prompt": ("/prompt", {"query": QUESTION, "stream": True, "max_tokens": 24}),
    "Ollama's generate": ("/api/generate", {"model": "tiny", "prompt": QUESTION, "options": {"num_predict": 24}}),
    "Ollama's raw generate": ("/api/generate", {"model": "tiny", "prompt": QUESTION, "raw": True}),
    "Ollama's chat": ("/api/chat", {"model": "tiny", "messages": MESSAGES, "options": {"num_predict": 24}}),
}


async def kill_worker(made: Fleet, index: int) -> None:
    """Its process dies: no word of farewell on its link."""
    made.workers[index].cancel()


async def kill_engine(made: Fleet, index: int) -> None:
    """Its engine dies: the worker says that the stream broke."""
    await made.engines[index].stop()


DEATHS: dict[str, Callable[[Fleet, int], Any]] = {"worker": kill_worker, "engine": kill_engine}


@asynccontextmanager
async def answering(
    made: Fleet, name: str, **headers: str
) -> AsyncIterator[tuple[httpx.Response, AsyncIterator[bytes]]]:
    path, body = REQUESTS[name]
    async with made.client.stream("POST", path, json=body, headers={"x-request-id": "r-1", **headers}) as response:
        assert response.status_code == 200
        yield response, response.aiter_raw()


def server_of(response: httpx.Response) -> int:
    """Which worker began the answer."""
    return int(response.headers["x-neurogate-worker"].removeprefix("worker-"))


def resumes(made: Fleet, outcome: str) -> float:
    registry = made.gateway.metrics.registry
    counted = [
        registry.get_sample_value("neurogate_gateway_resumes_total", {"worker": f"worker-{index}", "outcome": outcome})
        for index in range(len(made.engines))
    ]
    return sum(count or 0 for count in counted)


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("name", REQUESTS)
def test_a_stream_whose_worker_dies_is_the_undisturbed_stream(name: str, death: str) -> None:
    async def main() -> None:
        async with fleet(2, sim=SPEED) as made:
            async with answering(made, name) as (_, pieces):
                whole = b"".join([piece async for piece in pieces])
            async with answering(made, name) as (response, pieces):
                got = await anext(pieces)
                while len(events_of(got)) < 6:
                    got += await anext(pieces)
                await DEATHS[death](made, server_of(response))
                got += b"".join([piece async for piece in pieces])
            assert read(got) == read(whole)
            assert read(got).end_marks == 1
            assert len([said for engine in made.engines for said in engine.resumed]) == 1
            assert (resumes(made, "resumed"), resumes(made, "refused")) == (1, 0)
            assert (b"\n: continued" in got) == (response.headers["content-type"] == "text/event-stream")

    run_real(main())


@pytest.mark.parametrize("death", DEATHS)
def test_a_grpc_stream_whose_worker_dies_is_the_undisturbed_stream(death: str) -> None:
    async def main() -> None:
        async with fleet(2, sim=SPEED) as made, listening(made.gateway) as (_, channel):
            stub = llm_pb2_grpc.LLMServiceStub(channel)  # type: ignore[no-untyped-call]
            asked = llm_pb2.PromptRequest(prompt=QUESTION, max_tokens=24, system_prompt="Be brief.")

            def ask() -> grpc.aio.UnaryStreamCall[Any, Any]:
                return stub.StreamGenerateText(asked, metadata=(BEARER, ("x-request-id", "r-1")))

            whole = [event async for event in ask()]
            call = ask()
            head = dict(await call.initial_metadata())
            events = aiter(call)
            got = [await anext(events) for _ in range(6)]
            await DEATHS[death](made, int(head["x-neurogate-worker"].removeprefix("worker-")))
            got += [event async for event in events]
            for last in (whole[-1], got[-1]):
                assert last.done
                last.ClearField("inference_time_ms")
            assert got == whole
            assert resumes(made, "resumed") == 1

    run_real(main())


@pytest.mark.parametrize("resume_buffer_bytes", [1024, 256 * 1024])
def test_one_stream_survives_worker_after_worker(resume_buffer_bytes: int) -> None:
    """Also one of which but little is kept as it was sent."""

    async def main() -> None:
        async with fleet(4, sim=SLOW, resume_buffer_bytes=resume_buffer_bytes) as made:
            async with answering(made, "chat") as (_, pieces):
                whole = b"".join([piece async for piece in pieces])
            async with answering(made, "chat") as (response, pieces):
                got = await anext(pieces)
                dead: set[int] = set()
                serving = server_of(response)
                for events in (5, 10, 15):
                    while len(events_of(got)) < events:
                        got += await anext(pieces)
                    await kill_worker(made, serving)
                    dead.add(serving)
                    while not any(map(resuming := _resuming(made, dead), range(4))):
                        got += await anext(pieces)
                    serving = next(filter(resuming, range(4)))
                got += b"".join([piece async for piece in pieces])
            assert read(got) == read(whole)
            assert resumes(made, "resumed") == 3

    run_real(main())


@pytest.mark.parametrize("fault", ["cut_after", "error_after", "hang_after"])
def test_a_stream_goes_on_past_every_engine_that_breaks_it(fault: str) -> None:
    """Each engine says nine tokens and then fails, whichever way."""

    async def main() -> None:
        async with fleet(1, sim=SPEED) as made, answering(made, "chat") as (_, pieces):
            whole = b"".join([piece async for piece in pieces])
        failing = SimSettings(prefill_tps=0, decode_tps=200, slots=64, faults=f"{fault}=9")
        async with fleet(2, sim=failing, stall_s=1.0) as made, answering(made, "chat") as (_, pieces):
            got = b"".join([piece async for piece in pieces])
            assert read(got) == read(whole)
            assert resumes(made, "resumed") >= 2

    run_real(main())


def _resuming(made: Fleet, dead: set[int]) -> Callable[[int], bool]:
    return lambda index: index not in dead and bool(made.engines[index].resumed)


@pytest.mark.parametrize(
    ("headers", "fields", "why"),
    [
        ({"x-neurogate-resume": "off"}, {}, b"broke off"),
        ({}, {"logprobs": True}, b"logprobs"),
        ({}, {"tools": [{"type": "function", "function": {"name": "other"}}]}, b"tools"),
    ],
)
def test_what_may_not_be_continued_ends_with_an_error_and_without_an_end_mark(
    headers: dict[str, str], fields: dict[str, Any], why: bytes
) -> None:
    async def main() -> None:
        async with fleet(2, sim=SPEED) as made:
            body = {**REQUESTS["chat"][1], **fields}
            async with made.client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
                pieces = response.aiter_raw()
                got = await anext(pieces)
                await kill_worker(made, server_of(response))
                got += b"".join([piece async for piece in pieces])
            assert why in got.split(b"\n\n")[-2]
            assert b'"error"' in got.split(b"\n\n")[-2]
            assert b"[DONE]" not in got
            assert not any(engine.resumed for engine in made.engines)

    run_real(main())


def test_many_streams_at_once_are_each_continued_as_their_own() -> None:
    async def main() -> None:
        async with fleet(3, sim=SPEED) as made:

            async def ask(number: int, *, disturbed: bool) -> bytes:
                path, body = REQUESTS["chat"]
                asked = {**body, "messages": [{"role": "user", "content": f"{QUESTION} {number}"}]}
                async with made.client.stream("POST", path, json=asked) as response:
                    got = b""
                    async for piece in response.aiter_raw():
                        got += piece
                        if disturbed and len(events_of(got)) > 8:
                            ready.set()
                return got

            ready = asyncio.Event()
            numbers = range(24)
            whole = await asyncio.gather(*(ask(number, disturbed=False) for number in numbers))
            asking = [asyncio.create_task(ask(number, disturbed=True)) for number in numbers]
            await ready.wait()
            await kill_worker(made, 0)
            got = await asyncio.gather(*asking)
            assert [read(one) for one in got] == [read(one) for one in whole]
            assert 1 <= resumes(made, "resumed") <= 8

    run_real(main())

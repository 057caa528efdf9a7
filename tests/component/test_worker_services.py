"""A worker's plain gRPC services on loopback: generation, status, the public LLMService, health and reflection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from link_support import LIMITS, READY, ScriptedBackend, serving
from neurogate.api.llm.v1 import llm_pb2, llm_pb2_grpc
from neurogate.api.v1 import worker_pb2 as pb
from neurogate.api.v1 import worker_pb2_grpc
from neurogate.errors import (
    BadRequestError,
    BusyError,
    DeadlineError,
    EngineFailedError,
    GatewayError,
    ModelNotFoundError,
    NoWorkerError,
    StreamBrokenError,
    UnsupportedError,
)
from neurogate.inference import Prompt, Token
from neurogate.rpc.backend import EngineKeyError
from neurogate.rpc.codec import report_from_wire
from neurogate.rpc.worker_service import GenerationLimits, WorkerServer
from real_loop import run_real

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

STATUSES = [
    (BadRequestError("prompt: must not be empty"), grpc.StatusCode.INVALID_ARGUMENT),
    (ModelNotFoundError("no such model"), grpc.StatusCode.NOT_FOUND),
    (BusyError("the worker holds 4 requests already"), grpc.StatusCode.RESOURCE_EXHAUSTED),
    (NoWorkerError("the engine is starting"), grpc.StatusCode.UNAVAILABLE),
    (EngineKeyError("the engine does not take the key"), grpc.StatusCode.FAILED_PRECONDITION),
    (UnsupportedError("no such API"), grpc.StatusCode.UNIMPLEMENTED),
    (EngineFailedError("the engine answered 500"), grpc.StatusCode.ABORTED),
    (StreamBrokenError("cut"), grpc.StatusCode.ABORTED),
    (DeadlineError("the request's time ran out"), grpc.StatusCode.DEADLINE_EXCEEDED),
    (GatewayError("bug"), grpc.StatusCode.INTERNAL),
]


class Stubs:
    """What a client of the worker's services holds."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.worker: Any = worker_pb2_grpc.WorkerStub(channel)  # type: ignore[no-untyped-call]
        self.llm: Any = llm_pb2_grpc.LLMServiceStub(channel)  # type: ignore[no-untyped-call]
        self.health: Any = health_pb2_grpc.HealthStub(channel)


@asynccontextmanager
async def client_of(
    backend: ScriptedBackend, limits: GenerationLimits = LIMITS
) -> AsyncIterator[tuple[Stubs, WorkerServer, str]]:
    async with serving(backend, limits=limits) as (server, address), grpc.aio.insecure_channel(address) as channel:
        yield Stubs(channel), server, address


def test_a_generation_comes_token_by_token_and_ends_with_its_usage() -> None:
    async def main() -> None:
        backend = ScriptedBackend()
        async with client_of(backend) as (stubs, _, _):
            request = pb.GenerateRequest(
                prompt="Why?", model="tiny", system_prompt="Be brief.", max_tokens=9, temperature=0.0
            )
            events = [event async for event in stubs.worker.Generate(request)]
        assert [(event.token.text, event.token.tokens_generated) for event in events[:-1]] == [("Hel", 1), ("lo", 2)]
        last = events[-1].finished
        assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (3, 2)
        assert (last.finish_reason, last.model, last.inference_time_ms) == ("stop", "tiny", 12)
        assert backend.prompts == [Prompt("Why?", "tiny", "Be brief.", 9, 0.0)]

    run_real(main())


def test_what_a_request_leaves_out_is_left_to_the_engine() -> None:
    """Temperature 0 and no temperature are two things, in both services."""

    async def main() -> None:
        backend = ScriptedBackend()
        async with client_of(backend) as (stubs, _, _):
            _ = [event async for event in stubs.worker.Generate(pb.GenerateRequest(prompt="a"))]
            await stubs.llm.GenerateText(llm_pb2.PromptRequest(prompt="b"))
            await stubs.llm.GenerateText(llm_pb2.PromptRequest(prompt="c", temperature=0.0, max_tokens=1))
        assert backend.prompts == [Prompt("a"), Prompt("b"), Prompt("c", max_tokens=1, temperature=0.0)]

    run_real(main())


def test_the_public_service_answers_whole() -> None:
    async def main() -> None:
        async with client_of(ScriptedBackend()) as (stubs, _, _):
            answer = await stubs.llm.GenerateText(llm_pb2.PromptRequest(request_id="r-1", prompt="Why?"))
        assert answer == llm_pb2.PromptResponse(
            request_id="r-1",
            response="Hello",
            prompt_tokens=3,
            completion_tokens=2,
            total_tokens=5,
            inference_time_ms=12,
            model="tiny",
            finish_reason="stop",
        )

    run_real(main())


def test_the_public_service_streams() -> None:
    """Only the last message of a complete answer is done, and only it carries the usage."""

    async def main() -> None:
        async with client_of(ScriptedBackend()) as (stubs, _, _):
            request = llm_pb2.PromptRequest(request_id="r-1", prompt="Why?")
            messages = [message async for message in stubs.llm.StreamGenerateText(request)]
        assert messages[:-1] == [
            llm_pb2.TokenResponse(request_id="r-1", token="Hel", tokens_generated=1),
            llm_pb2.TokenResponse(request_id="r-1", token="lo", tokens_generated=2),
        ]
        assert messages[-1] == llm_pb2.TokenResponse(
            request_id="r-1",
            done=True,
            tokens_generated=2,
            prompt_tokens=3,
            completion_tokens=2,
            inference_time_ms=12,
            model="tiny",
            finish_reason="stop",
        )

    run_real(main())


@pytest.mark.parametrize(("error", "code"), STATUSES, ids=[type(error).__name__ for error, _ in STATUSES])
def test_errors_have_their_grpc_status(error: GatewayError, code: grpc.StatusCode) -> None:
    async def main() -> None:
        backend = ScriptedBackend()
        backend.events = [error]
        async with client_of(backend) as (stubs, _, _):
            asked = llm_pb2.PromptRequest(prompt="Why?")
            for failing in (
                stubs.worker.Generate(pb.GenerateRequest(prompt="Why?")).read(),
                stubs.llm.GenerateText(asked),
                stubs.llm.StreamGenerateText(asked).read(),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await failing
                assert caught.value.code() is code
                assert caught.value.details() == error.message

    run_real(main())


def test_a_stream_that_breaks_off_is_never_done() -> None:
    async def main() -> None:
        backend = ScriptedBackend()
        backend.events = [Token("Hel"), StreamBrokenError("cut")]
        async with client_of(backend) as (stubs, _, _):
            stream = stubs.llm.StreamGenerateText(llm_pb2.PromptRequest(prompt="Why?"))
            first = await stream.read()
            assert (first.token, first.done) == ("Hel", False)
            with pytest.raises(grpc.aio.AioRpcError):
                await stream.read()

    run_real(main())


def test_a_client_that_leaves_stops_its_generation() -> None:
    async def main() -> None:
        backend = ScriptedBackend()
        backend.events = [Token("Hel"), None]
        async with client_of(backend) as (stubs, _, _):
            for begin, request in (
                (stubs.worker.Generate, pb.GenerateRequest(prompt="Why?", request_id="a")),
                (stubs.llm.StreamGenerateText, llm_pb2.PromptRequest(prompt="Why?", request_id="b")),
            ):
                call = begin(request)
                await call.read()
                call.cancel()
                await backend.active.until(lambda active: active == 0)
            whole = stubs.llm.GenerateText(llm_pb2.PromptRequest(prompt="Why?", request_id="c"))
            await backend.active.until(lambda active: active == 1)
            whole.cancel()
            await backend.active.until(lambda active: active == 0)
        assert backend.cancelled.value == ("a", "b", "c")

    run_real(main())


def test_a_clients_deadline_stops_its_generation() -> None:
    async def main() -> None:
        backend = ScriptedBackend()
        backend.events = [Token("Hel"), None]
        async with client_of(backend) as (stubs, _, _):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stubs.llm.GenerateText(llm_pb2.PromptRequest(prompt="Why?"), timeout=0.05)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await backend.active.until(lambda active: active == 0)

    run_real(main())


def test_a_request_without_a_deadline_has_the_workers() -> None:
    async def main() -> None:
        backend = ScriptedBackend()
        backend.events = [Token("Hel"), None]
        async with client_of(backend, GenerationLimits(timeout_s=0.05)) as (stubs, _, _):
            asked = llm_pb2.PromptRequest(prompt="Why?")

            async def all_of(stream: Any) -> None:
                async for _ in stream:
                    pass

            for failing in (
                all_of(stubs.worker.Generate(pb.GenerateRequest(prompt="Why?"))),
                stubs.llm.GenerateText(asked),
                all_of(stubs.llm.StreamGenerateText(asked)),
            ):
                with pytest.raises(grpc.aio.AioRpcError, match="NEUROGATE_REQUEST_TIMEOUT_S") as caught:
                    await failing
                assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert backend.active.value == 0

    run_real(main())


def test_a_client_that_does_not_read_holds_the_engine_no_longer() -> None:
    async def main() -> None:
        backend = ScriptedBackend()
        backend.events = [Token("x" * 1_000_000)] * 100
        async with client_of(backend, GenerationLimits(timeout_s=0.3)) as (stubs, _, _):
            stream = stubs.llm.StreamGenerateText(llm_pb2.PromptRequest(prompt="Why?"))
            await backend.active.until(lambda active: active == 1)
            await backend.active.until(lambda active: active == 0)
            assert backend.cancelled.value == ("",)
            stream.cancel()

    run_real(main())


def test_a_time_out_of_somebody_elses_is_no_deadline() -> None:
    async def main() -> None:
        backend = ScriptedBackend()
        backend.events = [TimeoutError("a bug")]
        async with client_of(backend) as (stubs, _, _):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stubs.llm.GenerateText(llm_pb2.PromptRequest(prompt="Why?"))
            assert caught.value.code() is grpc.StatusCode.UNKNOWN

    run_real(main())


def test_a_whole_answer_is_bounded_in_the_service() -> None:
    async def main() -> None:
        backend = ScriptedBackend()
        backend.events = [Token("12345"), Token("67890!"), None]
        async with client_of(backend, GenerationLimits(max_answer_bytes=10)) as (stubs, _, _):
            with pytest.raises(grpc.aio.AioRpcError, match="NEUROGATE_MAX_ANSWER_BYTES, 10") as caught:
                await stubs.llm.GenerateText(llm_pb2.PromptRequest(prompt="Why?"))
            assert caught.value.code() is grpc.StatusCode.ABORTED
            await backend.active.until(lambda active: active == 0)

    run_real(main())


def test_the_status_is_the_workers_report() -> None:
    async def main() -> None:
        async with client_of(ScriptedBackend()) as (stubs, _, _):
            status = await stubs.worker.GetStatus(pb.StatusRequest())
        assert replace(report_from_wire(status), seq=0) == READY

    run_real(main())


@pytest.mark.parametrize(
    ("report", "healthy", "connected", "load"),
    [
        (READY, True, True, 0.25),
        (replace(READY, draining=True), False, True, 0.25),
        (replace(READY, ready=False, slots_total=0, slots_busy=0), False, False, 0.0),
        (replace(READY, slots_busy=9), True, True, 1.0),
    ],
)
def test_the_public_health_check(report: Any, healthy: bool, connected: bool, load: float) -> None:
    async def main() -> None:
        async with client_of(ScriptedBackend(report=report)) as (stubs, _, _):
            said = await stubs.llm.HealthCheck(llm_pb2.HealthCheckRequest(timestamp=1))
        assert (said.healthy, said.ollama_connected, said.load) == (healthy, connected, load)
        assert (said.active_requests, said.version) == (1, "1.2.3")

    run_real(main())


def test_health_answers_for_the_server_and_for_each_service() -> None:
    async def main() -> None:
        async with client_of(ScriptedBackend()) as (stubs, server, _):
            for serves, status in ((True, SERVING), (False, NOT_SERVING), (True, SERVING)):
                await server.set_serving(serving=serves)
                for service in ("", "neurogate.v1.Worker", "llm.v1.LLMService"):
                    said = await stubs.health.Check(health_pb2.HealthCheckRequest(service=service))
                    assert said.status == status
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stubs.health.Check(health_pb2.HealthCheckRequest(service="nobody"))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND

    run_real(main())


def test_whoever_watches_hears_every_change() -> None:
    async def main() -> None:
        async with client_of(ScriptedBackend()) as (stubs, server, _):
            await server.set_serving(serving=False)
            watch = stubs.health.Watch(health_pb2.HealthCheckRequest(service=""))
            assert (await watch.read()).status == NOT_SERVING
            await server.set_serving(serving=True)
            assert (await watch.read()).status == SERVING
            await server.set_serving(serving=False)
            assert (await watch.read()).status == NOT_SERVING
            watch.cancel()

    run_real(main())


def test_reflection_tells_every_service() -> None:
    """So that grpcurl needs no files."""

    def reflected(address: str) -> tuple[set[str], list[str]]:
        with grpc.insecure_channel(address) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            services = set(database.get_services())
            described = database.FindFileContainingSymbol("neurogate.v1.Worker")
            return services, [method.name for method in described.service[0].method]

    async def main() -> None:
        async with client_of(ScriptedBackend()) as (_, _, address):
            services, methods = await asyncio.to_thread(reflected, address)
        assert services == {
            "neurogate.v1.Worker",
            "llm.v1.LLMService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        assert methods == ["Link", "Generate", "GetStatus"]

    run_real(main())

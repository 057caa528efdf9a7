"""`llm.v1.LLMService` of a gateway, on real gRPC, with simulated engines behind real links."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import msgspec
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from fleet_in_process import KEY, Fleet, fleet
from grpc_support import BEARER, LIMITS, EchoWorker, listening, public
from neurogate.api.llm.v1 import llm_pb2, llm_pb2_grpc
from neurogate.channel import End, EndCode
from neurogate.engines.settings import SimSettings
from neurogate.errors import (
    BadRequestError,
    BusyError,
    DeadlineError,
    EngineFailedError,
    ForbiddenError,
    GatewayError,
    ModelNotFoundError,
    NoWorkerError,
    QueueFullError,
    QueueTimeoutError,
    QueueTooLongError,
    RateLimitedError,
    TooLargeError,
    UnauthorizedError,
    UnsupportedError,
)
from neurogate.gateway.grpc_served import host_of
from neurogate.inference import Finished, Prompt, Token
from neurogate.rpc import keyless_calls
from neurogate.rpc.backend import IncomingCall, Outlet
from neurogate.rpc.status import status_of, trailers_of
from real_loop import eventually, run_real
from trace_support import SAMPLED, TRACE_ID, Spans, tracer_into

Code = grpc.StatusCode
ASK = llm_pb2.PromptRequest(prompt="Why is the sky blue?", max_tokens=12, temperature=0.0)
PATH = "/llm.v1.LLMService"


@dataclass
class Served:
    made: Fleet
    llm: Any
    channel: grpc.aio.Channel
    address: str

    def metric(self, name: str, **labels: str) -> float:
        return self.made.gateway.metrics.registry.get_sample_value(f"neurogate_gateway_{name}", labels) or 0.0

    async def said(self, request: llm_pb2.PromptRequest) -> tuple[list[str], Finished]:
        """What the engine says to the same prompt."""
        prompt = Prompt(request.prompt, "", "", request.max_tokens, request.temperature)
        events = [event async for event in self.made.engines[0].generate(prompt)]
        last = events[-1]
        assert isinstance(last, Finished)
        return [event.text for event in events if isinstance(event, Token)], last


@asynccontextmanager
async def served(
    workers: int = 1, *, options: tuple[tuple[str, Any], ...] = (), **settings: Any
) -> AsyncIterator[Served]:
    async with fleet(workers, **settings) as made, listening(made.gateway, options=options) as (address, channel):
        yield Served(made, llm_pb2_grpc.LLMServiceStub(channel), channel, address)  # type: ignore[no-untyped-call]
        await eventually(lambda: made.gateway.grpc.fleet().active_requests == 0)
        assert made.gateway.bodies.held == 0


def refused(code: grpc.StatusCode, match: str | None = None) -> Any:
    return pytest.raises(grpc.aio.AioRpcError, match=match, check=lambda error: error.code() is code)


SLOW = SimSettings(prefill_tps=0, decode_tps=20, slots=64)


def test_a_whole_answer_is_what_the_engine_said() -> None:
    async def main() -> None:
        async with served() as it:
            call = it.llm.GenerateText(ASK, metadata=(BEARER, ("x-request-id", "mine-1")))
            answer = await call
            said, finished = await it.said(ASK)
            assert answer.response == "".join(said)
            assert (answer.completion_tokens, answer.prompt_tokens) == (12, finished.usage.prompt_tokens)
            assert answer.total_tokens == answer.prompt_tokens + answer.completion_tokens
            assert (answer.model, answer.finish_reason) == ("tiny", "length")
            assert answer.request_id == "mine-1"
            head = dict(await call.initial_metadata())
            assert head == {"x-request-id": "mine-1", "x-neurogate-worker": "worker-0", "x-neurogate-attempts": "1"}
            assert it.metric("requests_total", method="GRPC", path=f"{PATH}/GenerateText", status="200") == 1
            assert it.metric("tokens_total", kind="completion") == 12

    run_real(main())


def test_a_stream_comes_token_by_token_and_only_its_last_message_is_done() -> None:
    async def main() -> None:
        async with served(sim=SLOW) as it:
            request = llm_pb2.PromptRequest(request_id="r-1", prompt="Why?", max_tokens=6, temperature=0.0)
            loop = asyncio.get_running_loop()
            call = it.llm.StreamGenerateText(request, metadata=(BEARER,))
            messages, times = [], []
            async for message in call:
                messages.append(message)
                times.append(loop.time())
            said, finished = await it.said(request)
            assert [message.token for message in messages[:-1]] == said
            assert [message.tokens_generated for message in messages[:-1]] == [1, 2, 3, 4, 5, 6]
            assert [message.done for message in messages] == [False] * 6 + [True]
            assert times[5] - times[0] > 0.1, "while they are generated, and not all at the end"
            last = messages[-1]
            assert (last.completion_tokens, last.prompt_tokens) == (6, finished.usage.prompt_tokens)
            assert (last.model, last.finish_reason) == ("tiny", "length")
            assert {message.request_id for message in messages} == {"r-1"}
            assert dict(await call.initial_metadata())["x-request-id"] == "r-1"

    run_real(main())


def test_a_traced_call_is_a_span_and_tells_its_client() -> None:
    async def main() -> None:
        spans = Spans()
        async with served() as found:
            found.made.gateway.grpc._tracer = tracer_into(spans)
            calling = found.llm.GenerateText(ASK, metadata=(BEARER, ("traceparent", SAMPLED), ("tracestate", "a=1")))
            answer = await calling
            head = dict(await calling.initial_metadata())
            with refused(Code.INVALID_ARGUMENT):
                await found.llm.GenerateText(llm_pb2.PromptRequest(), metadata=(BEARER, ("traceparent", SAMPLED)))

        good, bad = spans.of("llm.v1.LLMService/GenerateText")
        assert head["traceresponse"] == f"00-{TRACE_ID}-{good.span_id}-01"
        assert spans.one("attempt").parent_id == good.span_id
        assert (good.attributes["rpc.response.status_code"], good.error) == ("OK", None)
        assert good.attributes["gen_ai.usage.output_tokens"] == answer.completion_tokens
        assert (bad.attributes["rpc.response.status_code"], bad.error) == ("INVALID_ARGUMENT", None)

    run_real(main())


class Overheard:
    """A channel, and what was sent by it."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self.calls: list[Any] = []

    def submit(self, call: Any, sink: Any) -> int:
        self.calls.append(call)
        ticket: int = self._channel.submit(call, sink)
        return ticket

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)


def test_the_trace_and_the_prompts_fields_reach_the_worker() -> None:
    async def main() -> None:
        async with served() as it:
            trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
            (member,) = it.made.gateway.pool.snapshot.members
            member.channel = overheard = Overheard(member.channel)
            request = llm_pb2.PromptRequest(prompt="Why?", model="tiny", system_prompt="Be brief.", temperature=0.5)
            await it.llm.GenerateText(request, metadata=(BEARER, ("traceparent", trace)), timeout=20)
            (call,) = overheard.calls
            assert (call.path, call.traceparent, call.model) == ("/prompt", trace, "tiny")
            assert call.body == (
                b'{"query":"Why?","stream":false,"model":"tiny","temperature":0.5,"system_prompt":"Be brief."}'
            )
            left = call.deadline - asyncio.get_running_loop().time()
            assert 15 < left < 21.5

    run_real(main())


@pytest.mark.parametrize(
    ("fields", "metadata", "code", "match"),
    [
        ({"prompt": "x"}, (), Code.UNAUTHENTICATED, "API key is needed"),
        ({}, (), Code.UNAUTHENTICATED, "API key is needed"),
        ({"prompt": "x" * 2000}, (), Code.UNAUTHENTICATED, "API key is needed"),
        ({"prompt": "x"}, (("authorization", "Bearer wrong"),), Code.UNAUTHENTICATED, "not known"),
        ({"prompt": "x"}, (BEARER, ("authorization", "Bearer b")), Code.INVALID_ARGUMENT, "given once"),
        ({}, (BEARER,), Code.INVALID_ARGUMENT, "prompt: is required"),
        ({"prompt": "x", "max_tokens": 0}, (BEARER,), Code.INVALID_ARGUMENT, "max_tokens: "),
        ({"prompt": "x", "temperature": 3.0}, (BEARER,), Code.INVALID_ARGUMENT, "temperature: "),
        ({"prompt": "x", "temperature": float("nan")}, (BEARER,), Code.INVALID_ARGUMENT, "temperature: "),
        ({"prompt": "x", "model": "nobody"}, (BEARER,), Code.NOT_FOUND, "tiny"),
        ({"prompt": "x" * 2000}, (BEARER,), Code.RESOURCE_EXHAUSTED, "NEUROGATE_MAX_BODY_BYTES"),
    ],
)
def test_refusals(fields: dict[str, Any], metadata: Sequence[Any], code: grpc.StatusCode, match: str) -> None:
    async def main() -> None:
        async with served(max_body_bytes=1024) as it:
            request = llm_pb2.PromptRequest(**fields)
            sent = (*metadata, ("x-request-id", "r-9"))
            for failing in (
                it.llm.GenerateText(request, metadata=sent),
                it.llm.StreamGenerateText(request, metadata=sent).read(),
            ):
                with refused(code, match) as caught:
                    await failing
                told = dict(caught.value.trailing_metadata())
                assert told["x-request-id"] == "r-9"
                assert told["x-neurogate-code"]
            assert it.made.calls == []
            counted = it.made.gateway.metrics.registry.collect()
            requests = [sample for family in counted for sample in family.samples if "requests_total" in sample.name]
            assert sorted(sample.labels["path"] for sample in requests if sample.value == 1) == [
                f"{PATH}/GenerateText",
                f"{PATH}/StreamGenerateText",
            ]

    run_real(main())


@pytest.mark.parametrize("method", ["GenerateText", "StreamGenerateText"])
def test_who_calls_is_asked_before_a_message_is_read(method: str) -> None:
    async def main() -> None:
        async with served(body_timeout_s=0.1) as it:
            begin = it.channel.stream_stream(f"{PATH}/{method}")
            with refused(Code.UNAUTHENTICATED):
                await begin().read()
            with refused(Code.DEADLINE_EXCEEDED, r"did not arrive within 0\.1 s"):
                await begin(metadata=(BEARER,)).read()
            empty = begin(metadata=(BEARER,))
            await empty.done_writing()
            with refused(Code.INVALID_ARGUMENT, "no message"):
                await empty.read()
            gibberish = begin(metadata=(BEARER,))
            await gibberish.write(b"\xff\xff")
            with refused(Code.INVALID_ARGUMENT, r"no llm\.v1\.PromptRequest"):
                await gibberish.read()

    run_real(main())


def test_failed_keys_count_for_their_address_whatever_else_is_wrong() -> None:
    async def main() -> None:
        async with served(address_failures_per_minute=2) as it:
            for _ in range(2):
                with refused(Code.UNAUTHENTICATED):
                    await it.llm.GenerateText(llm_pb2.PromptRequest())
            with refused(Code.RESOURCE_EXHAUSTED, "failed authentications"):
                await it.llm.GenerateText(llm_pb2.PromptRequest())

    run_real(main())


def test_the_memory_of_prompts_is_bounded() -> None:
    async def main() -> None:
        async with served(max_bodies_bytes=1024) as it:
            with refused(Code.RESOURCE_EXHAUSTED, "NEUROGATE_MAX_BODIES_BYTES"):
                await it.llm.GenerateText(llm_pb2.PromptRequest(prompt="x" * 1100), metadata=(BEARER,))
            assert it.made.gateway.bodies.held == 0
            assert (await it.llm.GenerateText(ASK, metadata=(BEARER,))).completion_tokens == 12

    run_real(main())


def test_an_id_in_the_message_is_the_calls() -> None:
    async def main() -> None:
        async with served() as it:
            request = llm_pb2.PromptRequest(prompt="Why?", request_id="r-2", model="nobody")
            with refused(Code.NOT_FOUND) as caught:
                await it.llm.GenerateText(request, metadata=(BEARER, ("x-request-id", "r-1")))
            assert dict(caught.value.trailing_metadata())["x-request-id"] == "r-2"

    run_real(main())


# Connections, and calls that need no key


def test_connections_are_bounded() -> None:
    async def main() -> None:
        async with fleet() as made, listening(made.gateway, replace(LIMITS, connections=1)) as (address, channel):
            llm: Any = llm_pb2_grpc.LLMServiceStub(channel)  # type: ignore[no-untyped-call]
            assert (await llm.HealthCheck(llm_pb2.HealthCheckRequest())).healthy
            apart = (("grpc.use_local_subchannel_pool", 1),)
            async with grpc.aio.insecure_channel(address, options=apart) as another:
                second: Any = llm_pb2_grpc.LLMServiceStub(another)  # type: ignore[no-untyped-call]
                with refused(Code.UNAVAILABLE):
                    await second.HealthCheck(llm_pb2.HealthCheckRequest(), timeout=5)
            assert (await llm.HealthCheck(llm_pb2.HealthCheckRequest())).healthy

    run_real(main())


def test_calls_of_one_connection_are_bounded() -> None:
    async def main() -> None:
        async with public() as made, listening(made.gateway, replace(LIMITS, streams=1)) as (_, channel):
            first = channel.stream_stream("/test.Echo/Both")()
            await first.write(b"x")
            assert await first.read() == b"x"
            second = asyncio.ensure_future(channel.unary_unary("/test.Echo/Unary")(b"y"))
            await asyncio.sleep(0.05)
            assert made.worker.echo.calls.value == 1, "its client holds the second back"
            await first.done_writing()
            assert await second == b"y"

    run_real(main())


def test_calls_without_a_key_are_bounded_apart_from_those_with_one() -> None:
    async def main() -> None:
        async with fleet() as made, listening(made.gateway, replace(LIMITS, keyless_calls=2)) as (_, channel):
            health = health_pb2_grpc.HealthStub(channel)
            watches = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(2)]
            for watch in watches:
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            with refused(Code.RESOURCE_EXHAUSTED, "NEUROGATE_GRPC_MAX_KEYLESS_CALLS"):
                await health.Check(health_pb2.HealthCheckRequest())
            llm: Any = llm_pb2_grpc.LLMServiceStub(channel)  # type: ignore[no-untyped-call]
            assert (await llm.GenerateText(ASK, metadata=(BEARER,))).completion_tokens == 12
            watches[0].cancel()
            bare = channel.stream_stream("/grpc.health.v1.Health/Check")

            async def code_of_an_empty_call() -> grpc.StatusCode:
                call = bare()
                await call.done_writing()
                return await call.code()

            while (code := await code_of_an_empty_call()) is Code.RESOURCE_EXHAUSTED:  # until the watch is gone
                await asyncio.sleep(0)
            assert code is Code.INVALID_ARGUMENT
            assert (await health.Check(health_pb2.HealthCheckRequest())).status == 1
            watches[1].cancel()

    run_real(main())


def test_a_call_without_a_key_has_little_time_for_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyless_calls, "_MESSAGE_TIMEOUT_S", 0.05)

    async def main() -> None:
        async with fleet() as made, listening(made.gateway) as (_, channel):
            with refused(Code.DEADLINE_EXCEEDED, "no message"):
                await channel.stream_stream("/grpc.health.v1.Health/Check")().read()

    run_real(main())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadRequestError("a"), Code.INVALID_ARGUMENT),
        (UnauthorizedError("a"), Code.UNAUTHENTICATED),
        (ForbiddenError("a"), Code.PERMISSION_DENIED),
        (ModelNotFoundError("a"), Code.NOT_FOUND),
        (TooLargeError("a"), Code.RESOURCE_EXHAUSTED),
        (RateLimitedError("a"), Code.RESOURCE_EXHAUSTED),
        (QueueFullError("a"), Code.RESOURCE_EXHAUSTED),
        (QueueTimeoutError("a"), Code.RESOURCE_EXHAUSTED),
        (QueueTooLongError("a"), Code.RESOURCE_EXHAUSTED),
        (BusyError("a"), Code.RESOURCE_EXHAUSTED),
        (NoWorkerError("a"), Code.UNAVAILABLE),
        (DeadlineError("a"), Code.DEADLINE_EXCEEDED),
        (UnsupportedError("a"), Code.UNIMPLEMENTED),
        (EngineFailedError("a"), Code.ABORTED),
        (GatewayError("a"), Code.INTERNAL),
    ],
    ids=lambda value: value.name if isinstance(value, grpc.StatusCode) else type(value).__name__,
)
def test_every_error_has_its_status(error: GatewayError, code: grpc.StatusCode) -> None:
    assert status_of(error) is code


def test_trailers_say_when_to_try_again_and_what_is_left() -> None:
    limited = RateLimitedError("a", retry_after_s=2.4, headers=((b"ratelimit-limit", b"60"),))

    assert trailers_of(limited, "r-1") == (
        ("x-neurogate-code", "rate_limit_exceeded"),
        ("x-request-id", "r-1"),
        ("retry-after", "3"),
        ("grpc-retry-pushback-ms", "2400"),
        ("ratelimit-limit", "60"),
    )


def test_limits_count_grpc_as_well() -> None:
    async def main() -> None:
        async with served(requests_per_minute=2) as it:
            for _ in range(2):
                await it.llm.GenerateText(ASK, metadata=(BEARER,))
            with refused(Code.RESOURCE_EXHAUSTED) as caught:
                await it.llm.GenerateText(ASK, metadata=(BEARER,))
            assert dict(caught.value.trailing_metadata())["x-neurogate-code"] == "rate_limit_exceeded"
            with refused(Code.RESOURCE_EXHAUSTED):
                await it.channel.unary_unary("/test.Echo/Unary")(b"x", metadata=(BEARER,))

    run_real(main())


@pytest.mark.parametrize("method", ["GenerateText", "StreamGenerateText"])
def test_a_client_that_cancels_frees_the_engine(method: str) -> None:
    async def main() -> None:
        async with served(sim=SLOW) as it:
            call = getattr(it.llm, method)(llm_pb2.PromptRequest(prompt="Why?", max_tokens=5000), metadata=(BEARER,))
            await eventually(lambda: it.made.gateway.dispatcher.in_flight == 1)
            call.cancel()
            await it.made.settled()
            assert it.made.gateway.pool.snapshot.members[0].breaker.consecutive_failures == 0
            path = f"{PATH}/{method}"
            assert it.metric("requests_total", method="GRPC", path=path, status="499") == 1

    run_real(main())


@pytest.mark.parametrize("method", ["GenerateText", "StreamGenerateText"])
def test_a_deadline_ends_the_request_and_says_nothing_of_the_worker(method: str) -> None:
    async def main() -> None:
        async with served(sim=SLOW) as it:
            request = llm_pb2.PromptRequest(prompt="Why?", max_tokens=5000)
            for _ in range(4):
                call = getattr(it.llm, method)(request, metadata=(BEARER,), timeout=0.08)
                with refused(Code.DEADLINE_EXCEEDED):
                    _ = [message async for message in call] if method.startswith("S") else await call
                await it.made.settled()
            assert it.made.gateway.pool.snapshot.members[0].breaker.consecutive_failures == 0

    run_real(main())


@pytest.mark.parametrize("method", ["GenerateText", "StreamGenerateText"])
def test_the_gateways_own_time_limit_holds_as_well(method: str) -> None:
    async def main() -> None:
        async with served(sim=SLOW, request_timeout_s=0.2) as it:
            call = getattr(it.llm, method)(llm_pb2.PromptRequest(prompt="Why?", max_tokens=5000), metadata=(BEARER,))
            with refused(Code.DEADLINE_EXCEEDED, "NEUROGATE_REQUEST_TIMEOUT_S"):
                _ = [message async for message in call] if method.startswith("S") else await call

    run_real(main())


def test_a_stream_whose_time_runs_out_after_its_first_token_is_broken() -> None:
    async def main() -> None:
        async with served(sim=SLOW) as it:
            call = it.llm.StreamGenerateText(llm_pb2.PromptRequest(prompt="Why?", max_tokens=5000), metadata=(BEARER,))
            assert not (await call.read()).done
            (exchange,) = it.made.gateway.dispatcher._exchanges
            exchange.expire()  # what its timer does; how long a first token takes is the machine's affair
            with refused(Code.DEADLINE_EXCEEDED, "NEUROGATE_REQUEST_TIMEOUT_S"):
                while not (await call.read()).done:
                    pass
            assert it.metric("broken_streams_total") == 1

    run_real(main())


def test_a_broken_stream_that_nobody_continues_is_never_done() -> None:
    async def main() -> None:
        async with served(sim=SLOW, resume=False) as it:
            call = it.llm.StreamGenerateText(llm_pb2.PromptRequest(prompt="Why?", max_tokens=500), metadata=(BEARER,))
            assert not (await call.read()).done
            (exchange,) = it.made.gateway.dispatcher._exchanges
            lease = exchange._lease
            assert lease is not None
            lease.member.channel.cancel(exchange._ticket)
            exchange.on_end(End(EndCode.BROKEN, message="the engine died"))
            with refused(Code.ABORTED, "the answer broke off"):
                while not (await call.read()).done:
                    pass

    run_real(main())


async def flood(call: IncomingCall, outlet: Outlet) -> End:
    """Answer without end."""
    event = b'data: {"request_id":"","token":"%s","tokens_generated":1,"done":false}\n\n' % (b"x" * 50_000)
    while True:
        outlet.chunk(event)
        await asyncio.sleep(0)
        if outlet.full:
            await outlet.room()


def test_a_client_that_does_not_read_is_given_up() -> None:
    """What waits for it is bounded, and past that its engine is free; reading on, it hears why."""

    async def main() -> None:
        async with public([EchoWorker(answering=flood)]) as made:
            llm = llm_pb2_grpc.LLMServiceStub(made.channel)  # type: ignore[no-untyped-call]
            call = llm.StreamGenerateText(llm_pb2.PromptRequest(prompt="Why?"))
            await made.worker.backend.active.until(lambda active: active == 1)
            await made.worker.backend.active.until(lambda active: active == 0)
            assert made.member().breaker.consecutive_failures == 0
            with refused(Code.RESOURCE_EXHAUSTED, "too slowly"):
                while not (await call.read()).done:
                    pass

    run_real(main())


async def unfinished(call: IncomingCall, outlet: Outlet) -> End:
    outlet.chunk(b'data: {"request_id":"","token":"x","tokens_generated":1,"done":false}\n\n')
    return End(http_status=200)


async def gibberish(_: IncomingCall, outlet: Outlet) -> End:
    outlet.chunk(b"data: <html>\n\n")
    return End(http_status=200)


async def unsupported(_: IncomingCall, __: Outlet) -> End:
    return End(http_status=501, message="no such thing")


async def refusing(_: IncomingCall, __: Outlet) -> End:
    return End(http_status=400, body=b"bad prompt")


@pytest.mark.parametrize(
    ("answering", "code"),
    [
        (unfinished, Code.ABORTED),
        (gibberish, Code.ABORTED),
        (unsupported, Code.UNIMPLEMENTED),
        (refusing, Code.INVALID_ARGUMENT),
    ],
)
def test_an_answer_that_is_none_is_an_error(answering: Any, code: grpc.StatusCode) -> None:
    async def main() -> None:
        async with public([EchoWorker(answering=answering)]) as made:
            llm = llm_pb2_grpc.LLMServiceStub(made.channel)  # type: ignore[no-untyped-call]
            with refused(code):
                _ = [message async for message in llm.StreamGenerateText(llm_pb2.PromptRequest(prompt="Why?"))]
            with refused(code):
                await llm.GenerateText(llm_pb2.PromptRequest(prompt="Why?"))

    run_real(main())


def test_a_lost_worker_costs_an_unstreamed_request_nothing() -> None:
    async def main() -> None:
        async with served(2, sim=SLOW) as it:
            call = it.llm.GenerateText(llm_pb2.PromptRequest(prompt="Why?", max_tokens=4), metadata=(BEARER,))
            await eventually(lambda: it.made.gateway.dispatcher.in_flight == 1)
            (exchange,) = it.made.gateway.dispatcher._exchanges
            lease = exchange._lease
            assert lease is not None
            lease.member.channel.cancel(exchange._ticket)
            exchange.on_end(End(EndCode.LINK_LOST, message="killed"))
            assert (await call).completion_tokens == 4
            assert dict(await call.initial_metadata())["x-neurogate-attempts"] == "2"

    run_real(main())


def test_health_and_reflection_need_no_key() -> None:
    def reflected(address: str) -> set[str]:
        with grpc.insecure_channel(address) as channel:
            return set(ProtoReflectionDescriptorDatabase(channel).get_services())

    async def main() -> None:
        async with served(2) as it:
            said = await it.llm.HealthCheck(llm_pb2.HealthCheckRequest())
            assert (said.healthy, said.ollama_connected, said.active_requests, said.load) == (True, True, 0, 0.0)
            assert said.version
            health = health_pb2_grpc.HealthStub(it.channel)
            for service in ("", "llm.v1.LLMService"):
                found = await health.Check(health_pb2.HealthCheckRequest(service=service))
                assert found.status == health_pb2.HealthCheckResponse.SERVING
            assert await asyncio.to_thread(reflected, it.address) == {
                "llm.v1.LLMService",
                "grpc.health.v1.Health",
                "grpc.reflection.v1alpha.ServerReflection",
            }
            for newer in ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/grpc.health.v1.Health/List"):
                with refused(Code.UNIMPLEMENTED):
                    await it.channel.stream_stream(newer)().read()
            it.made.gateway.pool.cordon("worker-0")
            it.made.gateway.pool.cordon("worker-1")
            assert not (await it.llm.HealthCheck(llm_pb2.HealthCheckRequest())).healthy
            it.made.gateway.pool.uncordon("worker-0")
            it.made.gateway.pool.uncordon("worker-1")

    run_real(main())


def test_a_bug_in_the_gateway_is_told_without_its_text() -> None:
    async def main() -> None:
        async with served() as it:
            it.made.gateway.grpc._dialect = None  # type: ignore[assignment]
            with refused(Code.INTERNAL, "internal error; the gateway's log") as caught:
                await it.llm.GenerateText(ASK, metadata=(BEARER,))
            assert "NoneType" not in str(caught.value)

    run_real(main())


def test_requests_wait_for_their_turn() -> None:
    async def main() -> None:
        async with served(sim=SLOW, max_concurrent=1) as it:
            first = it.llm.GenerateText(llm_pb2.PromptRequest(prompt="Why?", max_tokens=4), metadata=(BEARER,))
            await eventually(lambda: it.made.gateway.dispatcher.in_flight == 1)
            second = it.llm.GenerateText(llm_pb2.PromptRequest(prompt="Why?", max_tokens=1), metadata=(BEARER,))
            third = it.llm.GenerateText(llm_pb2.PromptRequest(prompt="Why?", max_tokens=1), metadata=(BEARER,))
            await eventually(lambda: it.made.gateway.admission.waiting == 2)
            third.cancel()
            await eventually(lambda: it.made.gateway.admission.waiting == 1)
            assert it.made.gateway.dispatcher.in_flight == 1
            assert ((await first).completion_tokens, (await second).completion_tokens) == (4, 1)

    run_real(main())


def test_a_call_whose_turn_would_come_behind_its_deadline_is_told_so_and_when_to_come_back() -> None:
    async def main() -> None:
        async with served(sim=SLOW, max_concurrent=1) as it:
            admission = it.made.gateway.admission
            short = llm_pb2.PromptRequest(prompt="Why?", max_tokens=1)
            for _ in range(5):  # the queue's pace: a turn in 0.1 s or so
                await asyncio.gather(*(it.llm.GenerateText(short, metadata=(BEARER,)) for _ in range(4)))
            long = llm_pb2.PromptRequest(prompt="Why?", max_tokens=40)
            others = [it.llm.GenerateText(long, metadata=(BEARER,)) for _ in range(200)]
            await eventually(lambda: admission.waiting >= 150)  # the first may be answered by then
            with refused(Code.RESOURCE_EXHAUSTED, "too late") as caught:
                await it.llm.GenerateText(short, metadata=(BEARER,), timeout=2)
            trailers = dict(caught.value.trailing_metadata())
            assert trailers["x-neurogate-code"] == "queue_too_long"
            assert int(trailers["grpc-retry-pushback-ms"]) >= 2000
            assert int(trailers["retry-after"]) * 1000 >= int(trailers["grpc-retry-pushback-ms"])
            for call in others:
                call.cancel()
            await eventually(lambda: admission.waiting == 0)

    run_real(main())


def test_an_alias_names_another_model() -> None:
    async def main() -> None:
        async with served(model_aliases=("small=tiny",)) as it:
            answer = await it.llm.GenerateText(
                llm_pb2.PromptRequest(prompt="Why?", model="small", max_tokens=1), metadata=(BEARER,)
            )
            assert answer.model == "tiny"

    run_real(main())


def test_every_call_is_in_the_access_log(tmp_path: Path) -> None:
    async def main() -> None:
        log = tmp_path / "access.log"
        settings = {"access_log": str(log), "access_log_format": "json", "access_log_prompts": True}
        async with served(**settings, max_body_bytes=1024) as it:
            written = it.made.gateway.access_log
            assert written is not None
            written.start()
            sent = (BEARER, ("x-request-id", "r-1"))
            messages = [message async for message in it.llm.StreamGenerateText(ASK, metadata=sent)]
            with refused(Code.UNAUTHENTICATED):
                await it.llm.GenerateText(ASK)
            with refused(Code.UNIMPLEMENTED):
                await it.channel.unary_unary("/test.Echo/Unary")(b"x", metadata=(BEARER,))
            with refused(Code.RESOURCE_EXHAUSTED):
                await it.llm.GenerateText(llm_pb2.PromptRequest(prompt="x" * 2000), metadata=(BEARER,))
            with refused(Code.PERMISSION_DENIED):
                await it.channel.unary_unary("/neurogate.v1.Worker/Link")(b"x", metadata=(BEARER,))
            answer = await it.llm.GenerateText(ASK, metadata=(BEARER,))
            status = it.channel.unary_unary("/neurogate.v1.Worker/GetStatus")
            size = len(await status(b"", metadata=(BEARER,)))
            await asyncio.to_thread(written.close)
            first, second, third, large, private, whole, own = map(
                msgspec.json.decode, (await asyncio.to_thread(log.read_bytes)).splitlines()
            )
        assert (first["method"], first["path"], first["status"]) == ("GRPC", f"{PATH}/StreamGenerateText", 200)
        assert (first["worker"], first["attempts"], first["request_id"]) == ("worker-0", 1, "r-1")
        assert (first["completion_tokens"], first["outcome"], first["client"]) == (12, "answered", "127.0.0.1")
        assert first["ttft_ms"] >= 0
        assert (second["status"], second["outcome"], second["key_id"]) == (401, "refused", "-")
        assert (third["path"], third["status"], third["worker"]) == ("/test.Echo/Unary", 200, "worker-0")
        assert (first["bytes"], second["bytes"]) == (sum(message.ByteSize() for message in messages), 0)
        assert msgspec.json.decode(first["prompt"])["query"] == ASK.prompt
        assert "prompt" not in second, "it was not read"
        assert (large["status"], large["outcome"]) == (413, "refused")
        assert (private["status"], private["path"]) == (403, "/neurogate.v1.Worker/Link")
        assert (whole["bytes"], whole["ttft_ms"]) == (answer.ByteSize(), None)
        assert (own["bytes"], own["outcome"]) == (size, "answered")

    run_real(main())


def test_a_client_address_has_bounds_too() -> None:
    async def main() -> None:
        async with served(address_requests_per_minute=2) as it:
            for _ in range(2):
                await it.llm.GenerateText(ASK, metadata=(BEARER,))
            with refused(Code.RESOURCE_EXHAUSTED):
                await it.llm.GenerateText(ASK, metadata=(BEARER,))

    run_real(main())


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:10.0.0.7:51312", "10.0.0.7"),
        ("ipv6:%5Bfe80::1%5D:51312", "fe80::1"),
        ("ipv6:[::1]:5", "::1"),
        ("unix:/run/x", "unix:/run/x"),
    ],
)
def test_the_address_of_a_peer(peer: str, host: str) -> None:
    assert host_of(peer) == host


def test_a_cut_streams_tokens_are_charged() -> None:
    async def main() -> None:
        async with served(sim=SLOW, tokens_per_minute=1000) as it:
            call = it.llm.StreamGenerateText(llm_pb2.PromptRequest(prompt="Why?", max_tokens=500), metadata=(BEARER,))
            await call.read()
            head = dict(await call.initial_metadata())
            assert "ratelimit-limit" in head or any(name.startswith("ratelimit") for name in head)
            call.cancel()
            await it.made.settled()
            # All but what it got is given back: another one fits.
            answer = await it.llm.GenerateText(ASK, metadata=(BEARER,))
            assert answer.completion_tokens == 12

    run_real(main())


def test_the_key_is_the_same_as_over_http() -> None:
    assert BEARER[1] == f"Bearer {KEY}"

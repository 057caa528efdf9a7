"""Any method of a worker through the public listener: the client sees what it would see without a gateway."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from grpc_support import BEARER, KEY, MIB, EchoWorker, public
from neurogate.api.llm.v1 import llm_pb2, llm_pb2_grpc
from neurogate.api.v1 import worker_pb2 as pb
from neurogate.api.v1 import worker_pb2_grpc
from real_loop import eventually, run_real


def refused(code: grpc.StatusCode, match: str | None = None) -> Any:
    return pytest.raises(grpc.aio.AioRpcError, match=match, check=lambda error: error.code() is code)


async def all_of(stream: AsyncIterator[bytes]) -> list[bytes]:
    return [message async for message in stream]


async def each(*messages: bytes) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


# Transparency


def test_a_unary_call_keeps_bytes_metadata_and_trailers() -> None:
    async def main() -> None:
        async with public() as made:
            body = random.Random(1).randbytes(70_000)
            metadata = (("x-mine", "a"), ("x-mine-bin", b"\0\1\xff"), ("x-api-key", KEY), ("x-neurogate-model", "tiny"))
            call = made.unary("Unary")(body, metadata=metadata)
            assert await call == body
            assert dict(await call.initial_metadata()) == {"x-first": "1", "x-first-bin": b"\0\xff"}
            assert dict(await call.trailing_metadata()) == {"x-last": "2", "x-last-bin": b"\1\xfe"}
            assert await call.code() is grpc.StatusCode.OK
            (seen,) = made.worker.echo.metadata
            assert (seen["x-mine"], seen["x-mine-bin"]) == ("a", b"\0\1\xff")
            assert "x-api-key" not in seen
            assert made.worker.echo.time_left == [None]

    run_real(main())


def test_the_gateways_key_stays_at_the_gateway() -> None:
    async def main() -> None:
        async with public(api_keys=(KEY,)) as made:
            with refused(grpc.StatusCode.UNAUTHENTICATED, "an API key is needed"):
                await made.unary("Unary")(b"x")
            with refused(grpc.StatusCode.UNAUTHENTICATED):  # and no message is waited for, nor read
                await made.both("Both")().read()
            with refused(grpc.StatusCode.UNAUTHENTICATED):
                await made.channel.stream_stream("/neurogate.v1.Worker/Link")().read()
            assert made.worker.echo.calls.value == 0
            assert await made.unary("Unary")(b"x", metadata=(BEARER,)) == b"x"
            assert "authorization" not in made.worker.echo.metadata[0]

    run_real(main())


def test_an_applications_failure_arrives_with_all_its_details() -> None:
    async def main() -> None:
        async with public() as made:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await made.unary("Fail")(b"\x08\x0f\xff")
            error = caught.value
            assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "lost: \u00fc%")
            assert dict(error.trailing_metadata()) == {"grpc-status-details-bin": b"\x08\x0f\xff", "x-last": "2"}
            assert made.member().breaker.consecutive_failures == 0

    run_real(main())


def test_an_unknown_method_is_unimplemented_and_no_failure() -> None:
    async def main() -> None:
        async with public() as made:
            for _ in range(5):
                with refused(grpc.StatusCode.UNIMPLEMENTED):
                    await made.unary("Nothing")(b"x")
            assert made.member().breaker.consecutive_failures == 0

    run_real(main())


def test_all_four_shapes_pass() -> None:
    async def main() -> None:
        async with public() as made:
            numbers = [b"%d" % number for number in range(500)]
            assert await made.unary("Unary")(b"") == b""
            assert await all_of(made.down("Down")(b"500")) == numbers
            assert await made.up("Up")(each(*numbers)) == b"|".join(numbers)
            assert await made.up("Up")(each()) == b""
            both = made.both("Both")(each(*numbers))
            assert await all_of(both) == numbers
            assert dict(await both.trailing_metadata()) == {"x-last": "both"}

    run_real(main())


def test_a_dialogue_is_not_held_up() -> None:
    """Each message is answered before the next is sent, and the end of one side is heard at the other."""

    async def main() -> None:
        async with public() as made:
            call = made.both("Both")()
            for number in range(20):
                await call.write(b"%d" % number)
                assert await call.read() == b"%d" % number
            assert made.worker.echo.half_closed.value == 0
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            assert made.worker.echo.half_closed.value == 1

    run_real(main())


def test_a_message_of_26_mib_passes_and_a_larger_one_is_refused() -> None:
    async def main() -> None:
        async with public() as made:
            largest = random.Random(2).randbytes(26 * MIB)
            assert await made.unary("Unary")(largest) == largest
            with refused(grpc.StatusCode.RESOURCE_EXHAUSTED):
                await made.unary("Unary")(largest + b"x")
            assert made.member().breaker.consecutive_failures == 0

    run_real(main())


def test_an_answer_that_is_too_large_is_refused() -> None:
    async def main() -> None:
        async with public(grpc_max_message_bytes=MIB) as made:
            with refused(grpc.StatusCode.RESOURCE_EXHAUSTED):
                await made.unary("Large")(b"%d" % (2 * MIB))

    run_real(main())


def test_sixty_four_streams_do_not_mix() -> None:
    async def main() -> None:
        async with public(2) as made:

            async def one(number: int) -> None:
                messages = [b"%d:%d" % (number, index) for index in range(50)]
                assert await all_of(made.both("Both")(each(*messages))) == messages

            async with asyncio.TaskGroup() as tasks:
                for number in range(64):
                    tasks.create_task(one(number))
            assert [worker.echo.calls.value for worker in made.workers] == [32, 32]

    run_real(main())


# Deadlines, cancellation, flow control


def test_a_deadline_reaches_the_worker_and_ends_the_call() -> None:
    async def main() -> None:
        async with public() as made:
            with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
                await made.unary("Hang")(b"x", timeout=0.3)
            (left,) = made.worker.echo.time_left
            assert left is not None
            assert 0 < left < 0.4  # gRPC rounds it on the wire
            await made.worker.echo.ended.until(lambda ended: ended == 1)
            assert made.member().breaker.consecutive_failures == 0

    run_real(main())


@pytest.mark.parametrize("name", ["Hang", "Deaf", "Flood"])
def test_a_client_that_cancels_cancels_at_the_worker(name: str) -> None:
    async def main() -> None:
        async with public() as made:
            call = made.both(name)()
            await call.write(b"x" * 1000)
            await made.worker.echo.calls.until(lambda calls: calls == 1)
            call.cancel()
            await made.worker.echo.cancelled.until(lambda cancelled: cancelled == 1)
            assert made.member().breaker.consecutive_failures == 0

    run_real(main())


def test_a_cancelled_upload_is_never_taken_for_a_whole_one() -> None:
    """gRPC tells of the end of a cancelled client's messages before it tells of the cancellation."""

    async def main() -> None:
        async with public() as made:
            half_closed = 0
            begin = made.member().channel.calls.call

            def overheard(*args: Any, **kwargs: Any) -> Any:
                call = begin(*args, **kwargs)
                done_writing = call.done_writing

                async def heard() -> None:
                    nonlocal half_closed
                    half_closed += 1
                    await done_writing()

                call.done_writing = heard
                return call

            made.member().channel.calls.call = overheard
            for number in range(1, 51):
                call = made.up("Up")()
                await call.write(b"part")
                await made.worker.echo.calls.until(lambda calls, number=number: calls == number)
                call.cancel()
                await made.worker.echo.ended.until(lambda ended, number=number: ended == number)
            assert half_closed == 0
            await made.up("Up")(each(b"part"))
            assert half_closed == 1

    run_real(main())


def test_a_worker_that_answers_early_is_heard_while_the_client_still_sends() -> None:
    async def main() -> None:
        async with public() as made:
            call = made.both("Fail")()
            await call.write(b"x")
            with refused(grpc.StatusCode.DATA_LOSS):
                await call.read()

    run_real(main())


def test_a_slow_reader_slows_the_worker() -> None:
    async def main() -> None:
        async with public() as made:
            call = made.down("Flood")(b"x" * 100_000)
            await call.read()
            written = -1
            while written != made.worker.echo.written.value:  # until the worker comes to a stand
                written = made.worker.echo.written.value
                await asyncio.sleep(0.3)
            assert written < 400, "megabytes that nobody read"
            for _ in range(written + 50):  # and goes on when it is read
                await call.read()
            call.cancel()

    run_real(main())


def test_a_slow_worker_slows_the_client() -> None:
    async def main() -> None:
        async with public() as made:
            call = made.up("Deaf")()
            sent = 0

            async def send() -> None:
                nonlocal sent
                while True:
                    await call.write(b"x" * 100_000)
                    sent += 1

            sending = asyncio.get_running_loop().create_task(send())
            await made.worker.echo.calls.until(lambda calls: calls == 1)
            before = -1
            while before != sent:
                before = sent
                await asyncio.sleep(0.3)
            assert sent < 400
            sending.cancel()
            call.cancel()
            await asyncio.wait([sending])

    run_real(main())


# Workers: who is asked, and what happens when they go


def test_only_workers_with_the_model_are_asked() -> None:
    async def main() -> None:
        async with public([EchoWorker(model="a"), EchoWorker(model="b")]) as made:
            for _ in range(6):
                await made.unary("Unary")(b"x", metadata=(("x-neurogate-model", "b"),))
            assert [worker.echo.calls.value for worker in made.workers] == [0, 6]
            with refused(grpc.StatusCode.NOT_FOUND, "the models are: a, b") as caught:
                await made.unary("Unary")(b"x", metadata=(("x-neurogate-model", "c"), ("x-request-id", "r-7")))
            told = dict(caught.value.trailing_metadata())
            assert (told["x-neurogate-code"], told["x-request-id"]) == ("model_not_found", "r-7")

    run_real(main())


def test_a_worker_that_cannot_be_reached_costs_nothing() -> None:
    """Its link still stands, so it is picked; the call moves on before anything of it was sent."""

    async def main() -> None:
        async with public(2) as made:
            made.member(0).channel.calls._address = "127.0.0.1:1"
            for _ in range(4):
                assert await made.both("Both")(each(b"once")).read() == b"once"
            assert made.workers[0].echo.calls.value == 0
            assert made.workers[1].echo.calls.value == 4
            assert made.member(0).breaker.consecutive_failures > 0

    run_real(main())


def test_when_no_worker_can_be_reached_the_client_hears_unavailable() -> None:
    async def main() -> None:
        async with public(2) as made:
            for index in range(2):
                made.member(index).channel.calls._address = "127.0.0.1:1"
            with refused(grpc.StatusCode.UNAVAILABLE, "worker-0, worker-1 could not be reached") as caught:
                await made.unary("Unary")(b"x")
            told = dict(caught.value.trailing_metadata())
            assert (told["x-neurogate-code"], told["retry-after"]) == ("no_worker_available", "1")
            assert told["grpc-retry-pushback-ms"] == "1000"

    run_real(main())


def test_without_a_worker_a_call_waits_a_little_and_is_told_why() -> None:
    async def main() -> None:
        async with public(failfast_s=0.05) as made:
            made.gateway.pool.cordon("worker-0")
            with refused(grpc.StatusCode.UNAVAILABLE, "cordoned"):
                await made.unary("Unary")(b"x")
            waiting = made.unary("Unary")(b"y", metadata=())
            await asyncio.sleep(0)
            made.gateway.pool.uncordon("worker-0")
            assert await waiting == b"y"

    run_real(main())


def test_a_worker_that_dies_mid_stream_is_never_an_ok_end() -> None:
    async def main() -> None:
        async with public() as made:
            calls = [made.both("Both")() for _ in range(8)]
            for call in calls:
                await call.write(b"x")
                assert await call.read() == b"x"
            await made.worker.server.stop(0)
            for call in calls:
                with refused(grpc.StatusCode.UNAVAILABLE):
                    await call.read()

    run_real(main())


def test_a_worker_that_hangs_loses_its_proxied_calls_with_its_link() -> None:
    """A stopped process keeps its connections open: only its silence on the link tells."""

    async def main() -> None:
        async with public() as made:
            call = made.both("Deaf")()
            await call.write(b"x")
            await made.worker.echo.calls.until(lambda calls: calls == 1)
            await made.member().channel.calls.close()
            with refused(grpc.StatusCode.UNAVAILABLE, "worker-0 is gone"):
                await call.read()
            assert made.member().breaker.consecutive_failures == 1
            assert await made.unary("Unary")(b"x") == b"x"

    run_real(main())


def test_a_call_that_still_connects_when_its_worker_is_lost_goes_to_another() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never says a word of HTTP/2
            async with public(2) as made:
                calls = made.member(0).channel.calls
                calls._address = f"127.0.0.1:{silent.getsockname()[1]}"
                asked = made.unary("Unary")(b"x")
                await eventually(lambda: made.member(0).in_flight == 1)
                await eventually(lambda: calls._channel is not None and bool(calls._channel._active_calls))
                await calls.close()
                assert await asked == b"x"
                assert made.workers[1].echo.calls.value == 1

    run_real(main())


def test_a_dead_worker_opens_its_breaker() -> None:
    async def main() -> None:
        async with public(2, breaker_failures=2) as made:
            made.member(0).channel.calls._address = "127.0.0.1:1"
            for _ in range(6):
                await made.unary("Unary")(b"x")
            assert made.member(0).breaker.state == "open"

    run_real(main())


# Admission: a proxied call is a request like any other


def test_proxied_calls_count_for_the_bound_on_requests_in_flight() -> None:
    async def main() -> None:
        async with public(max_concurrent=1) as made:
            gateway = made.gateway
            first = made.both("Both")()
            await first.write(b"x")
            assert await first.read() == b"x"
            assert gateway.dispatcher.in_flight == 1
            assert gateway.metrics.registry.get_sample_value("neurogate_gateway_active_requests") == 1
            second = made.unary("Unary")(b"y")
            prompt = llm_pb2_grpc.LLMServiceStub(made.channel).GenerateText(  # type: ignore[no-untyped-call]
                llm_pb2.PromptRequest(prompt="Why?")
            )
            await eventually(lambda: gateway.admission.waiting == 2)
            assert made.worker.echo.calls.value == 1
            await first.done_writing()
            assert await second == b"y"
            with refused(grpc.StatusCode.ABORTED):  # this worker's engine answers no prompt, but it was asked
                await prompt

    run_real(main())


def test_proxied_calls_take_slots() -> None:
    async def main() -> None:
        async with public(factor=1.0) as made:
            slots = made.member().report.slots_total
            calls = [made.both("Both")() for _ in range(slots)]
            for call in calls:
                await call.write(b"x")
                assert await call.read() == b"x"
            more = made.unary("Unary")(b"y")
            await eventually(lambda: made.gateway.admission.waiting == 1)
            await calls.pop().done_writing()
            assert await more == b"y"
            for call in calls:
                call.cancel()

    run_real(main())


def test_calls_at_once_are_bounded_and_a_strangers_take_no_place() -> None:
    async def main() -> None:
        async with public(api_keys=(KEY,), grpc_max_calls=1) as made:
            first = made.both("Both")(metadata=(BEARER,))
            await first.write(b"x")
            assert await first.read() == b"x"
            with refused(grpc.StatusCode.UNAUTHENTICATED):
                await made.unary("Unary")(b"y")
            with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "NEUROGATE_GRPC_MAX_CALLS"):
                await made.unary("Unary")(b"y", metadata=(BEARER,))
            assert made.requests("proxied", 503) == 1
            await first.done_writing()
            assert await first.read() is grpc.aio.EOF
            await eventually(lambda: made.gateway.dispatcher.in_flight == 0)
            assert await made.unary("Unary")(b"y", metadata=(BEARER,)) == b"y"

    run_real(main())


def test_messages_on_their_way_fill_the_memory_that_bodies_share() -> None:
    async def main() -> None:
        async with public(max_bodies_bytes=4096, failfast_s=0) as made:
            for call, message in ((made.unary("Unary"), b"x" * 5000), (made.unary("Large"), b"5000")):
                with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "NEUROGATE_MAX_BODIES_BYTES"):
                    await call(message)
                await eventually(lambda: made.member().in_flight == 0)
                assert made.gateway.bodies.held == 0
            await made.worker.echo.ended.until(lambda ended: ended == made.worker.echo.calls.value)
            assert made.member().breaker.consecutive_failures == 0
            assert await all_of(made.both("Both")(each(*[b"x" * 1000] * 20))) == [b"x" * 1000] * 20

    run_real(main())


def test_a_message_that_may_not_pass_ends_the_call_of_a_client_that_does_not_read() -> None:
    async def main() -> None:
        async with public(max_bodies_bytes=200_000) as made:
            call = made.both("Flood")()
            await call.write(b"x" * 100_000)
            written = -1
            while written != made.worker.echo.written.value:  # until its answers come to a stand
                written = made.worker.echo.written.value
                await asyncio.sleep(0.3)
            await call.write(b"x" * 150_000)
            await made.worker.echo.ended.until(lambda ended: ended == 1)
            with refused(grpc.StatusCode.RESOURCE_EXHAUSTED):
                while await call.read() is not grpc.aio.EOF:
                    pass

    run_real(main())


# Limits: bytes stand for tokens


def test_the_bytes_of_both_directions_are_charged_as_tokens() -> None:
    async def main() -> None:
        async with public(api_keys=(KEY,), tokens_per_minute=1000, tokens_per_month=10_000) as made:
            key_id = made.gateway.keys.ring.authenticate(BEARER[1].encode(), b"").key_id
            limiter = made.gateway.limiter
            assert await made.unary("Unary")(b"x" * 1600, metadata=(BEARER,)) == b"x" * 1600
            await eventually(lambda: limiter.standing(key_id).concurrent == 0)
            standing = limiter.standing(key_id)
            assert (standing.tokens, standing.month_tokens, standing.requests) == (800, 800, 1)
            with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "tokens"):  # what is left is less than the estimate
                await made.unary("Unary")(b"x", metadata=(BEARER,))
            assert made.worker.echo.calls.value == 1

    run_real(main())


def test_a_call_that_reached_nobody_costs_its_key_nothing() -> None:
    async def main() -> None:
        async with public(api_keys=(KEY,), tokens_per_minute=1000) as made:
            key_id = made.gateway.keys.ring.authenticate(BEARER[1].encode(), b"").key_id
            made.member().channel.calls._address = "127.0.0.1:1"
            with refused(grpc.StatusCode.UNAVAILABLE):
                await made.unary("Unary")(b"x" * 1600, metadata=(BEARER,))
            standing = made.gateway.limiter.standing(key_id)
            assert (standing.tokens, standing.requests, standing.concurrent) == (0, 0, 0)

    run_real(main())


def test_a_key_bound_to_models_must_name_one_of_them(tmp_path: Path) -> None:
    """Whatever the default: the gateway does not look into the message, so a model must at least be named."""

    async def main() -> None:
        file = tmp_path / "keys"
        file.write_text(f"alice:{KEY}:: models=tiny\n")
        file.chmod(0o600)
        async with public(keys_file=str(file), default_model="tiny") as made:
            for metadata in ((), (("x-neurogate-model", "other"),)):
                with refused(grpc.StatusCode.PERMISSION_DENIED, "it may use tiny"):
                    await made.unary("Unary")(b"x", metadata=(BEARER, *metadata))
            assert await made.unary("Unary")(b"x", metadata=(BEARER, ("x-neurogate-model", "tiny"))) == b"x"
            assert made.worker.echo.calls.value == 1

    run_real(main())


# What is not passed on


@pytest.mark.parametrize("method", ["Worker/Link", "Worker/Linkx", "Registry/Join", "Worker/"])
def test_private_methods_are_refused(method: str) -> None:
    async def main() -> None:
        async with public() as made:
            sessions = made.worker.server.servicer.sessions
            call = made.channel.stream_stream(f"/neurogate.v1.{method}")()
            with refused(grpc.StatusCode.PERMISSION_DENIED, "private"):
                await call.read()
            assert made.worker.server.servicer.sessions == sessions
            assert made.requests("proxied", 403) == 1

    run_real(main())


def test_a_workers_own_generation_is_refused_and_its_status_passes() -> None:
    """Over that method neither model nor tokens would be known to the limits."""

    async def main() -> None:
        async with public() as made:
            stub = worker_pb2_grpc.WorkerStub(made.channel)  # type: ignore[no-untyped-call]
            assert (await stub.GetStatus(pb.StatusRequest())).worker_id == "w-1"
            with refused(grpc.StatusCode.PERMISSION_DENIED, r"llm\.v1\.LLMService"):
                await stub.Generate(pb.GenerateRequest(prompt="Why?")).read()
            assert made.worker.backend.active.value == 0

    run_real(main())


def test_a_stopping_gateway_lets_calls_finish() -> None:
    async def main() -> None:
        async with public() as made:
            call = made.both("Both")()
            await call.write(b"x")
            assert await call.read() == b"x"
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            await eventually(lambda: made.member().in_flight == 0)

    run_real(main())

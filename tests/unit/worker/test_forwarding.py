"""Passing a request to the engine and its answer back: whole events only, and nothing that is cut looks whole."""

from __future__ import annotations

import asyncio

import pytest

from neurogate.channel import End, EndCode
from neurogate.engines.engine import AnswerTooLargeError, EngineBrokenError, EngineUnsupportedError
from neurogate.inference import Usage
from neurogate.testing.engines import DONE, HANG, Pause, Reply, ScriptedEngine, stream
from neurogate.virtual_time import run
from neurogate.worker.forwarding import forward
from neurogate.worker.meter import Meter
from neurogate.worker.metrics import WorkerMetrics
from worker_support import FakeOutlet, incoming, progress

HEL = b'data: {"choices":[{"delta":{"content":"Hel"}}]}\n\n'
LO = b'data: {"choices":[{"delta":{"content":"lo"}}]}\n\n'
STOP = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
ERROR = b'data: {"error":{"message":"out of memory","code":500}}\n\n'


async def forwarded(reply: Reply, outlet: FakeOutlet | None = None) -> tuple[End, FakeOutlet, ScriptedEngine]:
    outlet = outlet or FakeOutlet()
    engine = ScriptedEngine(replies=lambda _: reply)
    end = await forward(engine, incoming(), outlet, progress())
    assert engine.active.value == 0
    return end, outlet, engine


def test_a_stream_passes_byte_for_byte() -> None:
    async def main() -> None:
        end, outlet, _ = await forwarded(stream(HEL, LO, STOP + USAGE))
        assert outlet.body == HEL + LO + STOP + USAGE + DONE
        assert end == End(http_status=200, usage=Usage(3, 2), finish_reason="stop")

    run(main())


def test_only_whole_events_pass() -> None:
    """However the engine's bytes are cut: a worker's death never leaves half an event with the client."""

    async def main() -> None:
        whole = HEL + LO + STOP + USAGE + DONE
        pieces = [whole[start : start + 7] for start in range(0, len(whole), 7)]
        end, outlet, _ = await forwarded(stream(*pieces, done=False))
        assert outlet.body == whole
        assert all(chunk.endswith(b"\n\n") for chunk in outlet.chunks)
        assert (end.http_status, end.usage) == (200, Usage(3, 2))

    run(main())


def test_half_an_event_at_the_end_is_not_passed() -> None:
    async def main() -> None:
        end, outlet, _ = await forwarded(stream(HEL, LO[:-5], done=False))
        assert outlet.body == HEL
        assert end.code is EndCode.BROKEN

    run(main())


def test_a_stream_without_its_end_mark_is_broken() -> None:
    async def main() -> None:
        end, outlet, _ = await forwarded(stream(HEL, STOP + USAGE, done=False))
        assert (end.code, end.message) == (EndCode.BROKEN, "the engine's stream ended without its end mark")
        assert end.usage == Usage(3, 2)
        assert outlet.body == HEL + STOP + USAGE

    run(main())


@pytest.mark.parametrize("steps", [(HEL, ERROR), (HEL + ERROR,), (HEL, ERROR, DONE), (HEL, ERROR, HANG)])
def test_an_error_event_is_reported_and_not_passed(steps: tuple[bytes | Pause, ...]) -> None:
    """It is the gateway's to word for the client; nothing the engine says after it counts."""

    async def main() -> None:
        end, outlet, _ = await forwarded(stream(*steps, done=False))
        assert (end.code, end.message) == (EndCode.BROKEN, "the engine reported: out of memory")
        assert outlet.body == HEL

    run(main())


def test_a_stream_that_breaks_off_raises_as_the_engine_does() -> None:
    async def main() -> None:
        outlet = FakeOutlet()
        with pytest.raises(EngineBrokenError, match="reset"):
            await forwarded(stream(HEL, EngineBrokenError("reset")), outlet)
        assert outlet.body == HEL

    run(main())


def test_a_gateway_that_reads_slowly_pauses_the_stream() -> None:
    async def main() -> None:
        outlet = FakeOutlet(limit=2)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(forwarded(stream(HEL, LO, HEL, LO), outlet))
            await asyncio.sleep(1)
            assert len(outlet.chunks) == 2
            outlet.read()
            await asyncio.sleep(1)
            assert len(outlet.chunks) == 4
            outlet.read()
        assert task.result()[0].http_status == 200
        assert outlet.body == HEL + LO + HEL + LO + DONE

    run(main())


def test_a_whole_answer_passes_byte_for_byte() -> None:
    async def main() -> None:
        body = b'{"choices":[{"finish_reason":"length"}],"usage":{"prompt_tokens":5,"completion_tokens":7}}'
        end, outlet, _ = await forwarded(Reply([body[:20], body[20:]]))
        assert outlet.chunks == [body]
        assert end == End(http_status=200, content_type="application/json", usage=Usage(5, 7), finish_reason="length")

    run(main())


@pytest.mark.parametrize("body", [b"not json at all", b"[]", b"", b'{"choices":[]}'])
def test_a_whole_answer_of_another_kind_passes_too(body: bytes) -> None:
    """Without usage: a token count is never worth failing an answer for."""

    async def main() -> None:
        end, outlet, _ = await forwarded(Reply([body], content_type="text/plain"))
        assert outlet.body == body
        assert (end.http_status, end.content_type, end.usage, end.finish_reason) == (200, "text/plain", None, "")

    run(main())


def test_a_whole_answer_waits_for_nobody() -> None:
    """It is held anyway: the engine's slot is free as soon as it can be."""

    async def main() -> None:
        outlet = FakeOutlet(limit=1)
        outlet.chunk(b"of another request")
        end, _, _ = await forwarded(Reply([b"{", b"}"]), outlet)
        assert (end.http_status, outlet.waited) == (200, 0)

    run(main())


@pytest.mark.parametrize("kind", ["application/json", "application/problem+json", ""])
@pytest.mark.parametrize("body", [b'{"choices":[{"mess', b"", b"{}{}", b"not json", b"[" * 100_000])
def test_a_whole_answer_that_is_cut_is_broken_before_any_byte(body: bytes, kind: str) -> None:
    """A body without a length ends like any other when the engine dies."""

    async def main() -> None:
        end, outlet, _ = await forwarded(Reply([body], content_type=kind))
        assert (end.code, outlet.chunks) == (EndCode.BROKEN, [])
        assert end.message == "the engine's answer is not whole: it is no valid JSON"

    run(main())


def test_a_whole_answer_is_bounded() -> None:
    async def main() -> None:
        outlet = FakeOutlet()
        engine = ScriptedEngine(replies=lambda _: Reply([b'"' + b"x" * 9, b'"', HANG]))
        with pytest.raises(AnswerTooLargeError, match="NEUROGATE_MAX_ANSWER_BYTES, 10"):
            await forward(engine, incoming(), outlet, progress(), max_answer_bytes=10)
        assert (outlet.chunks, engine.aborted) == ([], 1)
        assert engine.calls[0].max_answer_bytes == 10

    run(main())


@pytest.mark.parametrize("kind", ["application/json", "text/plain", ""])
def test_a_stream_that_was_asked_for_is_never_answered_whole(kind: str) -> None:
    """The client's head already says that events follow."""

    async def main() -> None:
        outlet = FakeOutlet()
        engine = ScriptedEngine(replies=lambda _: Reply([b"{}"], content_type=kind))
        end = await forward(engine, incoming({"stream": True}), outlet, progress())
        assert (end.code, outlet.chunks) == (EndCode.BROKEN, [])
        assert end.message == f"a stream was asked for, and the engine answered with {kind or 'something'} instead"

    run(main())


@pytest.mark.parametrize("status", [401, 403, 407])
def test_an_engine_that_does_not_take_the_key_is_not_the_clients_fault(status: int) -> None:
    async def main() -> None:
        end, outlet, _ = await forwarded(Reply([b'{"error":{"message":"Invalid API Key"}}'], status=status))
        assert (end.code, end.http_status, end.body, outlet.chunks) == (EndCode.UNAVAILABLE, 0, b"", [])
        assert end.message.startswith(f"HTTP {status} (Invalid API Key): the engine does not take")
        assert "NEUROGATE_ENGINE_API_KEY" in end.message

    run(main())


ODD = pytest.mark.parametrize("odd", [b"\xff", b"[" * 100_000, b'{"choices":"\xff"}', b"<html>"])


@ODD
def test_an_event_that_cannot_be_read_breaks_a_stream_and_is_held_back(odd: bytes) -> None:
    async def main() -> None:
        outlet = FakeOutlet()
        with pytest.raises(EngineBrokenError, match="no event"):
            await forwarded(stream(HEL, b"data: " + odd + b"\n\n", HANG, done=False), outlet)
        assert outlet.body == HEL

    run(main())


@ODD
def test_an_event_that_cannot_be_read_ends_no_stream_whose_end_mark_has_passed(odd: bytes) -> None:
    async def main() -> None:
        end, outlet, _ = await forwarded(stream(HEL, STOP + USAGE, DONE, b"data: " + odd + b"\n\n", done=False))
        assert outlet.body.endswith(DONE)
        assert (end.http_status, end.usage) == (200, Usage(3, 2))

    run(main())


@pytest.mark.parametrize("status", [400, 404, 422, 500, 503, 302])
def test_a_refusal_travels_whole(status: int) -> None:
    """Nothing of it goes to the client as an answer: the gateway decides what becomes of it."""

    async def main() -> None:
        end, outlet, _ = await forwarded(
            Reply([b'{"error":', b'"no"}'], status=status, content_type="text/x", retry_after_s=3)
        )
        assert outlet.chunks == []
        assert end == End(http_status=status, content_type="text/x", body=b'{"error":"no"}', retry_after_s=3)

    run(main())


def test_a_refusal_without_end_is_cut() -> None:
    """64 KiB of an error say enough; the rest is not read."""

    async def main() -> None:
        end, _, engine = await forwarded(Reply([b"x" * 50_000, b"y" * 50_000, HANG], status=500))
        assert end.body == b"x" * 50_000 + b"y" * 15_536
        assert engine.aborted == 1

    run(main())


def test_an_engine_without_the_api_raises() -> None:
    async def main() -> None:
        def refuse(_: object) -> Reply:
            raise EngineUnsupportedError("no embeddings here")

        with pytest.raises(EngineUnsupportedError):
            await forward(ScriptedEngine(replies=refuse), incoming(), FakeOutlet(), progress())

    run(main())


def test_streamed_tokens_are_counted_as_they_come() -> None:
    """So that the balancer sees work shrink while it is done; what the engine counted is right in the end."""

    async def main() -> None:
        meter = Meter()
        counted = progress(WorkerMetrics(), meter)
        gate = asyncio.Event()
        engine = ScriptedEngine(replies=lambda _: stream(HEL, LO + LO, gate, STOP + USAGE))
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(forward(engine, incoming(), FakeOutlet(), counted))
            await asyncio.sleep(1)
            assert meter.completion_tokens_total == 3
            assert meter.tokens_outstanding == 253
            gate.set()
        counted.finish(task.result())
        assert meter.completion_tokens_total == 2
        assert meter.active == 0

    run(main())

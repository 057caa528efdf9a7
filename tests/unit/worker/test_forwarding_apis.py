"""Every API on its way through the worker: its own end mark, and an engine that turns out not to have it."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from neurogate.channel import End, EndCode
from neurogate.inference import Usage
from neurogate.testing.engines import DONE, EVENTS, READY, Reply, ScriptedEngine
from neurogate.virtual_time import run
from neurogate.worker.forwarding import forward
from worker_support import FakeOutlet, Setup, incoming, progress

MESSAGE = (
    b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":3}}}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta"}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},'
    b'"usage":{"output_tokens":1}}\n\n'
)
MESSAGE_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


async def forwarded(path: str, reply: Reply, **fields: object) -> tuple[End, FakeOutlet]:
    outlet = FakeOutlet()
    engine = ScriptedEngine(replies=lambda _: reply)
    end = await forward(engine, incoming(fields, path=path), outlet, progress())
    assert engine.active.value == 0
    return end, outlet


def test_a_message_is_whole_with_its_own_mark() -> None:
    async def main() -> None:
        end, outlet = await forwarded("/v1/messages", Reply([MESSAGE, MESSAGE_STOP], content_type=EVENTS), stream=True)
        assert end == End(http_status=200, usage=Usage(3, 1), finish_reason="end_turn")
        assert outlet.body == MESSAGE + MESSAGE_STOP

    run(main())


def test_a_message_is_not_whole_with_another_apis_mark() -> None:
    async def main() -> None:
        end, _ = await forwarded("/v1/messages", Reply([MESSAGE, DONE], content_type=EVENTS), stream=True)
        assert (end.code, end.usage) == (EndCode.BROKEN, Usage(3, 1))

    run(main())


def test_what_is_never_streamed_is_not_taken_as_a_stream() -> None:
    async def main() -> None:
        end, outlet = await forwarded("/v1/embeddings", Reply([DONE], content_type=EVENTS))
        assert (end.code, outlet.body) == (EndCode.BROKEN, b"")
        end, outlet = await forwarded("/v1/embeddings", Reply([b'{"usage":{"prompt_tokens":3}}']), stream=True)
        assert (end.code, end.usage) == (EndCode.ANSWERED, Usage(3, 0))

    run(main())


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (501, b'{"error":{"message":"no embeddings"}}', "no embeddings"),
        (501, b"", "it answers 501"),
        (404, b"404 page not found", "404 page not found"),
        (404, b'{"error":{"code":404,"message":"File Not Found"}}', "File Not Found"),
        (405, b'{"detail":"Method Not Allowed"}', "Method Not Allowed"),
        (400, b'{"error":{"message":"image input is not supported - hint"}}', "image input is not supported - hint"),
        (500, b'{"error":{"message":"audio input is not supported"}}', "audio input is not supported"),
        (400, b'{"error":{"message":"tiny is not a multimodal model"}}', "tiny is not a multimodal model"),
    ],
)
def test_an_engine_that_has_no_such_api_is_named(status: int, body: bytes, told: str) -> None:
    async def main() -> None:
        end, outlet = await forwarded("/v1/embeddings", Reply([body], status=status))
        assert end == End(EndCode.UNSUPPORTED, message=f"the engine scripted cannot do /v1/embeddings: {told}")
        assert outlet.body == b""

    run(main())


def test_a_model_that_is_missing_is_the_engines_own_answer() -> None:
    async def main() -> None:
        body = b'{"error":{"message":"model \'x\' not found"}}'
        end, _ = await forwarded("/v1/embeddings", Reply([body], status=404))
        assert (end.code, end.http_status, end.body) == (EndCode.ANSWERED, 404, body)

    run(main())


def test_a_feature_that_the_engine_would_ignore_is_refused_unasked() -> None:
    async def main() -> None:
        engine = ScriptedEngine()
        observation = replace(READY, unsupported=frozenset({"n"}), apis=frozenset({"/v1/rerank"}))
        setup = Setup(engine, observation=observation)
        assert setup.worker.report().apis == {"/v1/rerank"}
        end = await setup.worker.answer(incoming({"messages": [], "n": 2}), FakeOutlet())
        assert end.code is EndCode.UNSUPPORTED
        assert end.message == "the engine scripted does not do 'n', which the request asks for"
        assert engine.calls == []
        assert (await setup.worker.answer(incoming({"messages": [], "n": 1}), FakeOutlet())).http_status == 200
        body = msgspec.json.encode({"messages": [], "logprobs": True})
        assert (await setup.worker.answer(incoming(body), FakeOutlet())).http_status == 200
        setup.assert_idle()

    run(main())


def test_an_engine_that_learns_an_api_says_so_at_once() -> None:
    async def main() -> None:
        setup = Setup(ScriptedEngine())
        before = setup.changes
        setup.worker.take_observation(replace(READY, apis=frozenset({"/v1/rerank"})))
        assert setup.changes == before + 1
        setup.worker.take_observation(replace(READY, apis=frozenset({"/v1/rerank"})))
        assert setup.changes == before + 1

    run(main())

"""A worker's spans: the call under the gateway's attempt, and the engine's two phases under the call."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from neurogate.channel import End, EndCode
from neurogate.inference import Token
from neurogate.operations import CANARY_PATH
from neurogate.rpc.backend import IncomingCall
from neurogate.telemetry import concern
from neurogate.telemetry.spans import Kind
from neurogate.testing.engines import HANG, ScriptedEngine, finished
from neurogate.virtual_time import run
from trace_support import CALLER_SPAN, SAMPLED, TRACE_ID, UNSAMPLED, Spans, tracer_into
from worker_support import FakeOutlet, Setup, incoming, prompt_call


def traced(call: IncomingCall, traceparent: str = SAMPLED) -> IncomingCall:
    return replace(call, traceparent=traceparent, tracestate="a=1")


def test_a_call_hangs_under_its_attempt_and_its_phases_under_it() -> None:
    async def main() -> None:
        spans, heard = Spans(), []

        class Engine(ScriptedEngine):
            async def generate(self, prompt):  # type: ignore[no-untyped-def]
                heard.append(concern.current())
                await asyncio.sleep(2)
                yield Token("one")
                await asyncio.sleep(3)
                yield Token("two")
                yield finished()

        made = Setup(Engine(), tracer=tracer_into(spans))
        end = await made.worker.answer(traced(prompt_call(stream=True)), FakeOutlet())
        assert end.code is EndCode.ANSWERED

        call, prefill, decode = spans.one("call"), spans.one("prefill"), spans.one("decode")
        assert (call.trace_id, call.parent_id, call.kind) == (TRACE_ID, CALLER_SPAN, Kind.SERVER)
        assert {prefill.parent_id, decode.parent_id} == {call.span_id}
        assert (spans.lasted_s("prefill"), spans.lasted_s("decode"), spans.lasted_s("call")) == (2, 3, 5)
        assert prefill.end_ns == decode.start_ns
        assert decode.attributes["gen_ai.usage.output_tokens"] == 2
        assert prefill.attributes["gen_ai.usage.input_tokens"] == finished().usage.prompt_tokens
        assert call.attributes["gen_ai.operation.name"] == "text_completion"
        assert call.attributes["gen_ai.provider.name"] == made.engine.kind
        assert call.attributes["neurogate.request_id"] == "r-1"
        assert (call.attributes["neurogate.end"], call.error) == ("answered", None)
        assert heard == [concern.Concern("r-1", f"00-{TRACE_ID}-{call.span_id}-01", "a=1")]
        made.assert_idle()

    run(main())


@pytest.mark.parametrize("traceparent", [UNSAMPLED, ""])
def test_what_is_not_sampled_tells_the_engine_what_came(traceparent: str) -> None:
    async def main() -> None:
        spans, heard = Spans(), []

        class Engine(ScriptedEngine):
            async def generate(self, prompt):  # type: ignore[no-untyped-def]
                heard.append(concern.current().traceparent)
                yield finished()

        made = Setup(Engine(), tracer=tracer_into(spans, ratio=0))
        await made.worker.answer(traced(prompt_call(), traceparent), FakeOutlet())
        assert (spans, heard) == ([], [traceparent])

    run(main())


def test_a_call_that_is_taken_back_before_its_first_token_was_in_prefill() -> None:
    async def main() -> None:
        spans = Spans()
        made = Setup(ScriptedEngine(generations=lambda _: [HANG]), tracer=tracer_into(spans))
        task = asyncio.ensure_future(made.worker.answer(traced(prompt_call(stream=True)), FakeOutlet()))
        await asyncio.sleep(4)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (spans.lasted_s("prefill"), spans.lasted_s("call")) == (4, 4)
        assert (spans.one("prefill").error, spans.one("call").error) == (None, None)
        assert spans.one("call").attributes["neurogate.end"] == "cancelled"
        made.assert_idle()

    run(main())


def test_a_call_whose_time_runs_out_failed() -> None:
    async def main() -> None:
        spans = Spans()
        made = Setup(ScriptedEngine(generations=lambda _: [HANG]), tracer=tracer_into(spans))
        end = await made.worker.answer(traced(replace(prompt_call(stream=True), timeout_s=3)), FakeOutlet())
        assert end.code is EndCode.DEADLINE
        call = spans.one("call")
        assert (call.error, call.attributes["error.type"]) == (end.message, "deadline")
        assert spans.one("prefill").error == "there was no token"

    run(main())


def test_an_unstreamed_answer_without_tokens_has_no_phases() -> None:
    async def main() -> None:
        spans = Spans()
        made = Setup(ScriptedEngine(), max_requests=1, tracer=tracer_into(spans))
        made.worker.drain()
        end = await made.worker.answer(traced(incoming()), FakeOutlet())
        assert end == End(EndCode.CANCELLED, message="the worker drains")
        assert [span.name for span in spans] == ["call"]

    run(main())


def test_a_canary_is_never_traced() -> None:
    async def main() -> None:
        spans = Spans()
        made = Setup(ScriptedEngine(), tracer=tracer_into(spans))
        made.worker.drain()
        await made.worker.answer(incoming(b"", path=CANARY_PATH), FakeOutlet())
        assert spans == []

    run(main())

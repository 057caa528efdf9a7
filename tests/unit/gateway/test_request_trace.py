"""What a traced request went through, as spans: every way an attempt can go, on virtual time."""

from __future__ import annotations

import asyncio
import random

import pytest

from dataplane_support import RESUMES, turns
from gateway_support import CHAT, chat, edge
from neurogate.channel import Call, End, EndCode
from neurogate.dataplane.dispatch import DispatchLimits
from neurogate.edge.admission import Ticket
from neurogate.edge.caller import ANYBODY, Caller
from neurogate.gateway.request_trace import RequestTrace
from neurogate.inference import Usage
from neurogate.telemetry.spans import Ids, Kind, Trace
from neurogate.telemetry.trace_context import TraceContext, parse
from neurogate.testing.recovery import PlainRecovery
from neurogate.virtual_time import run
from trace_support import CALLER_SPAN, SAMPLED, TRACE_ID, UNSAMPLED, WALL_NS, Spans

GOOD = End(http_status=200, usage=Usage(3, 4, 2), finish_reason="stop")
ROOT = f"POST {CHAT}"
TRACED = [
    ("traceparent", SAMPLED),
    ("tracestate", "a=1"),
    ("tracestate", "b=2"),
    ("user-agent", "curl/8"),
    ("x-request-id", "r-1"),
]


class OverWhole:
    """A request whose client has its whole answer."""

    caller: Caller = ANYBODY
    model = ""
    status = 200
    ticket: Ticket | None = None
    request_id = "r-1"
    broken = False
    failure = ""
    usage: Usage | None = None


def test_a_request_is_a_span_with_its_pick_and_its_attempt() -> None:
    async def main() -> None:
        spans = Spans()
        async with edge(spans=spans) as made:
            client = chat(headers=TRACED, model="")
            held = await made.asked(client)
            await asyncio.sleep(2)
            held.chunk(b"data: x\n\n")
            await asyncio.sleep(3)
            held.end(GOOD)
            await turns()

        root, pick, attempt = spans.one(ROOT), spans.one("pick"), spans.one("attempt")
        assert len(spans) == 3
        assert {span.trace_id for span in spans} == {TRACE_ID}
        assert (root.kind, root.parent_id, root.error) == (Kind.SERVER, CALLER_SPAN, None)
        assert (attempt.kind, attempt.parent_id, pick.parent_id) == (Kind.CLIENT, root.span_id, root.span_id)
        assert parse(held.call.traceparent) == (TRACE_ID, attempt.span_id, True)
        assert held.call.tracestate == "a=1,b=2"
        assert client.headers["traceresponse"] == f"00-{TRACE_ID}-{root.span_id}-01"
        assert (spans.lasted_s(ROOT), spans.lasted_s("attempt"), spans.lasted_s("pick")) == (5, 5, 0)
        assert dict(root.attributes) == {
            "http.request.method": "POST",
            "http.route": CHAT,
            "url.path": CHAT,
            "url.scheme": "http",
            "network.protocol.version": "1.1",
            "client.address": "127.0.0.1",
            "user_agent.original": "curl/8",
            "http.response.status_code": 200,
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "neurogate",
            "gen_ai.request.stream": True,
            "gen_ai.response.time_to_first_chunk": 2.0,
            "gen_ai.response.finish_reasons": ("stop",),
            "gen_ai.usage.input_tokens": 3,
            "gen_ai.usage.output_tokens": 4,
            "gen_ai.usage.cache_read.input_tokens": 2,
            "neurogate.request_id": "r-1",
            "neurogate.worker_id": "worker-0",
            "neurogate.attempts": 1,
            "neurogate.resumes": 0,
        }
        assert attempt.attributes["neurogate.attempt"] == 1
        assert attempt.attributes["neurogate.end"] == "answered"
        assert [event.name for event in attempt.events] == ["first chunk"]
        assert made.entries[0].trace_id == TRACE_ID

    run(main())


@pytest.mark.parametrize("ratio_says", ["", UNSAMPLED])
def test_a_request_that_is_not_sampled_has_no_record(ratio_says: str) -> None:
    """Its caller's context goes on untouched; one without a context gets one that says so to those after it."""

    async def main() -> None:
        spans = Spans()
        async with edge(spans=spans) as made:
            for endpoint in made.endpoints.values():
                assert endpoint._tracer is not None
                endpoint._tracer.ratio = 0
            client = chat(headers=[("traceparent", ratio_says)] if ratio_says else [])
            held = await made.asked(client)
            context = parse(held.call.traceparent)
            assert context is not None
            assert not context.sampled
            assert held.call.traceparent == ratio_says or not ratio_says
            held.end(GOOD)
            await turns()
            assert "traceresponse" not in client.headers
        assert spans == []

    run(main())


def test_without_a_tracer_the_callers_context_goes_on_as_it_came() -> None:
    async def main() -> None:
        async with edge() as made:
            held = await made.asked(chat(headers=TRACED))
            assert (held.call.traceparent, held.call.tracestate) == (SAMPLED, "a=1,b=2")
            held.end(GOOD)

    run(main())


def test_a_worker_that_is_lost_before_the_first_token_is_an_attempt_that_failed() -> None:
    async def main() -> None:
        spans = Spans()
        async with edge(2, spans=spans) as made:
            client = chat(headers=TRACED)
            task = made.ask(client)
            await turns()
            first = next(channel for channel in made.data_plane.fleet.channels.values() if channel.calls)
            await asyncio.sleep(1)
            first.calls[-1].end(End(EndCode.LINK_LOST, message="it died"))
            await turns()
            second = next(
                channel for channel in made.data_plane.fleet.channels.values() if channel.calls and channel is not first
            )
            second.calls[-1].end(GOOD)
            await task

        one, two = spans.of("attempt")
        assert (one.error, one.attributes["error.type"], two.error) == ("it died", "link_lost", None)
        assert (one.attributes["neurogate.attempt"], two.attributes["neurogate.attempt"]) == (1, 2)
        assert len(spans.of("pick")) == 2
        assert spans.of("resume") == []
        assert spans.one(ROOT).error is None

    run(main())


def test_a_stream_that_is_continued_has_the_gap_that_its_client_saw() -> None:
    async def main() -> None:
        spans = Spans()
        rigged = {"recovery": PlainRecovery(), "resumes": {f"worker-{index}": RESUMES for index in range(2)}}
        async with edge(2, spans=spans, rigged=rigged) as made:
            task = made.ask(chat(headers=TRACED))
            await turns()
            first, second = made.data_plane.worker(0), made.data_plane.worker(1)
            if not first.calls:
                first, second = second, first
            first.calls[-1].chunk(b"one ")
            await asyncio.sleep(1)
            first.calls[-1].end(End(EndCode.BROKEN, message="it broke"))
            await asyncio.sleep(2)
            second.calls[-1].chunk(b"two ")
            second.calls[-1].end(GOOD)
            await task

        resume, (one, two) = spans.one("resume"), spans.of("attempt")
        assert spans.lasted_s("resume") == 2
        assert resume.start_ns == one.end_ns == two.start_ns
        assert resume.attributes == {
            "neurogate.worker_id": two.attributes["neurogate.worker_id"],
            "neurogate.broken_worker_id": one.attributes["neurogate.worker_id"],
        }
        assert (two.attributes["neurogate.resumed"], resume.error) == (True, None)
        assert spans.one(ROOT).attributes["neurogate.resumes"] == 1

    run(main())


def test_a_stream_that_nobody_continues_ends_in_an_error() -> None:
    async def main() -> None:
        spans = Spans()
        rigged = {
            "recovery": PlainRecovery(),
            "resumes": {"worker-0": RESUMES},
            "limits": DispatchLimits(resume_wait_s=4),
        }
        async with edge(spans=spans, rigged=rigged) as made:
            task = made.ask(chat(headers=TRACED))
            await turns()
            made.data_plane.worker().calls[-1].chunk(b"one ")
            made.data_plane.worker().die()
            await task

        resume, root, queue = spans.one("resume"), spans.one(ROOT), spans.one("queue")
        assert (spans.lasted_s("resume"), resume.error) == (4, "it was not continued")
        assert (queue.attributes["neurogate.waits_for"], spans.lasted_s("queue")) == ("worker", 4)
        assert (root.error, root.attributes["error.type"]) == ("stream_broken", "stream_broken")
        assert root.attributes["http.response.status_code"] == 200

    run(main())


@pytest.mark.parametrize("took_s", [0.0, 0.001])
def test_a_whole_answer_whose_worker_is_lost_at_its_end_was_not_to_be_continued(took_s: float) -> None:
    """The client had everything: only the attempt failed, however long the end of the request took."""
    now = 0.0
    spans = Spans()
    trace = RequestTrace(
        Trace(TraceContext(TRACE_ID, "", True), spans.put, ids=Ids(random.Random(1)), now=lambda: now, wall_ns=WALL_NS)
    )
    trace.looks(Call(CHAT, b"{}", stream=True, deadline=60), (), None)
    trace.asked("worker-0")
    now = 1.0
    trace.answered("worker-0")
    trace.left("worker-0", End(EndCode.LINK_LOST, message="it is gone"))
    now += took_s
    trace.over_http(OverWhole(), CHAT, {})
    assert [(span.name, span.error) for span in spans] == [("pick", None), ("attempt", "it is gone"), (ROOT, None)]


def test_a_stream_that_breaks_and_may_not_be_continued_has_no_gap() -> None:
    async def main() -> None:
        spans = Spans()
        async with edge(spans=spans) as made:
            task = made.ask(chat(headers=TRACED))
            await turns()
            made.data_plane.worker().calls[-1].chunk(b"one ")
            made.data_plane.worker().die()
            await task
        assert [span.name for span in spans] == ["pick", "attempt", ROOT]
        assert spans.one(ROOT).error == "stream_broken"

    run(main())


def test_a_client_that_leaves_while_its_stream_is_to_be_continued_ends_no_gap_in_an_error() -> None:
    async def main() -> None:
        spans = Spans()
        rigged = {"recovery": PlainRecovery(), "resumes": {"worker-0": RESUMES}}
        async with edge(spans=spans, rigged=rigged) as made:
            client = chat(headers=TRACED)
            task = made.ask(client)
            await turns()
            made.data_plane.worker().calls[-1].chunk(b"one ")
            made.data_plane.worker().die()
            await asyncio.sleep(1)
            client.connection.lose()
            await task
        assert (spans.of("resume"), spans.lasted_s("queue")) == ([], 1)
        assert spans.one(ROOT).error is None

    run(main())


def test_a_request_that_waits_for_a_worker_was_queued() -> None:
    async def main() -> None:
        spans = Spans()
        async with edge(up=False, spans=spans) as made:
            task = made.ask(chat(headers=TRACED))
            await asyncio.sleep(1)
            made.data_plane.worker().come_up()
            await turns()
            made.data_plane.worker().calls[-1].end(GOOD)
            await task

        assert (spans.lasted_s("queue"), spans.one("queue").attributes) == (1, {"neurogate.waits_for": "worker"})
        assert [span.attributes["neurogate.found"] for span in spans.of("pick")] == [False, True]

    run(main())


def test_a_request_that_waits_for_its_turn_was_queued() -> None:
    async def main() -> None:
        spans = Spans()
        async with edge(spans=spans, max_concurrent=1) as made:
            before = await made.asked(chat())
            task = made.ask(chat(headers=TRACED))
            await asyncio.sleep(3)
            before.end(GOOD)
            await turns(6)
            made.data_plane.worker().calls[-1].end(GOOD)
            await task

        queue = spans.one("queue")
        assert (spans.lasted_s("queue"), queue.attributes) == (3, {"neurogate.waits_for": "turn"})

    run(main())


def test_a_client_that_leaves_takes_its_attempt_back() -> None:
    async def main() -> None:
        spans = Spans()
        async with edge(spans=spans) as made:
            client = chat(headers=TRACED)
            task = made.ask(client)
            await turns()
            client.connection.lose()
            await task

        attempt, root = spans.one("attempt"), spans.one(ROOT)
        assert (attempt.attributes["neurogate.end"], attempt.error) == ("taken_back", None)
        assert (root.attributes["http.response.status_code"], root.error) == (499, None)

    run(main())


def test_a_refused_request_is_a_span_of_its_own() -> None:
    """An error of the client's is none of the server's."""

    async def main() -> None:
        spans = Spans()
        async with edge(spans=spans) as made:
            client = chat(headers=TRACED)
            client.scope["headers"].append((b"x-neurogate-timeout", b"soon"))
            await made.ask(client)
            assert client.status == 400
            assert client.headers["traceresponse"] == f"00-{TRACE_ID}-{spans.one(ROOT).span_id}-01"
        root = spans.one(ROOT)
        assert len(spans) == 1
        assert (root.attributes["http.response.status_code"], root.error) == (400, None)
        assert root.attributes["neurogate.attempts"] == 0

    run(main())


def test_a_hedge_is_an_attempt_beside_the_first_one() -> None:
    async def main() -> None:
        spans = Spans()
        rigged = {"limits": DispatchLimits(hedge_after_s=1, hedge_share=1)}
        async with edge(2, spans=spans, rigged=rigged) as made:
            task = made.ask(chat(headers=TRACED))
            await asyncio.sleep(1.5)
            late, fast = sorted(made.data_plane.fleet.channels.values(), key=lambda channel: channel.calls[-1].at)
            fast.calls[-1].chunk(b"data: x\n\n")
            fast.calls[-1].end(GOOD)
            await task
            assert late.calls[-1].cancelled

        one, two = spans.of("attempt")
        assert (one.attributes["neurogate.hedge"], two.attributes["neurogate.hedge"]) == (False, True)
        assert (one.attributes["neurogate.end"], two.attributes["neurogate.end"]) == ("taken_back", "answered")
        assert len(spans.of("pick")) == 1
        assert spans.one(ROOT).attributes["neurogate.worker_id"] == two.attributes["neurogate.worker_id"]

    run(main())

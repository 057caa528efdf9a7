"""Which requests are traced, and what their spans look like as plain data."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys

import pytest

from neurogate import virtual_time
from neurogate.telemetry import concern, trace_context
from neurogate.telemetry.spans import SPANS_MAX, Kind
from neurogate.telemetry.trace_context import parse, trace_id_of, well_formed, well_formed_state
from neurogate.telemetry.tracing import Tracer
from trace_support import CALLER_SPAN, SAMPLED, TRACE_ID, UNSAMPLED, WALL_NS, Spans, tracer_into

HEADER = SAMPLED.encode()


# Trace context


def test_a_trace_context_passes_as_it_came() -> None:
    assert well_formed(HEADER) == SAMPLED
    assert well_formed(b"01" + HEADER[2:]) == "01" + SAMPLED[2:]
    assert parse(SAMPLED) == (TRACE_ID, CALLER_SPAN, True)
    assert parse(UNSAMPLED) == (TRACE_ID, CALLER_SPAN, False)
    assert parse("") is None
    assert trace_id_of(SAMPLED) == TRACE_ID
    assert trace_id_of("") == ""


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"x",
        HEADER.upper(),
        HEADER + b"-more",
        HEADER[:-1],
        b"ff" + HEADER[2:],
        b"00-" + b"0" * 32 + HEADER[35:],
        HEADER[:36] + b"0" * 16 + HEADER[52:],
        HEADER + b"\n",
    ],
)
def test_what_is_no_trace_context_is_none(bad: bytes) -> None:
    assert well_formed(bad) == ""


def test_a_later_version_may_say_more_which_is_left_out() -> None:
    assert well_formed(b"cc" + HEADER[2:] + b"-what-follows") == "cc" + SAMPLED[2:]
    assert well_formed(b"cc" + HEADER[2:] + b"what-follows") == ""


def test_tracestates_become_one_within_bounds() -> None:
    assert well_formed_state([b"a=1", b"b=2"]) == "a=1,b=2"
    assert well_formed_state([]) == ""
    assert well_formed_state([b"a=" + b"1" * 511]) == ""
    assert well_formed_state(["a=ü".encode()]) == ""


# Sampling


def test_the_callers_word_decides_whatever_the_share() -> None:
    async def main() -> None:
        for ratio in (0.0, 1.0):
            tracer = tracer_into(Spans(), ratio=ratio)
            trace = tracer.begin(SAMPLED)
            assert trace is not None
            assert trace.trace_id == TRACE_ID
            assert tracer.begin(UNSAMPLED) is None

    asyncio.run(main())


def test_a_share_of_the_others_is_sampled_and_may_change() -> None:
    async def main() -> None:
        tracer = tracer_into(Spans(), ratio=0.25)
        sampled = sum(tracer.begin("") is not None for _ in range(4000))
        assert 900 < sampled < 1100
        tracer.ratio = 0.0
        assert not any(tracer.begin("") for _ in range(100))
        tracer.ratio = 1.0
        assert all(tracer.begin("") for _ in range(100))
        assert repr(tracer) == "<Tracer 1>"

    asyncio.run(main())


def test_what_is_not_sampled_tells_those_after_it() -> None:
    async def main() -> None:
        context = tracer_into(Spans(), ratio=0).unsampled()
        assert well_formed(context.encode()) == context
        found = parse(context)
        assert found is not None
        assert not found.sampled

    asyncio.run(main())


def test_ids_are_never_zero() -> None:
    class Zero(random.Random):
        def getrandbits(self, k: int, /) -> int:
            return 0

    tracer = Tracer(Spans().put, ratio=0, rng=Zero(), now=lambda: 0.0, wall_ns=lambda: WALL_NS)
    assert well_formed(tracer.unsampled().encode())


# Spans


def test_spans_hang_under_the_first_one_and_have_the_wall_clock() -> None:
    async def main() -> None:
        spans, loop = Spans(), asyncio.get_running_loop()
        trace = tracer_into(spans).begin(SAMPLED)
        assert trace is not None
        await asyncio.sleep(1)
        attempt = trace.new_id()
        event = trace.event("first chunk", loop.time(), worker="w-1")
        trace.add("inner", loop.time(), loop.time() + 0.5, attributes={"a": 1}, parent_id=attempt)
        trace.add("attempt", 0, loop.time(), attributes={}, span_id=attempt, events=(event,), error="it broke")
        assert spans == []
        assert repr(trace) == f"<Trace {TRACE_ID} 2 spans>"
        await asyncio.sleep(1)
        trace.finish("root", kind=Kind.SERVER, attributes={"b": 2})

        inner, outer, root = spans.one("inner"), spans.one("attempt"), spans.one("root")
        assert (root.parent_id, root.span_id, root.trace_id) == (CALLER_SPAN, trace.span_id, TRACE_ID)
        assert (outer.parent_id, outer.span_id, inner.parent_id) == (trace.span_id, attempt, attempt)
        assert (root.start_ns, root.end_ns) == (WALL_NS, WALL_NS + 2 * 10**9)
        assert (inner.start_ns, inner.end_ns) == (WALL_NS + 10**9, WALL_NS + 1_500_000_000)
        assert (outer.error, root.error, outer.events[0].at_ns) == ("it broke", None, WALL_NS + 10**9)
        assert trace.context_of(attempt) == f"00-{TRACE_ID}-{attempt}-01"
        assert trace_context.parse(trace.context) == (TRACE_ID, root.span_id, True)

    virtual_time.run(main())


def test_a_trace_that_begins_here_has_no_parent() -> None:
    async def main() -> None:
        spans = Spans()
        trace = tracer_into(spans).begin("")
        assert trace is not None
        trace.finish("root", kind=Kind.SERVER, attributes={})
        assert spans.one("root").parent_id == ""

    asyncio.run(main())


def test_a_request_has_so_many_spans_and_says_how_many_more_there_were() -> None:
    async def main() -> None:
        spans = Spans()
        trace = tracer_into(spans).begin(SAMPLED)
        assert trace is not None
        for _ in range(SPANS_MAX + 3):
            trace.add("attempt", 0, 0, attributes={})
        trace.finish("root", kind=Kind.SERVER, attributes={})
        assert len(spans) == SPANS_MAX + 1
        assert spans.one("root").attributes == {"neurogate.spans_left_out": 3}

    asyncio.run(main())


# Off


def test_traces_off_import_nothing_of_opentelemetry() -> None:
    code = (
        "import sys, neurogate.gateway.app, neurogate.worker.app\n"
        "assert not [name for name in sys.modules if name.startswith(('opentelemetry', 'requests'))]"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Whom it is about


def test_what_is_done_for_a_request_names_it_until_it_is_over() -> None:
    assert concern.current().fields() == {}
    assert concern.current().headers() == {}
    with concern.about("r-1", SAMPLED):
        assert concern.current().fields() == {"request_id": "r-1", "trace_id": TRACE_ID}
        assert concern.current().headers() == {"traceparent": SAMPLED}
    assert concern.current().fields() == {}


def test_a_task_may_be_about_a_request_without_the_others_being_so() -> None:
    async def one() -> None:
        concern.concern("r-2", SAMPLED, "a=1")
        await asyncio.sleep(0)
        assert concern.current().headers() == {"traceparent": SAMPLED, "tracestate": "a=1"}

    async def main() -> None:
        await asyncio.gather(one(), one())
        assert concern.current().fields() == {}

    asyncio.run(main())

"""Records survive the wire, and what the wire cannot carry never breaks it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurogate.api.v1 import worker_pb2 as pb
from neurogate.channel import End, EndCode
from neurogate.endpoint import ServedModel, WorkerReport
from neurogate.inference import Finished, Prompt, Token, Usage
from neurogate.rpc.codec import (
    end_from_wire,
    end_to_wire,
    event_to_wire,
    prompt_from_wire,
    report_from_wire,
    report_to_wire,
    usage_from_wire,
    usage_to_wire,
)

UINT32 = st.integers(0, 2**32 - 1)
UINT64 = st.integers(0, 2**64 - 1)
TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
FLOAT = st.floats(0, 1e12)
USAGES = st.builds(Usage, UINT32, UINT32, UINT32)

ENDS = st.builds(
    End,
    st.sampled_from([code for code in EndCode if code is not EndCode.LINK_LOST]),
    st.integers(0, 599),
    TEXT.filter(lambda text: text != "application/json"),
    st.binary(max_size=200),
    st.none() | USAGES,
    TEXT,
    st.none() | st.integers(1, 10**6).map(lambda ms: ms / 1000),
    TEXT,
)

MODELS = st.builds(ServedModel, TEXT, st.booleans(), UINT32, TEXT, UINT64, TEXT, UINT64, TEXT)
REPORTS = st.builds(
    WorkerReport,
    worker_id=TEXT,
    version=TEXT,
    ready=st.booleans(),
    draining=st.booleans(),
    detail=TEXT,
    engine_kind=TEXT,
    engine_version=TEXT,
    engine_restarts=UINT32,
    models=st.lists(MODELS, max_size=3).map(tuple),
    slots_total=UINT32,
    slots_busy=UINT32,
    running=UINT32,
    queued=UINT32,
    tokens_outstanding=UINT64,
    kv_used_ratio=st.none() | st.floats(0, 1, width=32),
    decode_tokens_per_s=FLOAT,
    prompt_tokens_per_s=FLOAT,
    requests_total=UINT64,
    prompt_tokens_total=UINT64,
    completion_tokens_total=UINT64,
    uptime_s=FLOAT,
    seq=UINT64,
    last_words=TEXT,
    loading=st.booleans(),
)


@given(ENDS, UINT64)
def test_an_end_survives_the_wire(end: End, ticket: int) -> None:
    message = pb.End.FromString(end_to_wire(ticket, end).SerializeToString())
    assert message.id == ticket
    assert end_from_wire(message) == end


def test_the_usual_content_type_costs_nothing() -> None:
    """Empty means application/json."""
    message = end_to_wire(1, End(http_status=200, content_type="application/json"))
    assert message.content_type == ""
    assert end_from_wire(message).content_type == ""


def test_try_again_at_once_is_not_taken_for_no_idea() -> None:
    retry_after_s = end_from_wire(end_to_wire(1, End(EndCode.BUSY, retry_after_s=0.0))).retry_after_s
    assert retry_after_s is not None
    assert retry_after_s < 0.01


def test_an_end_code_of_a_newer_worker_counts_as_internal() -> None:
    message = pb.End(id=1)
    message.code = 77  # type: ignore[assignment]
    assert end_from_wire(pb.End.FromString(message.SerializeToString())).code is EndCode.INTERNAL


def test_every_code_of_the_wire_is_known() -> None:
    codes = pb.EndCode.values()
    assert sorted(codes) == [code.value for code in EndCode if code is not EndCode.LINK_LOST]
    for code in codes:
        assert end_from_wire(pb.End(code=cast("pb.EndCode", code))).code == code


@given(REPORTS)
def test_a_report_survives_the_wire(report: WorkerReport) -> None:
    message = pb.WorkerStatus.FromString(report_to_wire(report).SerializeToString())
    assert report_from_wire(message) == report


def test_every_field_of_a_report_is_carried() -> None:
    """A field that is added to the record and forgotten on the wire would come back as its default."""
    samples: dict[str, Any] = {"str": "x", "bool": True, "int": 7, "float": 0.5, "float | None": 0.5}
    samples["frozenset[str]"] = frozenset({"/v1/rerank", "/infill"})
    models = (ServedModel("m", loaded=False, context_length=9),)
    given: dict[str, Any] = {field.name: samples.get(str(field.type), models) for field in fields(WorkerReport)}
    report = WorkerReport(**given)
    assert report_from_wire(report_to_wire(report)) == report


@given(USAGES)
def test_usage_survives_the_wire(usage: Usage) -> None:
    assert usage_from_wire(usage_to_wire(usage)) == usage


def test_token_counts_that_make_no_sense_do_not_break_the_link() -> None:
    """An engine may count anything; the link that carries everybody else's tokens must not fail for it."""
    end = end_from_wire(end_to_wire(1, End(http_status=200, usage=Usage(-1, 2**40, -(2**70)))))
    assert end.usage == Usage(0, 2**32 - 1, 0)
    report = WorkerReport(
        tokens_outstanding=10**30,
        prompt_tokens_total=-5,
        completion_tokens_total=10**30,
        slots_busy=-1,
        models=(ServedModel("m", context_length=2**40),),
    )
    seen = report_from_wire(report_to_wire(report))
    assert (seen.tokens_outstanding, seen.prompt_tokens_total, seen.slots_busy) == (2**64 - 1, 0, 0)
    assert seen.models[0].context_length == 2**32 - 1


def test_text_that_is_not_unicode_does_not_break_the_link() -> None:
    """A byte of a header that is no UTF-8 arrives in Python as a lone surrogate."""
    end = end_from_wire(end_to_wire(1, End(http_status=500, content_type="text/\udcff", message="broken \udcff")))
    assert (end.content_type, end.message) == ("text/?", "broken ?")
    seen = report_from_wire(report_to_wire(WorkerReport(detail="\ud800", models=(ServedModel("\udcff"),))))
    assert (seen.detail, seen.models[0].name) == ("?", "?")


@pytest.mark.parametrize(
    ("message", "prompt"),
    [
        (pb.GenerateRequest(prompt="Hi"), Prompt("Hi")),
        (
            pb.GenerateRequest(prompt="Hi", model="m", system_prompt="s", max_tokens=5, temperature=0.0),
            Prompt("Hi", "m", "s", 5, 0.0),
        ),
    ],
)
def test_a_prompt_keeps_what_was_not_given_apart_from_zero(message: pb.GenerateRequest, prompt: Prompt) -> None:
    assert prompt_from_wire(message) == prompt


def test_events_of_a_generation() -> None:
    token = event_to_wire(Token("Hi"), 3)
    assert (token.token.text, token.token.tokens_generated) == ("Hi", 3)
    last = event_to_wire(Finished(Usage(1, 2, 1), "length", "m", 15), 3).finished
    assert (last.finish_reason, last.model, last.inference_time_ms) == ("length", "m", 15)
    assert usage_from_wire(last.usage) == Usage(1, 2, 1)

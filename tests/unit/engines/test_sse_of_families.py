"""Streams of Anthropic's, OpenAI's Responses and llama.cpp's own API: their end, their tokens, their cost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from neurogate.engines import accounting
from neurogate.engines.sse import Ending, SseTap
from neurogate.inference import Usage
from neurogate.operations import Ending as EndMark


def event(name: str, **data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()


def data(value: Any) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


MESSAGE = [
    event("message_start", message={"usage": {"cache_read_input_tokens": 31, "input_tokens": 1, "output_tokens": 0}}),
    event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    event("ping"),
    event("content_block_delta", index=0, delta={"type": "text_delta", "text": "event: message_stop"}),
    event("content_block_delta", index=0, delta={"type": "text_delta", "text": "\nevent: message_stop\n"}),
    event("content_block_stop", index=0),
    event("message_delta", delta={"stop_reason": "max_tokens", "stop_sequence": None}, usage={"output_tokens": 2}),
    event("message_stop"),
]
RESPONSE = [
    event("response.created", response={"status": "in_progress", "error": None}),
    event("response.output_item.added", item={}),
    event("response.output_text.delta", delta="response.completed"),
    event("response.function_call_arguments.delta", delta="x"),
    event("response.output_text.done", text="response.completed"),
    event(
        "response.completed",
        response={
            "status": "completed",
            "error": None,
            "usage": {"input_tokens": 32, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 31}},
        },
    ),
]
LAST = {
    "index": 0, "content": "", "stop": True, "tokens_predicted": 2, "tokens_evaluated": 5, "stop_type": "limit",
    "timings": {"cache_n": 3},
}  # fmt: skip
NATIVE = [
    data({"index": 0, "content": '"stop":true', "stop": False}),
    data({"index": 0, "content": "b", "stop": False}),
    data(LAST),
]
WHOLE = [
    (EndMark.MESSAGE_STOP, MESSAGE, Usage(32, 2, 31), "max_tokens"),
    (EndMark.RESPONSE_COMPLETED, RESPONSE, Usage(32, 2, 31), "completed"),
    (EndMark.STOP, NATIVE, Usage(5, 2, 3), "limit"),
]
EVERY = pytest.mark.parametrize(("mark", "stream", "usage", "reason"), WHOLE, ids=lambda value: str(value)[:20])


def fed(mark: EndMark, pieces: list[bytes], *, marks: int = 1) -> tuple[SseTap, bytes]:
    tap = SseTap(mark, marks=marks)
    return tap, b"".join(tap.feed(piece) for piece in pieces)


@EVERY
def test_a_whole_stream_passes_untouched_and_is_complete(
    mark: EndMark, stream: list[bytes], usage: Usage, reason: str
) -> None:
    tap, passed = fed(mark, stream)
    assert passed == b"".join(stream)
    assert tap.events == 2
    assert tap.done
    assert tap.finish() == Ending(complete=True, error=None, usage=usage, finish_reason=reason, tokens=2)


@EVERY
def test_however_it_is_cut_into_pieces(mark: EndMark, stream: list[bytes], usage: Usage, reason: str) -> None:
    everything = b"".join(stream)
    for size in (1, 7, len(everything)):
        tap, passed = fed(mark, [everything[start : start + size] for start in range(0, len(everything), size)])
        assert (passed, tap.events) == (everything, 2)
        ending = tap.finish()
        assert (ending.complete, ending.usage, ending.finish_reason) == (True, usage, reason)


@EVERY
def test_a_stream_without_its_end_mark_is_not_complete(
    mark: EndMark, stream: list[bytes], usage: Usage, reason: str
) -> None:
    """Whatever the answer talks about, and whichever other end marks it sends."""
    tap, _ = fed(mark, [*stream[:-1], b"data: [DONE]\n\n"])
    assert not tap.finish().complete


@pytest.mark.parametrize("name", ["response.incomplete", "response.failed"])
def test_a_response_may_end_in_other_ways(name: str) -> None:
    details = {"status": name.removeprefix("response."), "incomplete_details": {"reason": "max_output_tokens"}}
    tap, passed = fed(EndMark.RESPONSE_COMPLETED, [*RESPONSE[:-1], event(name, response=details)])
    ending = tap.finish()
    assert (ending.complete, ending.error, ending.finish_reason) == (True, None, "max_output_tokens")
    assert passed.endswith(event(name, response=details))


@pytest.mark.parametrize(
    ("mark", "stream", "error"),
    [
        (EndMark.MESSAGE_STOP, MESSAGE, event("error", error={"type": "overloaded_error", "message": "no memory"})),
        (EndMark.RESPONSE_COMPLETED, RESPONSE, event("error", code="server_error", message="no memory")),
        (EndMark.STOP, NATIVE, data({"error": {"code": 500, "message": "no memory"}})),
    ],
)
def test_an_error_event_is_held_back(mark: EndMark, stream: list[bytes], error: bytes) -> None:
    tap, passed = fed(mark, [*stream[:3], error, *stream[3:]])
    assert passed == b"".join(stream[:3])
    ending = tap.finish()
    assert (ending.complete, ending.error) == (False, "no memory")


def test_every_completion_of_llamacpps_own_api_has_its_end() -> None:
    other = [data({"index": 1, "content": "c"}), data({**LAST, "index": 1, "tokens_predicted": 1})]
    assert not fed(EndMark.STOP, NATIVE, marks=2)[0].done
    tap, _ = fed(EndMark.STOP, [*NATIVE[:2], other[0], NATIVE[2], other[1]], marks=2)
    ending = tap.finish()
    assert ending.complete
    assert ending.usage == Usage(5, 3, 3)  # what passed: the engine counts each completion on its own


def test_a_stream_that_names_no_cost_is_counted_by_its_events() -> None:
    for mark, stream in ((EndMark.MESSAGE_STOP, MESSAGE[3:6]), (EndMark.RESPONSE_COMPLETED, RESPONSE[2:5])):
        ending = fed(mark, stream)[0].finish()
        assert (ending.usage, ending.tokens) == (None, 2)


def test_choices_that_are_counted_one_by_one_cost_what_passed() -> None:
    """llama.cpp reports the tokens of one choice of several."""
    chunks = [data({"choices": [{"index": index % 2, "delta": {"content": "x"}}]}) for index in range(6)]
    last = data({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 3}})
    ending = fed(EndMark.DONE, [*chunks, last, b"data: [DONE]\n\n"])[0].finish()
    assert ending.usage == Usage(3, 7)


# Whole answers


@pytest.mark.parametrize(
    ("mark", "answer", "usage", "reason"),
    [
        (
            EndMark.MESSAGE_STOP,
            {"usage": {"input_tokens": 5, "cache_creation_input_tokens": 2, "output_tokens": 4}, "stop_reason": "x"},
            Usage(7, 4),
            "x",
        ),
        (EndMark.MESSAGE_STOP, {"delta": 5}, None, ""),
        (
            EndMark.RESPONSE_COMPLETED,
            {"status": "completed", "usage": {"input_tokens": 5, "output_tokens": 4}},
            Usage(5, 4),
            "completed",
        ),
        (EndMark.RESPONSE_COMPLETED, {"status": "queued"}, None, ""),
        (EndMark.RESPONSE_COMPLETED, {"status": 5}, None, ""),
        (EndMark.STOP, LAST, Usage(5, 2, 3), "limit"),
        (EndMark.STOP, [LAST, LAST], Usage(10, 4, 6), "limit"),
        (EndMark.STOP, [], None, ""),
        (EndMark.STOP, {"content": "only", "stop": False}, None, ""),
        (EndMark.STOP, "text", None, ""),
        (EndMark.NONE, {"usage": {"prompt_tokens": 5, "total_tokens": 5}}, Usage(5, 0), ""),
        (EndMark.NONE, {"tokens": [1, 2]}, None, ""),
        (EndMark.NONE, [1], None, ""),
        (
            EndMark.DONE,
            {"choices": [{"finish_reason": "stop"}], "usage": {"prompt_tokens": 5, "completion_tokens": 3}},
            Usage(5, 3),
            "stop",
        ),
        (
            EndMark.DONE,
            {
                "choices": [{}, {"finish_reason": "length"}],
                "usage": {"prompt_tokens": 5, "completion_tokens": 3},
                "timings": {"predicted_n": 3},
            },
            Usage(5, 6),
            "length",
        ),
        (
            EndMark.DONE,
            {"choices": [{}, {}], "usage": {"prompt_tokens": 5, "completion_tokens": 3}},
            Usage(5, 3),
            "",
        ),
    ],
)
def test_what_a_whole_answer_costs(mark: EndMark, answer: Any, usage: Usage | None, reason: str) -> None:
    account = accounting.whole(mark, json.dumps(answer).encode())
    assert (account.usage, account.finish_reason) == (usage, reason)

"""Ollama's lines: whole ones pass unchanged, and the end is told truthfully."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurogate.engines.engine import EngineBrokenError
from neurogate.engines.ndjson import LINE_BYTES_MAX, NdjsonTap, summary_of
from neurogate.engines.sse import Ending
from neurogate.inference import Usage


def line(**fields: object) -> bytes:
    return json.dumps({"model": "m", "response": "", "done": False, **fields}, separators=(",", ":")).encode() + b"\n"


LAST = line(done=True, done_reason="stop", prompt_eval_count=3, eval_count=2)
WHOLE = line(response="Hel") + line(response='lo "done":true "error"') + LAST


def ended(*pieces: bytes) -> tuple[bytes, Ending]:
    tap = NdjsonTap()
    passed = b"".join([tap.feed(piece) for piece in pieces])
    return passed, tap.finish()


def test_a_whole_line_passes_as_the_very_same_object() -> None:
    piece = line(response="Hi")
    assert NdjsonTap().feed(piece) is piece


def test_a_partial_line_waits_for_its_rest() -> None:
    tap = NdjsonTap()
    whole = line(response="b")
    assert tap.feed(line(response="a") + whole[:9]) == line(response="a")
    assert tap.feed(whole[9:20]) == b""
    assert tap.feed(whole[20:]) == whole
    assert tap.events == 2


@given(cuts=st.lists(st.integers(0, len(WHOLE)), max_size=6))
def test_however_a_stream_is_cut_up_its_lines_and_its_end_are_the_same(cuts: list[int]) -> None:
    at = [0, *sorted(cuts), len(WHOLE)]
    tap = NdjsonTap()
    passed = [tap.feed(WHOLE[begin:end]) for begin, end in itertools.pairwise(at)]
    assert all(piece == b"" or piece.endswith(b"\n") for piece in passed)
    assert b"".join(passed) == WHOLE
    assert tap.events == 2
    assert tap.finish() == Ending(True, None, Usage(3, 2), "stop", 2)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_pieces_of_every_size_make_the_same_lines(size: int) -> None:
    pieces = [WHOLE[start : start + size] for start in range(0, len(WHOLE), size)]
    assert ended(*pieces) == ended(WHOLE)


@given(length=st.integers(0, len(WHOLE) - 1))
def test_a_stream_cut_anywhere_is_not_complete(length: int) -> None:
    passed, ending = ended(WHOLE[:length])
    assert not ending.complete
    assert ending.error is None
    assert WHOLE.startswith(passed)


def test_text_that_talks_about_ends_and_errors_is_text() -> None:
    said = line(message={"content": '{"done":true}\n{"error":"no"}'})
    assert ended(said) == (said, Ending(False, None, None, "", 1))


def test_arguments_of_a_tool_that_look_like_an_end_or_an_error_are_neither() -> None:
    said = line(message={"tool_calls": [{"function": {"name": "f", "arguments": {"done": True, "error": "x"}}}]})
    assert ended(said) == (said, Ending(False, None, None, "", 1))


@pytest.mark.parametrize("mark", [b'{"done":true}\n', b'{"done": true}\n', b'{ "done"\t:  true }\r\n'])
def test_the_end_is_found_however_it_is_spaced(mark: bytes) -> None:
    assert ended(line(response="a"), mark) == (line(response="a") + mark, Ending(True, None, Usage(), "", 0))


def test_an_error_is_held_back_with_all_that_follows() -> None:
    bad = b'{"error":"out of memory"}\n'
    passed, ending = ended(line(response="a") + bad + LAST, LAST)
    assert passed == line(response="a")
    assert ending == Ending(False, "out of memory", None, "", 1)


def test_an_error_without_a_message_is_one_too() -> None:
    passed, ending = ended(b'{"error":{"code":1}}\n')
    assert passed == b""
    assert ending.error == "the engine reported an error without a message"


@pytest.mark.parametrize(
    "strange", [b'"done":true "error"\n', b"<html>Bad Gateway</html>\n", b'{"response":"a\n', b"[]\n", b"{}{}\n"]
)
@pytest.mark.parametrize("before", [b"", line(response="a")])
def test_a_line_that_is_no_object_is_held_back_with_all_that_follows(strange: bytes, before: bytes) -> None:
    tap = NdjsonTap()
    assert tap.feed(before + strange + LAST) == before
    assert tap.feed(LAST) == b""
    assert tap.error is not None
    assert tap.error.startswith("something that is no event: ")
    with pytest.raises(EngineBrokenError, match="the engine sent something that is no event"):
        tap.finish()


def test_what_is_no_object_behind_the_last_line_is_left_out() -> None:
    tap = NdjsonTap()
    assert tap.feed(LAST + b"<html>\n") == LAST
    assert tap.feed(line(response="a")) == b""
    assert tap.error is None
    assert tap.finish().complete


def test_a_blank_line_passes() -> None:
    assert ended(b"\n", line(response="a") + b"\r\n" + LAST)[1].complete


def test_an_endless_line_is_broken_off() -> None:
    tap = NdjsonTap()
    tap.feed(b"x" * LINE_BYTES_MAX)
    with pytest.raises(EngineBrokenError, match=str(LINE_BYTES_MAX)):
        tap.feed(b"x")


def test_what_is_zero_is_left_out_and_counts_as_zero() -> None:
    assert ended(b'{"done":true,"eval_count":5}\n')[1].usage == Usage(0, 5)
    assert summary_of(b'{"done":true,"prompt_eval_count":null}') is not None
    assert summary_of(b"[]") is None

"""Server-sent events: whole events pass unchanged, and the end is told truthfully."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurogate.engines.engine import EngineBrokenError
from neurogate.engines.sse import EVENT_BYTES_MAX, Ending, Event, SseTap, events
from neurogate.inference import Usage

DONE = b"data: [DONE]\n\n"


def chunk(text: str | None = None, **fields: object) -> bytes:
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": fields.pop("finish_reason", None)}
    return b"data: " + json.dumps({"choices": [choice], **fields}).encode() + b"\n\n"


def ended(*pieces: bytes) -> Ending:
    tap = SseTap()
    for piece in pieces:
        tap.feed(piece)
    return tap.finish()


def test_a_whole_event_passes_as_the_very_same_object() -> None:
    piece = chunk("Hi")

    assert SseTap().feed(piece) is piece


def test_a_partial_event_waits_for_its_rest() -> None:
    tap = SseTap()

    assert tap.feed(chunk("a") + b'data: {"cho') == chunk("a")
    assert tap.feed(b'ices":[]}') == b""
    assert tap.feed(b"\n") == b""
    assert tap.feed(b"\ndata") == b'data: {"choices":[]}\n\n'


def test_carriage_returns_end_events_too_even_when_split() -> None:
    tap = SseTap()
    event = b"data: {}\r\n\r\n"

    assert [tap.feed(bytes([byte])) for byte in event] == [b""] * (len(event) - 1) + [event]
    assert tap.events == 1


def test_only_the_bytes_up_to_the_last_blank_line_pass() -> None:
    tap = SseTap()

    assert tap.feed(b"data: [1]\n\ndata: {}\r\n\r\ndata: []\n") == b"data: [1]\n\ndata: {}\r\n\r\n"
    assert tap.feed(b"\n") == b"data: []\n\n"


def test_an_endless_event_is_broken_off_at_one_mebibyte() -> None:
    tap = SseTap()
    tap.feed(b"data: " + b"x" * (EVENT_BYTES_MAX - 10))

    with pytest.raises(EngineBrokenError, match="1048576 bytes"):
        tap.feed(b"x" * 100)


def test_comments_pass_and_are_not_counted() -> None:
    tap = SseTap()

    assert tap.feed(b": ping\n\n") == b": ping\n\n"
    assert tap.events == 0
    assert tap.finish() == Ending(complete=False, error=None, usage=None, finish_reason="", tokens=0)


@pytest.mark.parametrize("mark", [DONE, b"data:[DONE]\n\n", b"data: [DONE]\r\n\r\n", chunk("x") + DONE])
def test_the_end_mark_completes_a_stream_and_is_no_event(mark: bytes) -> None:
    tap = SseTap()
    tap.feed(chunk("x"))

    tap.feed(mark)

    assert tap.done
    assert tap.finish().complete
    assert tap.events == 1 + mark.count(b"choices")


def test_text_that_talks_about_the_end_mark_does_not_end_the_stream() -> None:
    assert not ended(chunk("data: [DONE]"), chunk("\n\ndata: [DONE]\n\n")).complete


def test_a_stream_without_its_end_mark_is_cut_even_with_a_finish_reason() -> None:
    ending = ended(chunk("x"), chunk(finish_reason="stop"))

    assert (ending.complete, ending.error, ending.finish_reason) == (False, None, "stop")


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (b'data: {"error":{"message":"out of memory","code":500}}\n\n', "out of memory"),
        (b'data: {"error": "runner died"}\n\n', "runner died"),
        (b'data: {"object": "error", "message": "aborted"}\n\n', "aborted"),
        (b'event: error\ndata: {"type":"error","error":{"message":"overloaded"}}\n\n', "overloaded"),
        (b"event: error\ndata: plain words\n\n", "plain words"),
        (b'event: error\ndata: ""\n\n', "the engine reported an error without a message"),
        (b'data: {"error":{"code":5}}\n\n', "the engine reported an error without a message"),
    ],
)
def test_an_error_event_is_held_back_and_nothing_follows_it(event: bytes, message: str) -> None:
    tap = SseTap()

    assert tap.feed(chunk("a") + event + DONE) == chunk("a")
    assert tap.feed(DONE) == b""
    assert tap.error == message
    ending = tap.finish()
    assert (ending.complete, ending.error, ending.tokens) == (False, message, 1)


@pytest.mark.parametrize(
    "event",
    [
        chunk('an "error" in {"error": "text"}'),
        b'data: {"error": null, "choices": []}\n\n',
    ],
)
def test_what_only_mentions_errors_passes(event: bytes) -> None:
    tap = SseTap()

    assert tap.feed(event) == event
    assert tap.error is None
    assert tap.events == 1


def test_usage_and_finish_reason_come_from_the_last_events() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}

    ending = ended(*map(chunk, "abcdefgh"), chunk(finish_reason="length"), chunk(usage=usage), DONE)

    assert ending == Ending(complete=True, error=None, usage=Usage(9, 3, 4), finish_reason="length", tokens=3)


def test_llama_cpp_timings_stand_in_for_missing_usage() -> None:
    timings = {"cache_n": 31, "prompt_n": 1, "prompt_ms": 6.9, "predicted_n": 2, "predicted_ms": 6.8}

    ending = ended(chunk("a"), chunk("b"), chunk(finish_reason="stop", timings=timings), DONE)

    assert ending.usage == Usage(prompt_tokens=32, completion_tokens=2, cached_tokens=31)


@pytest.mark.parametrize("together", [True, False])
def test_without_usage_the_events_that_carried_content_are_counted(together: bool) -> None:
    first = b'data: {"choices":[{"delta":{"role":"assistant","content":null}}]}\n\n'
    reasoning = b'data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}\n\n'
    pieces = [first, reasoning, *map(chunk, "abcdef"), chunk(finish_reason="stop"), DONE]

    ending = ended(b"".join(pieces)) if together else ended(*pieces)

    assert (ending.tokens, ending.usage) == (7, None)


def test_completions_carry_text() -> None:
    piece = b'data: {"choices":[{"text":"a","index":0}]}\n\n'

    assert ended(piece, piece, DONE).tokens == 2


@pytest.mark.parametrize(
    "event",
    [
        b": ping\n\n",
        b":\n\n",
        b"\n\n",
        b"event: ping\nid: 1\nretry: 10\n\n",
        b"id\n\n",
        b'event: message_start\ndata: {"type": "message_start"}\n\n',
        b'data:{"a":1}\n\n',
        b'data: {"a":\ndata: 1}\n\n',
        b'data: {"a":1}\r\n\r\n',
        b': one\ndata:  {"a":1} \n\ndata: {"b":1}\n\n',
        b'data: [{"index":0}]\n\n',
        b'data: {"half": "\\ud83d"}\n\n',
        'data: {"said": "ü"}\n\n'.encode(),
    ],
)
def test_whatever_engines_say_that_is_an_event_passes(event: bytes) -> None:
    tap = SseTap()

    assert tap.feed(event) == event
    assert tap.error is None


NO_EVENTS = [
    b"<html>Bad Gateway</html>\n\n",
    b'data: {"choices":[{"delta":{"con\n\n',
    b'data: {"a":1}{"b":2}\n\n',
    b'data: {"a":1}\ndata: {"b":2}\n\n',
    b'data: {"a":\n1}\n\n',
    b'data: {"a":\r1}\n\n',
    b'data:  {"a":\r1}\n\n',
    b'data: {"said": "\xff"}\n\n',
    b"data: not json\n\n",
    b'data: "words"\n\n',
    b"data: 5\n\n",
    b"data:\n\n",
    b"data\n\n",
    b"data: [DONE] or not\n\n",
    b"data: " + b"[" * 100_000 + b"\n\n",
    b'{"error": "of an old llama.cpp"}\n\n',
]


@pytest.mark.parametrize("strange", NO_EVENTS, ids=lambda event: str(event[:24]))
@pytest.mark.parametrize("before", [b"", chunk("a"), b": ping\r\n\r\n" + chunk("a")], ids=len)
def test_what_is_no_event_is_held_back_and_nothing_follows_it(strange: bytes, before: bytes) -> None:
    tap = SseTap()

    assert tap.feed(before + strange + DONE) == before
    assert tap.feed(DONE) == b""
    assert tap.events == before.count(b"data:")
    assert tap.error is not None
    assert tap.error.startswith("something that is no event: ")
    assert len(tap.error) < 500
    with pytest.raises(EngineBrokenError, match="the engine sent something that is no event: "):
        tap.finish()


@pytest.mark.parametrize("strange", NO_EVENTS, ids=lambda event: str(event[:24]))
def test_what_is_no_event_is_held_back_when_it_comes_alone(strange: bytes) -> None:
    tap = SseTap()

    assert tap.feed(chunk("a")) == chunk("a")
    assert tap.feed(strange) == b""
    assert tap.feed(chunk("b")) == b""
    with pytest.raises(EngineBrokenError, match="the engine sent something that is no event: "):
        tap.finish()


def test_an_error_behind_what_is_no_event_is_not_believed() -> None:
    tap = SseTap()

    assert tap.feed(b"<html>\n\n" + b'data: {"error": "out of memory"}\n\n') == b""
    with pytest.raises(EngineBrokenError, match="<html>"):
        tap.finish()


def test_what_is_no_event_behind_the_end_mark_is_left_out() -> None:
    tap = SseTap()

    assert tap.feed(chunk("a") + DONE + b"<html>\n\n") == chunk("a") + DONE
    assert tap.feed(b": ping\n\n") == b""
    assert tap.error is None
    assert tap.finish().complete


def test_null_usage_and_null_deltas_count_as_absent() -> None:
    ending = ended(chunk("a", usage=None), b'data: {"choices":[{"delta":null}]}\n\n', DONE)

    assert (ending.usage, ending.tokens, ending.complete) == (None, 1, True)


def test_events_are_decoded_with_their_names_and_joined_data() -> None:
    whole = b": ping\n\nevent: delta\nid: 1\ndata:a\ndata: b\n\n\r\ndata: c\r\n\r\nevent: empty\n\n"

    assert list(events(whole)) == [Event("delta", b"a\nb"), Event("", b"c")]


@given(
    texts=st.lists(st.text(min_size=1, max_size=20), max_size=12),
    cuts=st.lists(st.integers(min_value=1, max_value=40), max_size=60),
    newline=st.sampled_from([b"\n", b"\r\n"]),
)
def test_however_a_stream_is_cut_into_pieces_it_passes_whole(texts: list[str], cuts: list[int], newline: bytes) -> None:
    stream = b"".join([*map(chunk, texts), DONE]).replace(b"\n", newline)
    tap = SseTap()
    passed = []
    rest = stream
    for cut in [*cuts, len(stream)]:
        piece, rest = rest[:cut], rest[cut:]
        passed.append(tap.feed(piece))
        assert passed[-1] == b"" or passed[-1].endswith(newline * 2)

    assert b"".join(passed) == stream
    assert tap.finish().complete
    assert tap.events == len(texts)
    assert tap.finish().tokens == len(texts)


def test_llama_cpp_says_null_between_several_completions() -> None:
    tap = SseTap()
    whole = b'data: null\n\ndata: {"choices":[]}\n\n'
    assert tap.feed(whole) == whole
    assert tap.error is None


SHAPES = [
    chunk("a"),
    chunk('an "error": is told, [DONE] or not'),
    chunk("", finish_reason="stop"),
    chunk("é"),
    b'data:{"choices":[]}\n\n',
    b'data: {"usage":{"prompt_tokens":3,"completion_tokens":2},"choices":[]}\n\n',
    b'data: {"choices":\ndata: []}\n\n',
    b'id: 1\ndata: {"choices":[]}\n\n',
    b"data: [1]\n\n",
    b"data: null\n\n",
    b": comment\n\n",
    b"\n\n",
    b"event: ping\n\n",
    b'data: {"error":{"message":"no"}}\n\n',
    b'data: {"error":null,"choices":[]}\n\n',
    b'data: {"object":"error","message":"not at all"}\n\n',
    b'data: {"object":1}\n\n',
    b'data: {"a":\n1}\n\n',
    b'event: error\ndata: {"message":"worse"}\n\n',
    b"data: {\n\n",
    b'data: {"a":"\xff"}\n\n',
    b"data: {} {}\n\n",
    b"data: word\n\n",
    b"word\n\n",
]
ENDS = [[], [DONE], [b"data:[DONE]\n\n"], [DONE, b": bye\n\n"], [DONE, b"word\n\n"]]


def told(*pieces: bytes) -> tuple[bytes, object]:
    """What passed of a stream, and what it amounted to; of tokens that nobody counted there are only guesses."""
    tap = SseTap()
    passed = b"".join(tap.feed(piece) for piece in pieces)
    try:
        ending = tap.finish()
    except EngineBrokenError:
        return passed, None
    return passed, (ending.complete, ending.error, ending.usage, ending.finish_reason)


@given(st.lists(st.sampled_from(SHAPES), max_size=4), st.sampled_from(ENDS))
def test_events_that_arrive_alone_are_read_as_those_that_arrive_together(said: list[bytes], end: list[bytes]) -> None:
    """One event of one line takes a shorter way through the tap than several, and those than ones with returns."""
    pieces = said + end
    alone = told(*pieces)

    assert told(b"".join(pieces)) == alone
    with_returns = b"".join(pieces).replace(b"\n", b"\r\n")
    passed, ending = told(with_returns[:1], with_returns[1:]) if with_returns else told()
    assert (passed.replace(b"\r\n", b"\n"), ending) == alone
    whole = b"".join(pieces)
    assert list(events(whole)) == list(events(whole.replace(b"\n", b"\r\n")))

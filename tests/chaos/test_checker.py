"""The checker sees every kind of lie, takes no honest answer for one, and no lie for honest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from chaos_support.checker import APIS, Api, Kind, Received, judge, judge_messages
from chaos_support.crafted import (
    EXPECTED,
    PIECES,
    error_event,
    refusal,
    stream_events,
    token_messages,
    whole_body,
)

STREAMS = [name for name, api in APIS.items() if api.streams]
WHOLES = [name for name, api in APIS.items() if not api.streams]


def heard(api: Api, body: bytes, *, complete: bool = True, status: int = 200) -> Received:
    return Received(status, {"content-type": api.media_type}, body, complete)


def verdict(name: str, events: list[bytes], *, complete: bool = True) -> tuple[Kind, str]:
    api = APIS[name]
    told = judge(api, heard(api, b"".join(events), complete=complete), EXPECTED)
    return told.kind, told.why


def test_judges_share_no_code_with_what_they_judge() -> None:
    for module in ("answers", "checker", "client", "crafted"):
        source = Path(__file__).parents[1] / "chaos_support" / f"{module}.py"
        assert "import neurogate" not in source.read_text()
        assert "from neurogate" not in source.read_text()


@pytest.mark.parametrize("name", STREAMS)
def test_a_whole_stream_is_whole(name: str) -> None:
    assert verdict(name, stream_events(name)) == (Kind.WHOLE, "")


@pytest.mark.parametrize("name", [name for name in STREAMS if not name.startswith("ollama")])
def test_comments_are_no_part_of_an_answer(name: str) -> None:
    events = [b": waiting\n\n" + event for event in stream_events(name)]
    assert verdict(name, events) == (Kind.WHOLE, "")


@pytest.mark.parametrize("name", STREAMS)
def test_tokens_may_come_together(name: str) -> None:
    if name.startswith("prompt"):
        events = stream_events(name)
        events[:2] = [events[1].replace(b'" Some"', b'"[sim] Some"')]
    else:
        events = stream_events(name, [PIECES[0] + PIECES[1], *PIECES[2:]])
    assert verdict(name, events) == (Kind.WHOLE, "")


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("cut", [1, 3])
def test_a_visible_cut_and_an_error_event_are_honest(name: str, cut: int) -> None:
    events = stream_events(name)[:-cut] if cut == 3 else stream_events(name)[:-1]
    assert verdict(name, events, complete=False)[0] is Kind.HONEST
    assert verdict(name, [*events, error_event(name)])[0] is Kind.HONEST
    half = [*events, stream_events(name)[2][:-9]]
    assert verdict(name, half, complete=False)[0] is Kind.HONEST


@pytest.mark.parametrize("name", STREAMS)
def test_a_cut_within_a_character_is_honest(name: str) -> None:
    body = b"".join(stream_events(name)).decode().replace("\\u201c", "“").encode()
    within = body.index("“".encode()) + 1
    api = APIS[name]
    assert judge(api, heard(api, body[:within], complete=False), EXPECTED).kind is Kind.HONEST
    assert judge(api, heard(api, body[:within] + b'x"}'), EXPECTED).kind is Kind.LIE


def text_event(name: str, index: int) -> int:
    """Where in the stream the piece of that index is."""
    return index + (1 if name.startswith("chat") else 0)


LIES: dict[str, Callable[[str, list[bytes]], list[bytes]]] = {
    "a piece is missing": lambda name, e: [*e[: text_event(name, 2)], *e[text_event(name, 3) :]],
    "a piece is repeated": lambda name, e: [*e[: text_event(name, 3)], *e[text_event(name, 2) :]],
    "pieces are swapped": lambda name, e: [
        *e[: text_event(name, 2)],
        e[text_event(name, 3)],
        e[text_event(name, 2)],
        *e[text_event(name, 4) :],
    ],
    "a letter is wrong": lambda _, e: [event.replace(b"[sim]", b"[sin]") for event in e],
    "no end mark": lambda _, e: e[:-1],
    "cut, with an end mark": lambda name, e: [*e[: text_event(name, 3)], e[-1]],
    "two end marks": lambda _, e: [*e, e[-1]],
    "something behind the end": lambda name, e: [*e, e[text_event(name, 1)]],
    "an error behind the end": lambda name, e: [*e, error_event(name)],
    "an end mark behind an error": lambda name, e: [*e[: text_event(name, 3)], error_event(name), e[-1]],
    "text behind an error": lambda name, e: [
        *e[: text_event(name, 3)],
        error_event(name),
        e[text_event(name, 3)],
    ],
    "half an event at the end": lambda _, e: [*e[:-1], e[0][:-7]],
    "garbage": lambda name, e: [*e[: text_event(name, 3)], b"data: {\n\n" if e[0][:1] == b"d" else b"{\n"],
    "html": lambda _, e: [b"<html>\n\n"],
    "nothing": lambda _, e: [],
    "another finish reason": lambda _, e: [event.replace(b'"length"', b'"stop"') for event in e],
    "another's identity from here": lambda name, e: [
        *e[: text_event(name, 3)],
        *(
            event.replace(b'"id": "one"', b'"id": "two"')
            .replace(b'"request_id": "r"', b'"request_id": "s"')
            .replace(b'"model": "m"', b'"model": "n"')
            for event in e[text_event(name, 3) :]
        ),
    ],
    "another shape from here": lambda name, e: [
        *e[: text_event(name, 3)],
        *(event.replace(b'{"', b'{"new": 1, "', 1) for event in e[text_event(name, 3) :]),
    ],
    "failed, and wrong before": lambda name, e: [
        *e[: text_event(name, 2)],
        e[text_event(name, 3)],
        error_event(name),
    ],
}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("lie", LIES)
def test_a_lying_stream_is_a_lie(name: str, lie: str) -> None:
    lying = LIES[lie](name, stream_events(name))
    assert lying != stream_events(name)
    assert verdict(name, lying)[0] is Kind.LIE


@pytest.mark.parametrize("name", [name for name in STREAMS if "without" not in name])
def test_wrong_usage_is_a_lie(name: str) -> None:
    events = stream_events(name)
    for right, wrong in [
        (b"29", b"30"),
        (b'completion_tokens": 6', b'completion_tokens": 3'),
        (b'eval_count": 6', b'eval_count": 3'),
        (b'"total_tokens": 35', b'"total_tokens": 29'),
        (b'"tokens": 35', b'"tokens": 29'),
    ]:
        lying = [event.replace(right, wrong) for event in events]
        if lying != events:
            assert verdict(name, lying)[0] is Kind.LIE, right


@pytest.mark.parametrize("name", [name for name in STREAMS if "without" not in name and name[0] == "c"])
def test_usage_twice_never_or_uncalled_for_is_a_lie(name: str) -> None:
    events = stream_events(name)
    assert verdict(name, [*events[:-1], events[-2], events[-1]])[0] is Kind.LIE
    assert verdict(name, [*events[:-2], events[-1]])[0] is Kind.LIE
    assert verdict(f"{name} without usage", events)[0] is Kind.LIE


@pytest.mark.parametrize("name", [name for name in STREAMS if name[0] == "c"])
def test_two_finish_reasons_and_text_behind_one_are_lies(name: str) -> None:
    events = stream_events(name)
    at = next(index for index, event in enumerate(events) if b'"length"' in event)
    assert verdict(name, [*events[: at + 1], events[at], *events[at + 1 :]])[0] is Kind.LIE
    assert verdict(name, [*events[: at - 1], events[at], events[at - 1], *events[at + 1 :]])[0] is Kind.LIE
    assert verdict(name, [*events[:at], *events[at + 1 :]])[0] is Kind.LIE


@pytest.mark.parametrize("name", [name for name in STREAMS if name[0] == "c"])
@pytest.mark.parametrize("other", [b'"system_fingerprint": "g"', b'"more": "f"'])
def test_a_fingerprint_that_changes_or_goes_away_is_a_lie(name: str, other: bytes) -> None:
    events = stream_events(name)
    lying = [*events[:3], *(event.replace(b'"system_fingerprint": "f"', other) for event in events[3:])]
    assert verdict(name, lying)[0] is Kind.LIE


def test_a_role_told_again_is_a_lie() -> None:
    events = stream_events("chat stream")
    assert verdict("chat stream", [*events[:3], events[0], *events[3:]])[0] is Kind.LIE


def test_a_count_that_goes_back_is_a_lie() -> None:
    events = stream_events("prompt stream")
    lying = [*events[:3], events[3].replace(b'"tokens_generated": 4', b'"tokens_generated": 1'), *events[4:]]
    assert verdict("prompt stream", lying)[0] is Kind.LIE


@pytest.mark.parametrize("name", WHOLES)
def test_an_unstreamed_answer(name: str) -> None:
    api = APIS[name]
    body = whole_body(name)
    assert judge(api, heard(api, body), EXPECTED).kind is Kind.WHOLE
    assert judge(api, heard(api, body[:-3], complete=False), EXPECTED).kind is Kind.HONEST
    for lying in [
        body[:-3],
        b"",
        b"[]",
        b"{}",
        body.replace(b" hears", b""),
        body.replace(b"[sim]", b"[sim][sim]"),
        body.replace(b"29", b"28"),
        body.replace(b'"length"', b'"stop"'),
        refusal(name),
    ]:
        assert judge(api, heard(api, lying), EXPECTED).kind is Kind.LIE, lying


@pytest.mark.parametrize("name", APIS)
def test_refusals(name: str) -> None:
    api = APIS[name]
    assert judge(api, heard(api, refusal(name), status=503), EXPECTED).kind is Kind.HONEST
    for status, body in [(503, b"no"), (503, b"{}"), (503, b"[]"), (204, b""), (201, refusal(name))]:
        assert judge(api, heard(api, body, status=status), EXPECTED).kind is Kind.LIE
    assert judge(api, Received(), EXPECTED).kind is Kind.HONEST
    assert judge(api, Received(200, timed_out=True), EXPECTED).kind is Kind.SILENT
    other = Received(200, {"content-type": "text/plain"}, b"".join(stream_events(name)), complete=True)
    assert judge(api, other, EXPECTED).kind is Kind.LIE


def test_messages_of_grpc() -> None:
    def told(messages: list[bytes], *, failed: str = "") -> Kind:
        received = Received(200, complete=not failed, failed=failed, messages=messages)
        return judge_messages(received, EXPECTED).kind

    right = token_messages()
    assert told(right) is Kind.WHOLE
    assert told(right[:3], failed="UNAVAILABLE: gone") is Kind.HONEST
    assert told([], failed="UNAVAILABLE: gone") is Kind.HONEST
    for lying in [
        [],
        right[:-1],
        [*right[:2], *right[3:]],
        [*right[:3], *right[2:]],
        [*right, right[-1]],
        [*right, right[0]],
        [*right[:3], *token_messages(request=b"s")[3:]],
        [*right[:-1], right[-1].replace(b"\x30\x06", b"\x30\x03")],
        [*right[:2], right[2][:-3], *right[3:]],
        [message.replace(b"[sim]", b"[sin]") for message in right],
    ]:
        assert told(lying) is Kind.LIE, lying
    assert told(right, failed="UNAVAILABLE: after its end") is Kind.LIE
    assert told([right[0], right[2]], failed="UNAVAILABLE: gone") is Kind.LIE


def test_the_reason_tells_what_kind_of_lie() -> None:
    def why(pieces: list[str]) -> str:
        api = APIS["chat stream"]
        body = b"".join(stream_events("chat stream", pieces))
        return judge(api, heard(api, body), EXPECTED, lambda text: "number 7" if text == " 7" else "").why

    assert why(PIECES[:3]).startswith("truncated: 16 of 35")
    assert why([*PIECES[:3], *PIECES[2:]]).startswith("text repeated or inserted at character 17")
    assert why([*PIECES, " more"]).startswith("goes on past its end")
    assert why(["[sim]", " odd"]).startswith("text differs at character 6")
    assert why([" 7"]) == "another's text: number 7"

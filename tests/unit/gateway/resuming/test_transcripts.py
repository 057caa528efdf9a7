"""What transcripts make of the bytes that engines send, and of bytes that they do not understand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from neurogate.channel import Call, Resume
from neurogate.dataplane.recovery import CannotResumeError, Transcript
from neurogate.gateway.resuming import Transcripts
from neurogate.gateway.resuming.framing import EVENT_BYTES_MAX
from neurogate.gateway.resuming.transcript import TEXT_BYTES_MAX

CHAT, TEXT, PROMPT = "/v1/chat/completions", "/v1/completions", "/prompt"
GENERATE, OLLAMA_CHAT = "/api/generate", "/api/chat"
DONE = b"data: [DONE]\n\n"


def begin(path: str) -> Transcript:
    return Transcripts().transcript(Call(path, b"{}", stream=True, deadline=1.0))


def read(path: str, *chunks: bytes) -> Resume | None:
    transcript = begin(path)
    transcript.take(chunks)
    return transcript.resume()


def refusal(path: str, *chunks: bytes) -> str:
    with pytest.raises(CannotResumeError) as told:
        read(path, *chunks)
    return str(told.value)


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join([b"data: " + json.dumps(event).encode() + b"\n\n" for event in events])


def lines(*objects: dict[str, Any]) -> bytes:
    return b"".join([json.dumps(each).encode() + b"\n" for each in objects])


# llama.cpp, as recorded.

LLAMA = {"created": 1763740800, "id": "chatcmpl-x1", "model": "smol", "system_fingerprint": "b1", "object": "o"}
LLAMA_CHAT = [
    {"choices": [{"finish_reason": None, "index": 0, "delta": {"role": "assistant", "content": None}}], **LLAMA},
    {"choices": [{"finish_reason": None, "index": 0, "delta": {"content": "The"}}], **LLAMA},
    {"choices": [{"finish_reason": None, "index": 0, "delta": {"content": " sky"}}], **LLAMA},
    {"choices": [{"finish_reason": "stop", "index": 0, "delta": {}}], **LLAMA},
    {"choices": [], **LLAMA, "usage": {"completion_tokens": 3, "prompt_tokens": 9}, "timings": {"predicted_n": 3}},
]
LLAMA_TEXT = [
    {"choices": [{"text": "The", "index": 0, "logprobs": None, "finish_reason": None}], **LLAMA},
    {"choices": [{"text": " sky", "index": 0, "logprobs": None, "finish_reason": None}], **LLAMA},
    {
        "choices": [{"text": "", "index": 0, "logprobs": None, "finish_reason": "length"}],
        **LLAMA,
        "timings": {"predicted_n": 2},
    },
]

# vLLM: every field is there, usage is null until the end.

VLLM = {"id": "chatcmpl-v1", "object": "chat.completion.chunk", "created": 1763740801, "model": "/models/qwen"}
VLLM_CHAT = [
    {
        **VLLM,
        "choices": [
            {
                "index": 0,
                "delta": {"role": "assistant", "content": "", "reasoning_content": None},
                "logprobs": None,
                "finish_reason": None,
            }
        ],
        "prompt_token_ids": None,
        "usage": None,
    },
    {
        **VLLM,
        "choices": [
            {
                "index": 0,
                "delta": {"content": "The", "reasoning": None, "tool_calls": []},
                "logprobs": None,
                "finish_reason": None,
                "token_ids": None,
            }
        ],
    },
    {
        **VLLM,
        "choices": [
            {"index": 0, "delta": {"content": " sky"}, "logprobs": None, "finish_reason": "stop", "stop_reason": None}
        ],
    },
    {**VLLM, "choices": [], "usage": {"prompt_tokens": 9, "total_tokens": 11, "completion_tokens": 2}},
]


@pytest.mark.parametrize("events", [LLAMA_CHAT, VLLM_CHAT], ids=["llama.cpp", "vLLM"])
def test_a_chat_is_read_up_to_any_event(events: list[dict[str, Any]]) -> None:
    about = Resume(
        "",
        completion_id=events[0]["id"],
        created=events[0]["created"],
        model=events[0]["model"],
        system_fingerprint=events[0].get("system_fingerprint", ""),
    )
    said = [
        "".join(choice["delta"].get("content") or "" for event in events[:cut] for choice in event["choices"])
        for cut in range(len(events) + 1)
    ]
    assert said[-1] == "The sky"
    read_back = [read(CHAT, sse(*events[:cut])) for cut in range(len(events) + 1)]
    assert read_back[0] == Resume("")
    assert read_back[1] == about
    assert [resume.text for resume in read_back if resume is not None] == said
    assert [resume.tokens for resume in read_back if resume is not None] == [len(text.split()) for text in said]
    finished = next(cut for cut, event in enumerate(events) if event["choices"][0]["finish_reason"])
    assert [resume.finish_reason for resume in read_back if resume is not None] == [
        "stop" if cut > finished else "" for cut in range(len(events) + 1)
    ]
    last = msgspec.structs.replace(
        about, text="The sky", tokens=2, lengths=b"\3\4", finish_reason="stop", usage_sent=True
    )
    assert read_back[-1] == last
    assert read(CHAT, sse(*events), DONE) is None


def test_a_text_completion_is_read_up_to_its_end() -> None:
    about = {"completion_id": "chatcmpl-x1", "created": 1763740800, "model": "smol", "system_fingerprint": "b1"}
    assert read(TEXT, sse(*LLAMA_TEXT[:1])) == Resume("The", 1, **about, lengths=b"\3")
    assert read(TEXT, sse(*LLAMA_TEXT)) == Resume("The sky", 2, lengths=b"\3\4", **about, finish_reason="length")
    assert read(TEXT, sse(*LLAMA_TEXT) + DONE) is None


def test_usage_that_is_kept_up_to_date_is_the_last_word_only_with_the_finish_reason() -> None:
    running, ended = (
        {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": reason}], "usage": {"total_tokens": 1}}
        for reason in (None, "stop")
    )
    assert read(CHAT, sse(running)) == Resume("x", 1, lengths=b"\1")
    assert read(CHAT, sse(running, ended)) == Resume("xx", 2, lengths=b"\1\1", finish_reason="stop", usage_sent=True)


def test_timings_are_no_usage() -> None:
    ended = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "timings": {"predicted_n": 4}}
    assert read(CHAT, sse(ended)) == Resume("", finish_reason="stop")


def token(text: str, count: int = 1) -> dict[str, Any]:
    return {"request_id": "r1", "token": text, "tokens_generated": count, "done": False}


PROMPT_END = {
    "request_id": "r1",
    "model": "smol",
    "finish_reason": "stop",
    "tokens": 5,
    "prompt_tokens": 3,
    "completion_tokens": 2,
    "inference_time_ms": 7,
    "done": True,
}


def test_a_prompt_is_read_up_to_its_end() -> None:
    assert read(PROMPT, sse(token("The", 1), token(" sky", 2))) == Resume(
        "The sky", 2, lengths=b"\3\4", completion_id="r1"
    )
    assert read(PROMPT, sse(token("The", 1)), sse(PROMPT_END)) is None


def generated(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "smol:135m", "created_at": "2026-11-21T10:00:00Z", "response": text, "done": False, **more}


def chatted(text: str, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {"model": "smol:135m", "created_at": "2026-11-21T10:00:00Z", "message": message, "done": False, **more}


ACCOUNT = {"done": True, "done_reason": "stop", "total_duration": 5, "eval_count": 2, "context": [1, 2]}


@pytest.mark.parametrize(("path", "line"), [(GENERATE, generated), (OLLAMA_CHAT, chatted)])
def test_ollamas_lines_are_read_up_to_the_last(path: str, line: Any) -> None:
    said = lines(line("The"), line(""), line(" sky"))
    assert read(path, said) == Resume("The sky", 2, lengths=b"\3\4", model="smol:135m")
    assert read(path, said, lines(line("", **ACCOUNT))) is None
    assert read(path, said, lines({"model": "smol:135m", **ACCOUNT})) is None
    with pytest.raises(CannotResumeError, match="not of this API"):
        read(path, lines({"model": "smol:135m", "done": False}))


def test_comments_line_ends_and_pieces_make_no_difference() -> None:
    event = json.dumps(LLAMA_CHAT[1]).encode()
    expected = read(CHAT, sse(LLAMA_CHAT[1]))
    assert expected is not None
    assert read(CHAT, b": ping\n\n", b"data: " + event + b"\r\n\r\n", b":\n\n") == expected
    assert read(CHAT, b"data:" + event + b"\n\n") == expected
    assert read(CHAT, b"data: " + event[:20], event[20:] + b"\n", b"\n") == expected
    split = event.index(b",") + 1
    assert read(CHAT, b"data: " + event[:split] + b"\ndata: " + event[split:] + b"\n\n") == expected


def test_half_an_event_is_not_taken_for_a_whole_one() -> None:
    whole = sse(LLAMA_CHAT[1])
    for cut in (1, 10, len(whole) - 2, len(whole) - 1):
        assert refusal(CHAT, whole[:cut]) == "its last event came in part only"
    assert refusal(GENERATE, lines(generated("x"))[:-1]) == "its last event came in part only"


def test_what_comes_after_a_break_is_read_on_to_the_next_one() -> None:
    transcript = begin(CHAT)
    transcript.take([sse(*LLAMA_CHAT[:2])])
    first = transcript.resume()
    transcript.take([sse({"choices": [{"index": 0, "delta": {"content": " blue"}}], **LLAMA, "model": "other"})])
    second = transcript.resume()
    assert first == Resume("The", 1, "chatcmpl-x1", 1763740800, "smol", lengths=b"\3", system_fingerprint="b1")
    assert second == msgspec.structs.replace(first, text="The blue", tokens=2, lengths=b"\3\5")


def choice(**more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, **more}]}


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (choice(delta={"reasoning_content": "Hm"}), "it has reasoning beside its text"),
        (choice(delta={"reasoning": "Hm", "content": "x"}), "it has reasoning beside its text"),
        (choice(delta={"thinking": "Hm"}), "it has reasoning beside its text"),
        (choice(delta={"tool_calls": [{"index": 0}]}), "it calls tools"),
        (choice(delta={"function_call": {"name": "f"}}), "it calls tools"),
        (choice(delta={"refusal": "I won't"}), "it is a refusal"),
        (choice(delta={"audio": {"id": "a"}}), "it has 'audio' beside its text"),
        (choice(delta={"content": [{"type": "text"}]}), "it says something that is no text"),
        (choice(delta={"content": "x"}, logprobs={"content": []}), "it has logprobs"),
        (choice(finish_reason="tool_calls"), "it finished with 'tool_calls'"),
        (choice(finish_reason="abort"), "it finished with 'abort'"),
        ({"choices": [{"index": 1, "delta": {"content": "x"}}]}, "it has several answers"),
        ({"choices": [{"index": 0}, {"index": 0}]}, "it has several answers"),
        ({"error": {"message": "out of memory"}, "choices": []}, "it reports an error"),
        ({"error": {"message": "out of memory"}}, "its stream has an event that is not of this API"),
        ({"choices": [{"index": "0"}]}, "its stream has an event that is not of this API"),
    ],
)
def test_a_chat_with_more_than_text_is_not_continued(event: dict[str, Any], why: str) -> None:
    assert refusal(CHAT, sse(LLAMA_CHAT[1]), sse(event)) == why


@pytest.mark.parametrize(
    ("path", "line", "why"),
    [
        (GENERATE, generated("", thinking="Hm"), "it has reasoning beside its text"),
        (GENERATE, generated("x", logprobs=[{}]), "it has logprobs"),
        (GENERATE, generated("", image="aGk="), "it has 'image' beside its text"),
        (GENERATE, generated("", error="out of memory"), "it reports an error"),
        (GENERATE, {"response": 5}, "it says something that is no text"),
        (OLLAMA_CHAT, {"message": {"content": "", "thinking": "Hm"}}, "it has reasoning beside its text"),
        (OLLAMA_CHAT, {"message": {"content": "", "tool_calls": [{}]}}, "it calls tools"),
        (OLLAMA_CHAT, {"message": {"content": "", "images": ["aGk="]}}, "it has 'images' beside its text"),
    ],
)
def test_a_line_with_more_than_text_is_not_continued(path: str, line: dict[str, Any], why: str) -> None:
    assert refusal(path, lines(line)) == why


@pytest.mark.parametrize(
    ("path", "bytes_", "why"),
    [
        (CHAT, b"data: {\n\n", "its stream has an event that is not of this API"),
        (CHAT, b"data: []\n\n", "its stream has an event that is not of this API"),
        (CHAT, b'data: {"choices":[{"text":"\xff"}]}\n\n', "its stream has an event that is not of this API"),
        (CHAT, b"data: " + b"[" * 100_000 + b"\n\n", "its stream has an event that is not of this API"),
        (CHAT, b"event: error\ndata: {}\n\n", "its stream has a line that is not of this API"),
        (CHAT, b"Internal Server Error\n", "its stream has a line that is not of this API"),
        (CHAT, DONE + DONE, "its stream goes on after its end"),
        (PROMPT, b'data: {"done": true}\n\n', "its stream has an event that is not of this API"),
        (PROMPT, b'data: {"done": false, "error": "x"}\n\n', "its stream has an event that is not of this API"),
        (GENERATE, b"[]\n", "its stream has an event that is not of this API"),
        (GENERATE, b'{"done":true}\n{"done":true}\n', "its stream goes on after its end"),
    ],
)
def test_what_is_not_understood_is_not_continued(path: str, bytes_: bytes, why: str) -> None:
    assert refusal(path, bytes_) == why


PLAIN: dict[str, dict[str, Any]] = {
    CHAT: {**LLAMA, "choices": [{"index": 0, "delta": {"content": "x"}}]},
    TEXT: {**LLAMA, "choices": [{"index": 0, "text": "x"}]},
    PROMPT: token("x"),
    GENERATE: generated("x"),
    OLLAMA_CHAT: chatted("x"),
}
FIELDS = [
    *("choices", "delta", "content", "text", "index", "finish_reason", "logprobs", "usage", "id", "created", "model"),
    *("message", "response", "done", "error", "thinking", "tool_calls", "request_id", "token", "tokens_generated"),
    *("role", "reasoning_content", "reasoning", "function_call", "refusal", "image", "images", "system_fingerprint"),
    "audio",
]
VALUES = [None, "", "x", "stop", 0, 1, 2.5, True, False, [], [1], [{}], {}, {"content": "x"}, {"a": 1}, "x" * 300]


def changed(event: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The event with one field more, or another one, in any of its objects."""
    for name in FIELDS:
        for value in VALUES:
            yield {**event, name: value}
            for inner in ("message", "choices"):
                if inner not in event:
                    continue
                (part,) = event[inner] if inner == "choices" else (event[inner],)
                parts = [{**part, name: value}]
                if "delta" in part:
                    parts.append({**part, "delta": {**part["delta"], name: value}})
                for each in parts:
                    yield {**event, inner: [each] if inner == "choices" else each}
    yield {**event, "choices": [*event.get("choices", []) * 2]}


@pytest.mark.parametrize("path", PLAIN)
def test_an_event_in_the_middle_is_read_as_carefully_as_the_first_one(path: str) -> None:
    """Most events are read in one step, and must be exactly those that a careful reading finds nothing else in."""

    class Careful(type(begin(path))):  # type: ignore[misc]
        @staticmethod
        def _word(data: bytes) -> str:
            raise msgspec.ValidationError("look again")

    def told(transcript: Transcript, event: dict[str, Any]) -> Resume | str | None:
        try:
            for each in (PLAIN[path], event, PLAIN[path]):
                transcript.take([lines(each) if path.startswith("/api") else sse(each)])
            return transcript.resume()
        except CannotResumeError as error:
            return str(error)

    events = list(changed(PLAIN[path]))
    assert len(events) > 400
    for event in events:
        assert told(begin(path), event) == told(Careful(), event), event


def test_text_after_its_end_is_not_understood() -> None:
    assert refusal(CHAT, sse(choice(finish_reason="stop"), LLAMA_CHAT[1])) == "its text goes on after its end"


def test_fields_of_another_kind_leave_the_answer_without_a_name() -> None:
    said = {**choice(delta={"content": "x"}), "id": 7, "created": "yesterday", "model": None, "system_fingerprint": 3}
    assert read(CHAT, sse(said)) == Resume("x", 1, lengths=b"\1")
    for created in (-1, 1 << 63, 1.5, True):
        resume = read(CHAT, sse({**said, "created": created}))
        assert resume is not None
        assert resume.created == 0


@pytest.mark.parametrize("piece", ["x" * 65536, "é" * 32768])
def test_text_is_bounded_in_bytes(piece: str) -> None:
    transcript = begin(CHAT)
    event = sse(choice(delta={"content": piece}))
    for _ in range(TEXT_BYTES_MAX // 65536):
        transcript.take([event])
    resume = transcript.resume()
    assert resume is not None
    assert len(resume.text.encode()) == TEXT_BYTES_MAX
    with pytest.raises(CannotResumeError, match="longer than 1048576 bytes"):
        transcript.take([sse(choice(delta={"content": "x"}))])


def test_an_event_that_never_ends_is_bounded() -> None:
    transcript = begin(GENERATE)
    transcript.take([b"x" * EVENT_BYTES_MAX])
    with pytest.raises(CannotResumeError, match="more than 16777216 bytes"):
        transcript.take([b"x"])


def test_where_events_end_is_kept_of_texts_whose_length_fits_a_byte() -> None:
    def said(text: str) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": {"content": text}}]}

    short = read(CHAT, sse(said("\N{SNOWMAN}"), said("x" * 254)))
    long = read(CHAT, sse(said("a"), said("x" * 255)))
    assert short is not None
    assert long is not None
    assert (short.lengths, long.lengths) == (bytes([1, 254]), b"")

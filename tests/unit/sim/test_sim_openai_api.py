"""OpenAI's completions as the simulated engine writes them."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

import pytest

from neurogate.engines.engine import EngineCall, EngineReply
from neurogate.engines.sim import chat_template, tokenizer
from neurogate.engines.sim.core import CONTEXT_TOKENS
from neurogate.engines.sim.scheduler import QueueFullError
from neurogate.virtual_time import run
from sim_support import chat_call, chat_text, engine, events


def ask(call: EngineCall, **given: Any) -> tuple[EngineReply, bytes]:
    async def main() -> tuple[EngineReply, bytes]:
        async with engine(**given) as made, made.forward(call) as reply:
            return reply, b"".join([chunk async for chunk in reply.body])

    return run(main())


def completion_call(prompt: Any, **fields: Any) -> EngineCall:
    return EngineCall("/v1/completions", json.dumps({"prompt": prompt, **fields}).encode(), "r1")


def test_a_chat_stream_has_a_role_then_tokens_then_the_reason_then_the_mark() -> None:
    reply, body = ask(chat_call(stream=True, max_tokens=3))
    assert (reply.status, reply.content_type) == (200, "text/event-stream")
    assert body.endswith(b"data: [DONE]\n\n")
    role, *tokens, last = events(body)
    assert role["choices"] == [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]
    assert tokens[0]["choices"][0]["delta"]["content"] == "[sim]"
    assert len(tokens) == 3
    assert last["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]
    assert last["timings"]["predicted_n"] == 3
    assert {event["object"] for event in events(body)} == {"chat.completion.chunk"}
    assert len({event["id"] for event in events(body)}) == 1
    assert {event["model"] for event in events(body)} == {"sim"}


def test_usage_comes_in_a_chunk_of_its_own_when_asked_for() -> None:
    _, body = ask(chat_call("Hi there", stream=True, max_tokens=3, stream_options={"include_usage": True}))
    finish, usage = events(body)[-2:]
    assert finish["choices"][0]["finish_reason"] == "length"
    assert "timings" not in finish
    assert usage["choices"] == []
    prompt_tokens = tokenizer.count(chat_template.render([("user", "Hi there")]))
    assert usage["usage"] == {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": 3,
        "total_tokens": prompt_tokens + 3,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert usage["timings"]["prompt_n"] == prompt_tokens


def test_a_whole_chat_carries_usage_and_timings() -> None:
    reply, body = ask(chat_call())
    answer = json.loads(body)
    assert (reply.status, answer["object"]) == (200, "chat.completion")
    [choice] = answer["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == tokenizer.count(choice["message"]["content"])
    assert answer["timings"]["predicted_n"] == answer["usage"]["completion_tokens"]


def test_a_text_completion_streams_text() -> None:
    reply, body = ask(completion_call("Once upon a time", stream=True, max_tokens=4))
    assert reply.status == 200
    *tokens, last = events(body)
    assert [set(event["choices"][0]) for event in tokens] == [{"text", "index", "logprobs", "finish_reason"}] * 4
    assert last["choices"] == [{"text": "", "index": 0, "logprobs": None, "finish_reason": "length"}]
    assert {event["object"] for event in events(body)} == {"text_completion"}


def test_a_whole_text_completion_says_what_the_stream_says() -> None:
    _, streamed = ask(completion_call("Once upon", stream=True))
    _, whole = ask(completion_call("Once upon"))
    text = "".join(event["choices"][0]["text"] for event in events(streamed))
    assert json.loads(whole)["choices"][0]["text"] == text


@pytest.mark.parametrize("prompt", [["Once upon"], tokenizer.encode("Once upon"), [tokenizer.encode("Once upon")]])
def test_a_prompt_may_be_token_ids_or_a_list_of_one(prompt: Any) -> None:
    _, expected = ask(completion_call("Once upon"))
    _, body = ask(completion_call(prompt))
    assert json.loads(body)["choices"] == json.loads(expected)["choices"]


@pytest.mark.parametrize(
    "limit", [{"max_tokens": 7}, {"max_completion_tokens": 7}, {"max_tokens": 9, "max_completion_tokens": 7}]
)
def test_the_token_limit_is_obeyed(limit: dict[str, Any]) -> None:
    _, body = ask(chat_call(**limit))
    answer = json.loads(body)
    assert (answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]) == (7, "length")


def test_an_answer_that_ends_by_itself_within_the_limit_stops() -> None:
    _, free = ask(chat_call())
    natural = json.loads(free)["usage"]["completion_tokens"]
    for limit in (natural, natural + 1, -1, None):
        _, body = ask(chat_call(max_tokens=limit))
        answer = json.loads(body)
        assert answer["usage"]["completion_tokens"] == natural
        assert answer["choices"][0]["finish_reason"] == "stop"


def test_ignore_eos_goes_on_to_the_limit() -> None:
    _, body = ask(chat_call(max_tokens=500, ignore_eos=True))
    answer = json.loads(body)
    assert (answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]) == (500, "length")


def test_a_limit_of_nothing_says_nothing() -> None:
    _, body = ask(chat_call(stream=True, max_tokens=0))
    assert chat_text(body) == ""
    assert events(body)[-1]["choices"][0]["finish_reason"] == "length"
    assert events(body)[-1]["timings"]["predicted_per_token_ms"] == 0


def test_an_interrupted_chat_is_continued_from_its_own_beginning() -> None:
    _, whole = ask(chat_call("Tell me", stream=True))
    _, part = ask(chat_call("Tell me", stream=True, max_tokens=10))
    turns = [{"role": "user", "content": "Tell me"}, {"role": "assistant", "content": chat_text(part)}]
    _, rest = ask(EngineCall("/v1/chat/completions", json.dumps({"messages": turns, "stream": True}).encode()))
    assert chat_text(part) + chat_text(rest) == chat_text(whole)


def test_ids_depend_on_the_body_only() -> None:
    def name(call: EngineCall) -> str:
        return str(json.loads(ask(call)[1])["id"])

    assert name(chat_call("a", request_id="1")) == name(chat_call("a", request_id="2"))
    names = {name(chat_call(text, seed=number)) for text in "ab" for number in (1, 2)}
    assert len(names) == 4
    assert all(one.startswith("chatcmpl-") for one in names)


def test_an_image_counts_and_another_one_is_another_question() -> None:
    def asked(url: str) -> dict[str, Any]:
        parts = [{"type": "text", "text": "Why "}, {"type": "image_url", "image_url": {"url": url}}]
        body = {"messages": [{"role": "user", "content": [*parts, {"type": "text", "text": "now?"}]}]}
        reply, answer = ask(EngineCall("/v1/chat/completions", json.dumps(body).encode()))
        assert reply.status == 200
        return dict(json.loads(answer))

    without = json.loads(ask(chat_call("Why now?"))[1])
    one, other = asked("data:image/png;base64,AAAA"), asked("data:image/png;base64,BBBB")
    assert one["usage"]["prompt_tokens"] > without["usage"]["prompt_tokens"]
    assert one["choices"] != other["choices"]


def test_what_it_does_not_know_is_accepted() -> None:
    reply, _ = ask(chat_call(temperature=0.2, top_p=1, tools=[], seed=3, stop=["x"], user=None, model=None))
    assert reply.status == 200


@pytest.mark.parametrize("model", ["sim", "sim:latest", ""])
def test_the_model_may_be_named(model: str) -> None:
    assert ask(chat_call(model=model))[0].status == 200


def test_an_unknown_model_is_not_found() -> None:
    reply, body = ask(chat_call(model="gpt-5", stream=True))
    assert reply.status == 404
    assert json.loads(body)["error"] == {
        "message": "The model 'gpt-5' does not exist",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


@pytest.mark.parametrize(
    ("path", "body", "param", "told"),
    [
        ("chat/completions", b"", None, "not valid JSON"),
        ("chat/completions", b"{oops", None, "not valid JSON"),
        ("chat/completions", b'{"messages":[{"role":"user","content":"\xff"}]}', None, "not valid JSON"),
        ("chat/completions", b"[]", None, "Expected `object`, got `array`"),
        ("chat/completions", b"{}", None, "missing required field `messages`"),
        ("chat/completions", b'{"messages":[]}', "messages", "messages: Expected `array` of length >= 1"),
        ("chat/completions", b'{"messages":"hi"}', "messages", "messages: Expected `array`, got `str`"),
        ("chat/completions", b'{"messages":[{"role":1}]}', "messages[0].role", "Expected `str`, got `int`"),
        ("chat/completions", b'{"messages":[{"role":"user"}],"max_tokens":"x"}', "max_tokens", "got `str`"),
        ("chat/completions", b'{"messages":[{"role":"user"}],"max_tokens":-2}', "max_tokens", ">= -1"),
        ("chat/completions", b'{"messages":[{"role":"user"}],"n":129}', "n", "<= 128"),
        ("completions", b"{}", None, "missing required field `prompt`"),
        ("completions", b'{"prompt":5}', "prompt", "got `int`"),
        ("completions", b'{"prompt":["a",{}]}', "prompt", "must be texts, or lists of token ids"),
        ("completions", b'{"prompt":[5]}', "prompt", "must be texts, or lists of token ids"),
    ],
)
def test_a_wrong_body_is_refused_and_the_field_named(path: str, body: bytes, param: str | None, told: str) -> None:
    reply, answered = ask(EngineCall(f"/v1/{path}", body))
    error = json.loads(answered)["error"]
    assert (reply.status, reply.content_type) == (400, "application/json")
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, "invalid_request")
    assert told in error["message"]


def test_a_prompt_over_the_context_is_refused() -> None:
    reply, body = ask(completion_call("!" * (CONTEXT_TOKENS + 1)))
    assert reply.status == 400
    assert json.loads(body)["error"]["code"] == "exceed_context_size_error"


def test_an_answer_ends_where_the_context_does() -> None:
    _, body = ask(completion_call("!" * (CONTEXT_TOKENS - 9), ignore_eos=True))
    answer = json.loads(body)
    assert (answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]) == (9, "length")
    assert answer["usage"]["total_tokens"] == CONTEXT_TOKENS


def test_a_full_queue_is_busy() -> None:
    async def main() -> None:
        async with engine(slots=1) as made:
            with ExitStack() as filled:
                scheduler = made._core.scheduler
                for _ in range(1 + 4096):
                    filled.enter_context(scheduler.submit(1, 1))
                with pytest.raises(QueueFullError):
                    scheduler.submit(1, 1)
                async with made.forward(chat_call(stream=True)) as reply:
                    assert (reply.status, reply.retry_after_s) == (503, 1.0)
                    body = b"".join([chunk async for chunk in reply.body])
                    assert json.loads(body)["error"]["code"] == "engine_busy"

    run(main())

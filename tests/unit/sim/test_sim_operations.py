"""Every operation of the simulated engine: what it answers, that it answers the same again, and what it refuses."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import random
import struct
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurogate.engines.engine import EngineBrokenError, EngineCall, EngineReply
from neurogate.engines.settings import SimSettings
from neurogate.engines.sim import tokenizer
from neurogate.engines.sim.apis import APIS
from neurogate.engines.sim.engine import SimEngine
from neurogate.engines.sse import events as sse_events
from neurogate.operations import OPERATIONS, Ending, Family
from neurogate.virtual_time import run
from sim_support import engine, events

MESSAGES = [{"role": "user", "content": "What's the weather in Paris?"}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}]
COLOUR = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}

REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": "Once upon a time"},
    "/v1/responses": {"input": "Once upon a time"},
    "/v1/embeddings": {"input": "Once upon a time"},
    "/v1/rerank": {"query": "a time", "documents": ["once", "a time"]},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 50},
    "/v1/messages/count_tokens": {"messages": MESSAGES},
    "/completion": {"prompt": "Once upon a time"},
    "/infill": {"input_prefix": "def add(", "input_suffix": "return a + b"},
    "/tokenize": {"content": "Once upon a time"},
    "/detokenize": {"tokens": tokenizer.encode("Once upon")},
    "/apply-template": {"messages": MESSAGES},
}
STREAMED = sorted(path for path in APIS if OPERATIONS[path].ending is not Ending.NONE)


async def answered(made: SimEngine, path: str, body: bytes) -> tuple[EngineReply, bytes]:
    async with made.forward(EngineCall(path, body)) as reply:
        content = b""
        try:
            async for chunk in reply.body:
                content += chunk
        except EngineBrokenError:
            content += b"<broken>"
        return reply, content


def raw(path: str, body: bytes, **given: Any) -> tuple[EngineReply, bytes]:
    async def main() -> tuple[EngineReply, bytes]:
        async with engine(**given) as made:
            return await answered(made, path, body)

    return run(main())


def whole(path: str, given: dict[str, Any] | None = None, **fields: Any) -> Any:
    reply, body = raw(path, json.dumps({**REQUESTS[path], **fields}).encode(), **(given or {}))
    assert (reply.status, reply.content_type) == (200, "application/json"), body
    return json.loads(body)


def refused(path: str, **fields: Any) -> str:
    reply, body = raw(path, json.dumps({**REQUESTS[path], **fields}).encode())
    assert (reply.status, reply.content_type) == (400, "application/json")
    return message_in(path, body)


def streamed(path: str, given: dict[str, Any] | None = None, **fields: Any) -> list[dict[str, Any]]:
    reply, body = raw(path, json.dumps({**REQUESTS[path], "stream": True, **fields}).encode(), **(given or {}))
    assert (reply.status, reply.content_type) == (200, "text/event-stream"), body
    parsed = [event for event in sse_events(body) if event.data != b"[DONE]"]
    told = [json.loads(event.data) for event in parsed]
    assert all(event.name in {"", one.get("type")} for event, one in zip(parsed, told, strict=True))
    return told


def message_in(path: str, body: bytes) -> str:
    """An error's message, found where the path's API has it."""
    error = json.loads(body)
    if OPERATIONS[path].family is Family.ANTHROPIC:
        assert error["type"] == "error"
    if OPERATIONS[path].family is Family.LLAMACPP:
        assert isinstance(error["error"]["code"], int)
    assert error["error"]["type"]
    return str(error["error"]["message"])


# --- all of them ----------------------------------------------------------------------------------------------------


def test_every_operation_is_there_but_ollamas_and_the_gateways_own() -> None:
    others = {path for path, it in OPERATIONS.items() if it.family in {Family.OLLAMA, Family.NEUROGATE}}
    assert set(APIS) == OPERATIONS.keys() - others == REQUESTS.keys()

    async def main() -> None:
        async with engine() as made:
            seen = await made.observe()
            assert seen.apis == {path for path in APIS if not OPERATIONS[path].universal}
            assert "n" not in seen.unsupported

    run(main())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", sorted(APIS))
def test_the_same_body_is_answered_with_the_same_bytes(path: str, stream: bool) -> None:
    """Also by another engine, at another time, for another request id, and under load."""

    body = json.dumps({**REQUESTS[path], "stream": stream}).encode()

    async def one(now: float, *, busy: bool) -> bytes:
        slow = SimSettings(deterministic=True, slots=1)
        made = SimEngine(slow, model="sim", rng=random.Random(now), now=lambda: now)
        await made.start()
        async with asyncio.TaskGroup() as tasks, AsyncExitStack() as held:
            if busy:
                await held.enter_async_context(made.forward(EngineCall("/completion", b'{"prompt":"a","stream":true}')))
            asking = tasks.create_task(answered(made, path, body))
            await asyncio.sleep(0.5)
            await held.aclose()
        await made.stop()
        return asking.result()[1]

    assert run(one(1.0, busy=False)) == run(one(9.9, busy=True))


@pytest.mark.parametrize("path", STREAMED)
def test_a_whole_stream_ends_with_the_mark_of_its_api(path: str) -> None:
    _, body = raw(path, json.dumps({**REQUESTS[path], "stream": True}).encode())
    last = list(sse_events(body))[-1]
    match OPERATIONS[path].ending:
        case Ending.DONE:
            assert last.data == b"[DONE]"
        case Ending.MESSAGE_STOP:
            assert last.name == "message_stop"
        case Ending.RESPONSE_COMPLETED:
            assert last.name == "response.completed"
        case Ending.STOP:
            assert json.loads(last.data)["stop"] is True
        case other:
            raise AssertionError(other)


@pytest.mark.parametrize("path", STREAMED)
def test_faults_break_every_stream_in_its_own_way(path: str) -> None:
    body = json.dumps({**REQUESTS[path], "stream": True}).encode()
    complete = raw(path, body)[1]
    _, cut = raw(path, body, faults="cut_after=3")
    assert complete.startswith(cut)
    assert len(cut) < len(complete)
    _, failed = raw(path, body, faults="error_after=3")
    last = list(sse_events(failed))[-1]
    assert b"simulated failure" in last.data
    assert last.name == "error" or json.loads(last.data)["error"]


@pytest.mark.parametrize("path", sorted(set(APIS) - {"/tokenize", "/detokenize", "/apply-template"}))
def test_faults_meet_whole_answers_of_every_operation(path: str) -> None:
    body = json.dumps(REQUESTS[path]).encode()
    if path == "/v1/messages/count_tokens":
        return  # answered at once, like the tokenizer's
    reply, content = raw(path, body, faults="error=1")
    assert reply.status == 500
    assert "fault error" in message_in(path, content)
    reply, content = raw(path, body, faults="busy=1")
    assert (reply.status, reply.retry_after_s) == (503, 1)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
FIELDS = sorted(
    {
        "messages", "prompt", "input", "model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n",
        "stop", "logprobs", "top_logprobs", "tools", "tool_choice", "response_format", "echo", "encoding_format",
        "dimensions", "query", "documents", "top_n", "return_documents", "instructions", "max_output_tokens", "text",
        "previous_response_id", "system", "stop_sequences", "n_predict", "json_schema", "input_prefix",
        "input_suffix", "input_extra", "content", "with_pieces", "tokens", "ignore_eos",
    }
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    path=st.sampled_from(sorted(APIS)), body=st.binary(max_size=40) | json_values.map(lambda v: json.dumps(v).encode())
)
def test_a_body_of_any_shape_is_answered_or_refused(path: str, body: bytes) -> None:
    reply, content = raw(path, body)
    assert reply.status in {200, 400}
    if reply.status == 400:
        assert message_in(path, content)


@settings(max_examples=600, deadline=None)
@given(
    path=st.sampled_from(sorted(APIS)),
    changes=st.dictionaries(st.sampled_from(FIELDS), json_values, min_size=1, max_size=2),
)
def test_a_request_with_any_field_wrong_is_answered_or_refused(path: str, changes: dict[str, Any]) -> None:
    changes = {
        name: 5 if name in {"max_tokens", "n_predict"} and value is True else value for name, value in changes.items()
    }
    body = json.dumps({**REQUESTS[path], **changes, "ignore_eos": False}).encode()
    reply, content = raw(path, body, decode_tps=0, prefill_tps=0)
    assert reply.status in {200, 400, 404}
    if reply.status != 200:
        assert message_in(path, content)


@pytest.mark.parametrize("path", sorted(APIS))
def test_nesting_without_end_is_refused(path: str) -> None:
    reply, content = raw(path, b"[" * 100_000)
    assert reply.status == 400
    assert message_in(path, content)


# --- chat and completions -------------------------------------------------------------------------------------------


def test_several_answers_differ_and_the_first_is_the_one_that_is_given_alone() -> None:
    alone = whole("/v1/chat/completions")
    several = whole("/v1/chat/completions", n=3)
    texts = [choice["message"]["content"] for choice in several["choices"]]
    assert [choice["index"] for choice in several["choices"]] == [0, 1, 2]
    assert texts[0] == alone["choices"][0]["message"]["content"]
    assert len(set(texts)) == 3
    assert several["usage"]["prompt_tokens"] == alone["usage"]["prompt_tokens"]
    assert several["usage"]["completion_tokens"] == sum(map(tokenizer.count, texts))
    pieces: dict[int, str] = {}
    reasons = {}
    for event in streamed("/v1/chat/completions", n=3):
        for choice in event["choices"]:
            pieces[choice["index"]] = pieces.get(choice["index"], "") + (choice["delta"].get("content") or "")
            reasons[choice["index"]] = choice["finish_reason"]
    assert list(pieces.values()) == texts
    assert set(reasons.values()) == {"stop"}


def test_several_prompts_are_answered_in_order() -> None:
    both = whole("/v1/completions", prompt=["One", "Two"], n=2)
    alone = [whole("/v1/completions", prompt=prompt)["choices"][0]["text"] for prompt in ("One", "Two")]
    assert [choice["index"] for choice in both["choices"]] == [0, 1, 2, 3]
    assert [both["choices"][index]["text"] for index in (0, 2)] == alone
    assert "128" in refused("/v1/completions", prompt=["x"] * 129)
    assert "128" in refused("/v1/completions", prompt=["x"] * 65, n=2)


def test_a_stop_text_ends_the_answer_before_it() -> None:
    text = whole("/v1/chat/completions")["choices"][0]["message"]["content"]
    stop = text[20:24]
    choice = whole("/v1/chat/completions", stop=["never said", stop])["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (text[: text.index(stop)], "stop")
    native = whole("/completion", stop=stop)
    assert (native["stop_type"], native["stopping_word"]) in {("word", stop), ("eos", "")}
    begun = whole("/v1/completions", stop="[sim]")
    assert (begun["choices"][0]["text"], begun["usage"]["completion_tokens"]) == ("", 0)
    assert "64" in refused("/v1/completions", stop=["x"] * 65)


def test_probabilities_are_told_of_every_token() -> None:
    choice = whole("/v1/chat/completions", max_tokens=3, logprobs=True, top_logprobs=2)["choices"][0]
    tokens = choice["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == choice["message"]["content"]
    assert all(token["logprob"] < 0 and len(token["top_logprobs"]) == 2 for token in tokens)
    assert [bytes(token["bytes"]).decode() for token in tokens] == [token["token"] for token in tokens]
    said = [e["choices"][0] for e in streamed("/v1/chat/completions", max_tokens=3, logprobs=True)]
    assert [choice["logprobs"]["content"][0]["top_logprobs"] for choice in said[1:4]] == [[], [], []]
    legacy = whole("/v1/completions", max_tokens=3, logprobs=1)["choices"][0]
    assert "".join(legacy["logprobs"]["tokens"]) == legacy["text"]
    assert legacy["logprobs"]["text_offset"][0] == 0
    assert whole("/v1/completions", max_tokens=3, logprobs=False)["choices"][0]["logprobs"] is None


def test_echo_repeats_the_prompt() -> None:
    text = whole("/v1/completions")["choices"][0]["text"]
    assert whole("/v1/completions", echo=True)["choices"][0]["text"] == "Once upon a time" + text
    assert streamed("/v1/completions", echo=True)[0]["choices"][0]["text"] == "Once upon a time"


@pytest.mark.parametrize(
    ("choice", "asked", "called"),
    [
        (None, "What's the weather in Paris?", True),
        ("auto", "Use get_weather!", True),
        ("auto", "Tell me a joke", False),
        ("none", "What's the weather in Paris?", False),
        ("required", "Tell me a joke", True),
        ({"type": "function", "function": {"name": "get_weather"}}, "Tell me a joke", True),
    ],
)
def test_a_tool_is_called_when_it_must_or_is_named(choice: Any, asked: str, called: bool) -> None:
    messages = [{"role": "user", "content": asked}]
    answer = whole("/v1/chat/completions", messages=messages, tools=TOOLS, tool_choice=choice)["choices"][0]
    if not called:
        assert answer["message"]["content"].startswith("[sim]")
        return
    assert (answer["finish_reason"], answer["message"]["content"]) == ("tool_calls", None)
    [call] = answer["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "[sim]"}


def test_a_tools_call_is_streamed_in_pieces() -> None:
    told = [event["choices"][0] for event in streamed("/v1/chat/completions", tools=TOOLS)]
    calls = [choice["delta"]["tool_calls"][0] for choice in told if "tool_calls" in choice["delta"]]
    assert (calls[0]["id"][:5], calls[0]["function"]["name"]) == ("call_", "get_weather")
    assert len(calls) > 3
    assert json.loads("".join(call["function"]["arguments"] for call in calls)) == {"city": "[sim]"}
    assert told[-1]["finish_reason"] == "tool_calls"


def test_a_tools_result_is_answered_in_words() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    turns = [
        *MESSAGES,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]
    answer = whole("/v1/chat/completions", messages=turns, tools=TOOLS)
    assert answer["choices"][0]["message"]["content"].startswith("[sim]")


def test_a_choice_of_tools_that_makes_no_sense_is_refused() -> None:
    assert "no tool 'nope'" in refused(
        "/v1/chat/completions", tools=TOOLS, tool_choice={"type": "function", "name": "nope"}
    )
    assert "tool_choice" in refused("/v1/chat/completions", tools=TOOLS, tool_choice="maybe")
    assert "image_url" in refused(
        "/v1/chat/completions", messages=[{"role": "user", "content": [{"type": "image_url"}]}]
    )


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"type": "json_object"}, {"answer": "[sim]"}),
        ({"type": "json_object", "schema": COLOUR}, {"colour": "red"}),
        ({"type": "json_schema", "json_schema": {"name": "c", "schema": COLOUR}}, {"colour": "red"}),
    ],
)
def test_json_is_answered_as_its_schema_demands(wanted: dict[str, Any], expected: Any) -> None:
    answer = whole("/v1/chat/completions", response_format=wanted)["choices"][0]
    assert json.loads(answer["message"]["content"]) == expected
    said = "".join(
        event["choices"][0]["delta"].get("content", "")
        for event in streamed("/v1/chat/completions", response_format=wanted)
    )
    assert json.loads(said) == expected
    assert (
        whole("/v1/chat/completions", response_format=wanted, max_tokens=1)["choices"][0]["finish_reason"] == "length"
    )
    assert "response_format" in refused("/v1/chat/completions", response_format={"type": "yaml"})


# --- embeddings and relevance ---------------------------------------------------------------------------------------


def test_embeddings_are_unit_vectors_of_their_texts() -> None:
    answer = whole("/v1/embeddings", input=["a", "b", "a"])
    vectors = [item["embedding"] for item in answer["data"]]
    assert [item["index"] for item in answer["data"]] == [0, 1, 2]
    assert vectors[0] == vectors[2] != vectors[1]
    assert all(math.isclose(math.hypot(*vector), 1) for vector in vectors)
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert len(whole("/v1/embeddings", dimensions=100)["data"][0]["embedding"]) == 100


def test_embeddings_come_as_base64_of_floats() -> None:
    plain = whole("/v1/embeddings")["data"][0]["embedding"]
    packed = base64.b64decode(whole("/v1/embeddings", encoding_format="base64")["data"][0]["embedding"])
    assert struct.unpack(f"<{len(plain)}f", packed) == pytest.approx(plain, abs=1e-6)


def test_tokens_are_embedded_as_the_text_they_are_or_as_themselves() -> None:
    def vector(given: Any) -> Any:
        return whole("/v1/embeddings", input=given)["data"][0]["embedding"]

    assert vector(tokenizer.encode("Hello")) == vector([tokenizer.encode("Hello")]) == vector("Hello")
    assert vector([1, 2]) != vector([1, 3])
    for wrong in ("", [], [""], [1, "a"], ["a", 1], [[]], ["a"] * 2049):
        assert "input" in refused("/v1/embeddings", input=wrong)


def test_documents_are_ranked_by_the_words_they_share() -> None:
    documents = ["a stone", {"text": "the black cat sleeps"}, "a cat"]
    answer = whole("/v1/rerank", query="black cat", documents=documents, return_documents=True)
    assert [result["index"] for result in answer["results"]] == [1, 2, 0]
    scores = [result["relevance_score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert answer["results"][0]["document"] == {"text": "the black cat sleeps"}
    assert len(whole("/v1/rerank", query="!", documents=["a", "b"], top_n=1)["results"]) == 1


# --- responses ------------------------------------------------------------------------------------------------------


def test_a_response_is_streamed_in_typed_events() -> None:
    told = streamed("/v1/responses", max_output_tokens=500)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    kinds = [event["type"] for event in told]
    assert kinds[:4] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"
    ]  # fmt: skip
    assert kinds[-4:] == [
        "response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed"
    ]  # fmt: skip
    text = "".join(event["delta"] for event in told if event["type"] == "response.output_text.delta")
    final = told[-1]["response"]
    assert final["output"][0]["content"][0]["text"] == text
    assert final["usage"]["output_tokens"] == tokenizer.count(text)
    alone = whole("/v1/responses", max_output_tokens=500)
    assert alone["output"][0]["content"][0]["text"] == text
    assert alone["status"] == "completed"


def test_a_response_that_meets_its_limit_is_incomplete() -> None:
    assert streamed("/v1/responses", max_output_tokens=2)[-1]["type"] == "response.incomplete"
    answer = whole("/v1/responses", max_output_tokens=2)
    assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


def test_a_response_calls_tools_and_answers_their_results() -> None:
    tools = [{"type": "function", "name": "get_weather", "parameters": PARAMETERS}, {"type": "web_search"}]
    [item] = whole("/v1/responses", input="weather?", tools=tools)["output"]
    assert (item["type"], item["name"], json.loads(item["arguments"])) == (
        "function_call", "get_weather", {"city": "[sim]"}
    )  # fmt: skip
    told = streamed("/v1/responses", input="weather?", tools=tools)
    said = "".join(event["delta"] for event in told if event["type"] == "response.function_call_arguments.delta")
    assert said == item["arguments"]
    output = {"type": "function_call_output", "call_id": item["call_id"], "output": "sunny"}
    turns = [{"role": "user", "content": [{"type": "input_text", "text": "weather?"}]}, item, output]
    [answer] = whole("/v1/responses", input=turns, tools=tools, instructions="Be brief.")["output"]
    assert answer["type"] == "message"


def test_a_response_may_be_json_and_is_never_continued_by_its_id() -> None:
    wanted = {"format": {"type": "json_schema", "name": "c", "schema": COLOUR}}
    assert json.loads(whole("/v1/responses", text=wanted)["output"][0]["content"][0]["text"]) == {"colour": "red"}
    assert "not stored" in refused("/v1/responses", previous_response_id="resp_1")


# --- messages -------------------------------------------------------------------------------------------------------


def test_a_message_is_streamed_as_anthropic_does() -> None:
    told = streamed("/v1/messages", max_tokens=500)
    kinds = [event["type"] for event in told]
    assert kinds[:3] == ["message_start", "content_block_start", "ping"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    text = "".join(event["delta"]["text"] for event in told if event["type"] == "content_block_delta")
    answer = whole("/v1/messages", max_tokens=500)
    assert answer["content"] == [{"type": "text", "text": text}]
    assert answer["stop_reason"] == told[-2]["delta"]["stop_reason"] == "end_turn"
    assert told[0]["message"]["usage"]["input_tokens"] == answer["usage"]["input_tokens"]
    assert whole("/v1/messages/count_tokens") == {"input_tokens": answer["usage"]["input_tokens"]}


def test_a_message_tells_why_it_ended() -> None:
    assert whole("/v1/messages", max_tokens=2)["stop_reason"] == "max_tokens"
    stopped = whole("/v1/messages", stop_sequences=["."])
    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", ".")


@pytest.mark.parametrize(
    ("choice", "called"), [(None, True), ({"type": "none"}, False), ({"type": "any"}, True),
                           ({"type": "tool", "name": "get_weather"}, True)]
)  # fmt: skip
def test_a_message_calls_tools(choice: Any, called: bool) -> None:
    tools = [{"name": "get_weather", "input_schema": PARAMETERS}]
    fields = {"tools": tools, "tool_choice": choice, "system": [{"type": "text", "text": "Be brief."}]}
    [block] = whole("/v1/messages", **fields)["content"]
    if not called:
        assert block["type"] == "text"
        return
    assert (block["type"], block["name"], block["input"]) == ("tool_use", "get_weather", {"city": "[sim]"})
    told = streamed("/v1/messages", **fields)
    assert told[1]["content_block"]["input"] == {}
    assert json.loads("".join(e["delta"]["partial_json"] for e in told if e["type"] == "content_block_delta")) == {
        "city": "[sim]"
    }
    assert told[-2]["delta"]["stop_reason"] == "tool_use"
    assert whole("/v1/messages", **{**fields, "max_tokens": 2})["content"][0]["input"] == {}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block["id"], "content": "sunny"}]}
    turns = [*MESSAGES, {"role": "assistant", "content": [block]}, result]
    if choice is None:
        assert whole("/v1/messages", messages=turns, tools=tools)["content"][0]["type"] == "text"


def test_a_choice_without_a_name_is_refused() -> None:
    tools = [{"name": "get_weather", "input_schema": PARAMETERS}]
    assert "must name a tool" in refused("/v1/messages", tools=tools, tool_choice={"type": "tool"})


# --- llama.cpp's own ------------------------------------------------------------------------------------------------


def test_text_for_a_gap_depends_on_both_its_sides() -> None:
    one = whole("/infill", n_predict=5)
    assert (one["stop"], one["tokens_predicted"]) == (True, 5)
    assert whole("/infill", n_predict=5, input_suffix="pass")["content"] != one["content"]
    assert whole("/infill", n_predict=5, input_extra=[{"filename": "a", "text": "b"}])["content"] != one["content"]
    assert len(events(raw("/infill", json.dumps({**REQUESTS["/infill"], "stream": True}).encode())[1])) > 2


def test_a_native_completion_may_be_json() -> None:
    assert json.loads(whole("/completion", json_schema=COLOUR)["content"]) == {"colour": "red"}
    assert "must be one" in refused("/completion", prompt=["a", "b"])


def test_tokens_and_text_are_inverse_and_templates_name_their_tools() -> None:
    ids = whole("/tokenize", content="Hello wörld")["tokens"]
    assert whole("/detokenize", tokens=ids) == {"content": "Hello wörld"}
    assert "get_weather" in whole("/apply-template", tools=TOOLS)["prompt"]

"""Requests of Ollama's API as an OpenAI-like engine is asked: every field, and what is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from neurogate.engines.engine import EngineRefusedError, EngineUnsupportedError
from neurogate.prompt_api import MAX_TOKENS
from neurogate.worker.ollama_api.asking import Question, chat_question, generate_question
from neurogate.worker.ollama_api.requests import CHAT, GENERATE, read

STREAM = {"model": "tiny", "stream": True, "stream_options": {"include_usage": True}}
HI = [{"role": "user", "content": "Hi"}]


def asked(question: Question) -> dict[str, Any]:
    """The fields beyond those that every question has."""
    body = json.loads(question.body)
    assert body.items() >= STREAM.items()
    return {name: value for name, value in body.items() if name not in STREAM}


def chat(kind: str = "llamacpp", **fields: Any) -> Question:
    body = json.dumps({"model": "tiny:latest", **fields}).encode()
    return chat_question(read(CHAT, body), "tiny", kind)


def generate(kind: str = "llamacpp", **fields: Any) -> Question:
    body = json.dumps({"model": "tiny:latest", **fields}).encode()
    return generate_question(read(GENERATE, body), "tiny", kind)


def test_a_chat() -> None:
    question = chat(messages=HI)
    assert (question.path, question.max_tokens) == ("/v1/chat/completions", None)
    assert asked(question) == {"messages": HI}


def test_a_prompt_becomes_a_conversation() -> None:
    question = generate(prompt="Hi", system="Be brief.")
    assert question.path == "/v1/chat/completions"
    assert asked(question) == {"messages": [{"role": "system", "content": "Be brief."}, *HI]}


def test_a_raw_prompt_is_completed_as_it_is() -> None:
    question = generate(prompt="<s>Hi", raw=True, options={"num_predict": 3})
    assert (question.path, question.max_tokens) == ("/v1/completions", 3)
    assert asked(question) == {"prompt": "<s>Hi", "max_tokens": 3}


def test_every_option_has_its_name_on_llamacpp() -> None:
    options = {
        "num_predict": 7, "num_keep": 4, "temperature": 0, "seed": 1, "stop": ["a", "b"], "top_k": 5, "top_p": 0.5,
        "min_p": 0.1, "typical_p": 0.9, "repeat_last_n": 9, "repeat_penalty": 1.1, "presence_penalty": 0.2,
        "frequency_penalty": 0.3, "mirostat": 1, "mirostat_tau": 5.0, "mirostat_eta": 0.1,
    }  # fmt: skip
    question = chat(messages=HI, options=options)
    expected = {**options, "max_tokens": 7, "n_keep": 4}
    del expected["num_predict"], expected["num_keep"]
    assert asked(question) == {"messages": HI, **expected}
    assert question.max_tokens == 7


def test_other_engines_get_the_options_that_they_have() -> None:
    question = chat("openai", messages=HI, options={"repeat_penalty": 1.1, "mirostat": 1, "num_keep": 4, "top_k": 3})
    assert asked(question) == {"messages": HI, "repetition_penalty": 1.1, "top_k": 3}


@pytest.mark.parametrize("limit", [-2, -1, 0])
def test_no_limit_is_none(limit: int) -> None:
    question = chat(messages=HI, options={"num_predict": limit, "stop": "x"})
    assert question.max_tokens is None
    assert asked(question) == {"messages": HI, "stop": ["x"]}


def test_options_for_loading_and_unknown_fields_change_nothing() -> None:
    fields = {"options": {"num_ctx": 8192, "num_gpu": 1, "whatever": 1}, "keep_alive": "5m", "unknown": 1}
    assert asked(chat(messages=HI, **fields)) == {"messages": HI}
    nulls = dict.fromkeys(("stream", "format", "options", "think", "tools", "logprobs", "top_logprobs"))
    assert asked(chat(messages=HI, **nulls)) == {"messages": HI}


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("json", {"type": "json_object"}),
        (SCHEMA, {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}),
    ],
)
def test_formats(form: Any, expected: dict[str, Any]) -> None:
    assert asked(chat(messages=HI, format=form))["response_format"] == expected
    assert asked(generate(prompt="Hi", format=form))["response_format"] == expected
    assert "response_format" not in asked(chat(messages=HI, format=""))


@pytest.mark.parametrize(
    ("think", "expected"),
    [
        (True, {"enable_thinking": True}),
        (False, {"enable_thinking": False}),
        ("low", {"enable_thinking": True, "reasoning_effort": "low"}),
    ],
)
def test_thinking(think: Any, expected: dict[str, Any]) -> None:
    assert asked(chat(messages=HI, think=think))["chat_template_kwargs"] == expected


def test_log_probabilities() -> None:
    assert asked(chat(messages=HI, logprobs=True)) == {"messages": HI, "logprobs": True}
    assert asked(chat(messages=HI, logprobs=True, top_logprobs=2))["top_logprobs"] == 2


def test_tools_and_their_results_are_given_ids() -> None:
    """OpenAI's results name their call; of Ollama's one names its tool at best."""
    function = {"name": "f", "description": "F", "parameters": {"type": "object"}}
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    messages = [
        *HI,
        {
            "role": "assistant",
            "thinking": "hm",
            "tool_calls": [call, {"id": "mine", **call}, {"function": {"name": "g"}}],
        },
        {"role": "tool", "content": "g's", "tool_name": "g"},
        {"role": "tool", "content": "mine", "tool_call_id": "mine"},
        {"role": "tool", "content": "f's"},
        {"role": "tool", "content": "nobody's"},
    ]
    body = asked(chat(messages=messages, tools=[{"type": "function", "function": function}, {"function": function}]))
    assert body["tools"] == [{"type": "function", "function": function}] * 2
    _, said, *results = body["messages"]
    assert said["reasoning_content"] == "hm"
    assert [(made["id"], made["function"]["name"]) for made in said["tool_calls"]] == [
        ("call_1", "f"),
        ("mine", "f"),
        ("call_3", "g"),
    ]
    assert [made["function"]["arguments"] for made in said["tool_calls"]] == ['{"a":1}', '{"a":1}', "{}"]
    assert [(result["content"], result["tool_call_id"]) for result in results] == [
        ("g's", "call_3"),
        ("mine", "mine"),
        ("f's", "call_1"),
        ("nobody's", "call_0"),
    ]
    assert results[0]["name"] == "g"


@pytest.mark.parametrize(
    ("begin", "kind"),
    [
        (b"\x89PNG\r\n", "png"),
        (b"\xff\xd8\xff\xe0", "jpeg"),
        (b"GIF89a", "gif"),
        (b"RIFF....WEBP", "webp"),
        (b"?", "jpeg"),
    ],
)
def test_images_become_data_urls(begin: bytes, kind: str) -> None:
    image = base64.b64encode(begin).decode()
    part = {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{image}"}}
    [turn] = asked(generate(prompt="What?", images=[image]))["messages"]
    assert turn["content"] == [{"type": "text", "text": "What?"}, part]
    [turn] = asked(chat(messages=[{"role": "user", "content": "", "images": [image]}]))["messages"]
    assert turn["content"] == [part]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"format": "xml"}, "invalid format"),
        ({"think": "very"}, "invalid think value"),
        ({"messages": [{"role": "user", "images": ["no base64!"]}]}, "images"),
        ({"messages": [{"content": "x"}]}, "role"),
        ({"model": ""}, "model"),
        ({"options": {"num_predict": MAX_TOKENS + 1}}, "num_predict"),
        ({"options": {"temperature": "hot"}}, "temperature"),
        ({"messages": "Hi"}, "messages"),
    ],
)
def test_what_no_engine_could_take_is_a_bad_request(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(EngineRefusedError, match=told) as refused:
        chat(**{"messages": HI, **fields})
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "fields",
    [
        {"template": "{{ .Prompt }}"},
        {"suffix": "}"},
        {"context": [1, 2]},
        {"raw": True, "images": ["aGk="]},
        {"raw": True, "format": "json"},
        {"raw": True, "logprobs": True},
    ],
)
def test_what_only_ollama_can_do_is_not_supported(fields: dict[str, Any]) -> None:
    with pytest.raises(EngineUnsupportedError, match=f"{[*fields][-1]}.*engine llamacpp"):
        generate(prompt="Hi", **fields)


def test_an_empty_context_is_none() -> None:
    assert asked(generate(prompt="Hi", context=[], suffix="", template="", images=[])) == {"messages": HI}


@pytest.mark.parametrize("field", ["system", "template"])
def test_raw_is_refused_with_what_contradicts_it(field: str) -> None:
    with pytest.raises(EngineRefusedError, match="raw mode does not support"):
        generate(prompt="Hi", raw=True, **{field: "x"})


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model":"\xff"}', b"[" * 100_000])
def test_a_body_that_cannot_be_read_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(EngineRefusedError, match="invalid request"):
        read(CHAT, body)

"""Which requests have an answer that another worker could go on with, and what the others are told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from neurogate.channel import Call
from neurogate.dataplane.recovery import CannotResumeError
from neurogate.gateway.resuming import Transcripts
from neurogate.operations import OPERATIONS

CHAT, TEXT, PROMPT = "/v1/chat/completions", "/v1/completions", "/prompt"
GENERATE, OLLAMA_CHAT = "/api/generate", "/api/chat"
HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "now"}}
SCHEMA = {"type": "object"}


def refusal(path: str, body: bytes) -> str:
    """Why the answer could not be continued; empty when it could."""
    try:
        Transcripts().transcript(Call(path, body, stream=True, deadline=1.0))
    except CannotResumeError as error:
        return str(error)
    return ""


def asking(path: str, **fields: Any) -> str:
    usual: dict[str, Any] = {
        CHAT: {"messages": HELLO},
        TEXT: {"prompt": "Once upon"},
        PROMPT: {"query": "Hello"},
        GENERATE: {"model": "m", "prompt": "Hello"},
        OLLAMA_CHAT: {"model": "m", "messages": HELLO},
    }[path]
    return refusal(path, json.dumps({"stream": True, **usual, **fields}).encode())


@pytest.mark.parametrize("path", [CHAT, TEXT, PROMPT, GENERATE, OLLAMA_CHAT])
def test_a_plain_request_can_be_continued(path: str) -> None:
    assert asking(path) == ""


def test_every_api_that_is_called_resumable_is_read_here() -> None:
    resumable = {path for path, operation in OPERATIONS.items() if operation.resumes}
    assert resumable == {path for path in OPERATIONS if "are not continued" not in refusal(path, b"{}")}
    assert refusal("/v1/messages", b"{}") == "answers of /v1/messages are not continued"


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 5, "max_completion_tokens": 5, "n_predict": 5},
        {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "seed": 7},
        {"stop": ["\n", "User:"], "logit_bias": {"5": -100}},
        {"presence_penalty": 1, "frequency_penalty": 1, "repeat_penalty": 1.1},
        {"user": "u", "metadata": {"a": "b"}, "store": True, "stream_options": {"include_usage": True}},
        {"chat_template_kwargs": {"enable_thinking": False}, "cache_prompt": False, "timings_per_token": True},
        {"tool_choice": "none", "parallel_tool_calls": False},
        {"messages": [{"role": "system", "content": "Be brief"}, *HELLO, {"role": "assistant", "content": "Well, "}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}, {"text": "you"}]}]},
        {"messages": [*HELLO, {"role": "assistant", "content": None, "tool_calls": [TOOL]}, {"role": "tool"}]},
        {"response_format": {"type": "text"}, "modalities": ["text"]},
        {"messages": ["no message"], "modalities": "text", "stream_options": 7},
    ],
)
def test_what_decides_how_tokens_are_drawn_can_be_continued(fields: dict[str, Any]) -> None:
    assert asking(CHAT, **fields) == ""


@pytest.mark.parametrize("nothing", [None, False, 0, "", []])
@pytest.mark.parametrize(
    ("path", "names"),
    [
        (CHAT, "tools functions grammar json_schema response_format logprobs top_logprobs n audio echo modalities"),
        (TEXT, "logprobs n_probs n n_cmpl best_of echo suffix guided_json structured_outputs use_beam_search"),
        (GENERATE, "images format think suffix context raw template logprobs top_logprobs"),
        (OLLAMA_CHAT, "tools format think logprobs"),
    ],
)
def test_empty_values_ask_for_nothing(path: str, names: str, nothing: object) -> None:
    assert asking(path, **dict.fromkeys(names.split(), nothing)) == ""


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"tools": [TOOL]}, "tools"),
        ({"tools": [TOOL], "tool_choice": "none"}, "tools"),
        ({"functions": [{"name": "now"}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "a response format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}}, "a response format"),
        ({"response_format": "json_object"}, "a response format"),
        ({"grammar": 'root ::= "yes"'}, "a grammar"),
        ({"json_schema": SCHEMA}, "a JSON schema"),
        ({"json_schema": {}}, "a JSON schema"),
        ({"guided_json": SCHEMA}, "a JSON schema"),
        ({"structured_outputs": {"regex": "[ab]"}}, "a grammar"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "logprobs"),
        ({"n_probs": 3}, "logprobs"),
        ({"n": 2}, "several answers (n)"),
        ({"n_cmpl": 2}, "several answers (n_cmpl)"),
        ({"modalities": ["text", "audio"]}, "audio"),
        ({"echo": True}, "its prompt to be repeated (echo)"),
        ({"stream_options": {"continuous_usage_stats": True}}, "usage in every event"),
        ({"messages": [{"content": [{"type": "image_url", "image_url": {}}]}]}, "an answer to images"),
        ({"messages": [*HELLO, {"content": [{"type": "input_audio"}]}]}, "an answer to audio"),
        ({"messages": [{"content": [{"type": "hologram"}]}]}, "an answer to 'hologram'"),
    ],
)
def test_a_chat_is_told_what_cannot_be_continued(fields: dict[str, Any], what: str) -> None:
    assert asking(CHAT, **fields) == f"the request asks for {what}"


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"suffix": "the end"}, "a text that ends with a suffix"),
        ({"echo": True}, "its prompt to be repeated (echo)"),
        ({"best_of": 3}, "several answers (best_of)"),
        ({"logprobs": 2}, "logprobs"),
        ({"prompt": ["one", "two"]}, "answers to several prompts"),
        ({"prompt": [[1, 2], [3]]}, "answers to several prompts"),
        ({"prompt": {"prompt_string": "<img>", "multimodal_data": ["..."]}}, "an answer to images"),
        ({"prompt": [{"prompt_string": "<img>"}]}, "an answer to images"),
    ],
)
def test_a_text_completion_is_told_what_cannot_be_continued(fields: dict[str, Any], what: str) -> None:
    assert asking(TEXT, **fields) == f"the request asks for {what}"


@pytest.mark.parametrize("prompt", ["text", ["text"], [1, 2, 3], [[1, 2, 3]], [1, "text", 2], []])
def test_one_prompt_is_one_in_any_form(prompt: Any) -> None:
    assert asking(TEXT, prompt=prompt) == ""


@pytest.mark.parametrize(
    ("path", "fields", "what"),
    [
        (OLLAMA_CHAT, {"tools": [TOOL]}, "tools"),
        (OLLAMA_CHAT, {"format": "json"}, "JSON (format)"),
        (OLLAMA_CHAT, {"format": {}}, "JSON (format)"),
        (OLLAMA_CHAT, {"FORMAT": "json"}, "JSON (format)"),
        (OLLAMA_CHAT, {"think": True}, "reasoning"),
        (OLLAMA_CHAT, {"think": "low"}, "reasoning"),
        (OLLAMA_CHAT, {"messages": [{"role": "user", "content": "?", "images": ["aGk="]}]}, "an answer to images"),
        (GENERATE, {"images": ["aGk="]}, "an answer to images"),
        (GENERATE, {"context": [1, 2]}, "an answer to tokens (context)"),
        (GENERATE, {"suffix": "the end"}, "a text that ends with a suffix"),
        (GENERATE, {"logprobs": True}, "logprobs"),
    ],
)
def test_ollama_is_told_what_cannot_be_continued(path: str, fields: dict[str, Any], what: str) -> None:
    assert asking(path, **fields) == f"the request asks for {what}"


@pytest.mark.parametrize(
    "fields",
    [
        {"raw": True},
        {"system": "Be brief", "keep_alive": "5m", "options": {"seed": 1, "stop": ["\n"], "num_predict": 9}},
        {"template": "{{ .Prompt }}"},
    ],
)
def test_a_prompt_of_ollama_can_be_continued_however_it_is_rendered(fields: dict[str, Any]) -> None:
    """Whether the engine at hand can is for its worker to say."""
    assert asking(GENERATE, **fields) == ""


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 100_000, b'{"a":"\xed\xa0\x80"}'])
@pytest.mark.parametrize("path", [CHAT, TEXT, GENERATE, OLLAMA_CHAT])
def test_a_body_that_cannot_be_read_is_not_continued(path: str, body: bytes) -> None:
    assert refusal(path, body) == "the request cannot be read"

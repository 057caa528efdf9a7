"""Every API that llama.cpp has, through a gateway and a worker to the real engine: the engine's own answers, whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from clients_support import REAL
from cluster import AUTH, Cluster

pytestmark = pytest.mark.model

OWN_TEMPLATE = {name: value for name, value in REAL.items() if name != "NEUROGATE_ENGINE_CHAT_TEMPLATE"}
MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": False}


@pytest.fixture(scope="module")
def api(smollm2_path: Any) -> Iterator[httpx.Client]:
    with (
        Cluster(1, gateway={"NEUROGATE_MODEL_ALIASES": "gpt-4=smollm2-135m-instruct"}, **OWN_TEMPLATE) as cluster,
        httpx.Client(base_url=cluster.url, headers=AUTH, timeout=60) as client,
    ):
        asyncio.run(_until_ready(cluster))
        yield client


async def _until_ready(cluster: Cluster) -> None:
    async with cluster.client() as client:
        await cluster.until_ready(client)


def asked(api: httpx.Client, path: str, **fields: Any) -> Any:
    answer = api.post(path, json=fields)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    return answer.json()


def refused(api: httpx.Client, path: str, status: int, **fields: Any) -> Any:
    answer = api.post(path, json=fields)
    assert answer.status_code == status, answer.text
    return answer.json()["error"]


def streamed(api: httpx.Client, path: str, **fields: Any) -> list[tuple[str, Any]]:
    """The (event type, data) of a stream."""
    answer = api.post(path, json={**fields, "stream": True})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream"), answer.text
    events = []
    for block in answer.text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        data = fields["data"]
        events.append((fields.get("event", ""), data if data == "[DONE]" else json.loads(data)))
    return events


def test_the_worker_says_what_its_engine_can_do(api: httpx.Client) -> None:
    [worker] = api.get("/workers").json()["workers"]
    assert {"/v1/messages", "/v1/responses", "/completion", "/tokenize", "/apply-template"} <= set(worker["apis"])
    assert not {"/v1/rerank", "/infill"} & set(worker["apis"])


# Anthropic


def test_a_message_whole(api: httpx.Client) -> None:
    said = asked(api, "/v1/messages", messages=MESSAGES, max_tokens=4)
    assert (said["type"], said["stop_reason"], said["usage"]["output_tokens"]) == ("message", "max_tokens", 4)
    assert said["content"][0]["text"]


def test_a_message_as_a_stream(api: httpx.Client) -> None:
    events = streamed(api, "/v1/messages", messages=MESSAGES, max_tokens=4)
    names = [name for name, _ in events]
    assert (names[0], names[-1]) == ("message_start", "message_stop")
    assert names.count("content_block_delta") == 4
    [delta] = [data for name, data in events if name == "message_delta"]
    assert (delta["delta"]["stop_reason"], delta["usage"]["output_tokens"]) == ("max_tokens", 4)


def test_tokens_are_counted(api: httpx.Client) -> None:
    assert asked(api, "/v1/messages/count_tokens", messages=MESSAGES)["input_tokens"] > 10


def test_an_engines_refusal_is_in_anthropics_words(api: httpx.Client) -> None:
    answer = api.post("/v1/messages", json={"messages": [{"role": "user", "content": "x " * 9000}], "max_tokens": 4})
    assert answer.status_code == 400
    said = answer.json()
    assert (said["type"], said["error"]["type"]) == ("error", "invalid_request_error")
    assert "context size" in said["error"]["message"]


# OpenAI


def test_a_response_whole_and_as_a_stream(api: httpx.Client) -> None:
    said = asked(api, "/v1/responses", input="Say hi", max_output_tokens=4)
    assert (said["object"], said["usage"]["output_tokens"]) == ("response", 4)
    events = streamed(api, "/v1/responses", input="Say hi", max_output_tokens=4)
    assert (events[0][0], events[-1][0]) == ("response.created", "response.completed")
    assert events[-1][1]["response"]["usage"]["output_tokens"] == 4


def test_several_choices(api: httpx.Client) -> None:
    said = asked(api, "/v1/chat/completions", messages=MESSAGES, max_tokens=3, n=2)
    assert [choice["index"] for choice in said["choices"]] == [0, 1]
    events = streamed(api, "/v1/chat/completions", messages=MESSAGES, max_tokens=3, n=2)
    choices = [choice for _, data in events[:-1] for choice in data["choices"]]
    assert {choice["index"] for choice in choices if choice["finish_reason"]} == {0, 1}
    assert events[-1][1] == "[DONE]"


def test_usage_at_the_end_of_a_stream_is_for_those_who_ask(api: httpx.Client) -> None:
    asking = {"messages": MESSAGES, "max_tokens": 3, "stream_options": {"include_usage": True}}
    *_, (_, usage), (_, done) = streamed(api, "/v1/chat/completions", **asking)
    assert (usage["choices"], usage["usage"]["completion_tokens"], done) == ([], 3, "[DONE]")
    assert not any(
        "usage" in data for _, data in streamed(api, "/v1/chat/completions", messages=MESSAGES, max_tokens=3)[:-1]
    )


def test_log_probabilities(api: httpx.Client) -> None:
    said = asked(api, "/v1/chat/completions", messages=MESSAGES, max_tokens=2, logprobs=True, top_logprobs=2)
    [first, _] = said["choices"][0]["logprobs"]["content"]
    assert len(first["top_logprobs"]) == 2


def test_a_json_schema_and_a_grammar_are_kept_to(api: httpx.Client) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
    said = asked(
        api, "/v1/chat/completions", messages=MESSAGES, max_tokens=60, temperature=0, seed=1, response_format=schema
    )
    assert set(json.loads(said["choices"][0]["message"]["content"])) == {"a"}
    said = asked(api, "/v1/chat/completions", messages=MESSAGES, max_tokens=8, grammar='root ::= "yes" | "no"')
    assert said["choices"][0]["message"]["content"] in {"yes", "no"}
    assert (
        "grammar" in refused(api, "/v1/chat/completions", 400, messages=MESSAGES, grammar="root := broken")["message"]
    )


def test_tools_that_the_models_template_leaves_out_are_not_ignored(api: httpx.Client) -> None:
    tool = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}
    error = refused(api, "/v1/chat/completions", 501, messages=MESSAGES, tools=[tool])
    assert error["code"] == "not_supported"
    assert "llamacpp does not do 'tools'" in error["message"]


def test_images_and_other_fields_that_it_has_not_are_told(api: httpx.Client) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    error = refused(api, "/v1/chat/completions", 501, messages=[{"role": "user", "content": [image]}])
    assert "the engine llamacpp cannot do /v1/chat/completions: image input is not supported" in error["message"]
    assert "'echo'" in refused(api, "/v1/completions", 501, prompt="x", echo=True)["message"]


def test_a_limit_of_no_tokens_and_one_that_contradicts_are_refused(api: httpx.Client) -> None:
    assert refused(api, "/v1/chat/completions", 400, messages=MESSAGES, max_tokens=0)["param"] == "max_tokens"
    error = refused(api, "/v1/completions", 400, prompt="x", max_tokens=1, n_predict=9)
    assert error["param"] == "n_predict"


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/rerank", {"query": "x", "documents": ["y"]}),
        ("/infill", {"input_prefix": "def f(", "input_suffix": ")", "n_predict": 4}),
    ],
)
def test_an_api_that_the_engine_has_not_names_the_engine(api: httpx.Client, path: str, fields: Any) -> None:
    error = refused(api, path, 501, **fields)
    assert error["type"] == "not_supported_error"
    assert error["message"] == f"no worker can do {path}: the engines are llamacpp (worker-0)"


# llama.cpp's own


def test_a_completion_whole_and_as_a_stream(api: httpx.Client) -> None:
    said = asked(api, "/completion", prompt="Hello", n_predict=4, temperature=0)
    assert (said["stop_type"], said["tokens_predicted"]) == ("limit", 4)
    events = streamed(api, "/completion", prompt="Hello", n_predict=4, temperature=0)
    assert "".join(data["content"] for _, data in events) == said["content"]
    assert [data["stop"] for _, data in events] == [False] * 4 + [True]


def test_several_completions_as_a_stream(api: httpx.Client) -> None:
    events = streamed(api, "/completion", prompt="Hello", n_predict=3, n_cmpl=2)
    assert {data["index"] for _, data in events if data["stop"]} == {0, 1}
    prompts = streamed(api, "/completion", prompt=["Hello", "Bye"], n_predict=3)
    assert {data["index"] for _, data in prompts if data and data["stop"]} == {0, 1}
    assert [each["stop"] for each in asked(api, "/completion", prompt=["Hello", "Bye"], n_predict=3)] == [True, True]
    fields = streamed(api, "/completion", prompt="Hello", n_predict=2, response_fields=["content"])
    assert fields[-1][1] == {"content": ""}


def test_text_to_tokens_and_back(api: httpx.Client) -> None:
    tokens = asked(api, "/tokenize", content="Hello world")["tokens"]
    assert asked(api, "/detokenize", tokens=tokens) == {"content": "Hello world"}
    assert refused(api, "/detokenize", 400, tokens=[99999999])["code"] == 400


def test_a_template_is_applied(api: httpx.Client) -> None:
    assert "capital of France" in asked(api, "/apply-template", messages=MESSAGES)["prompt"]


# Names


def test_an_alias_is_as_good_as_the_model(api: httpx.Client) -> None:
    [model] = [entry["id"] for entry in api.get("/v1/models").json()["data"] if "root" not in entry]
    for name in (model, "gpt-4", f"{model}:latest"):
        assert asked(api, "/v1/chat/completions", model=name, messages=MESSAGES, max_tokens=2)["model"] == model
        assert asked(api, "/v1/messages", model=name, messages=MESSAGES, max_tokens=2)["model"] == model
    assert api.get("/v1/models/gpt-4").json()["root"] == model
    error = refused(api, "/v1/messages", 404, model="nothing", messages=MESSAGES, max_tokens=2)
    assert error["type"] == "not_found_error"
    assert model in error["message"]


def test_nothing_opened_the_workers_breaker(api: httpx.Client) -> None:
    [worker] = api.get("/workers").json()["workers"]
    assert (worker["circuit_breaker_state"], worker["consecutive_failures"]) == ("closed", 0)

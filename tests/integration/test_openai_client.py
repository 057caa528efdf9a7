"""The official OpenAI client against a gateway, in front of the simulated and of the real engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from clients_support import REAL, SIM, Service, service, weather_talk

MESSAGES: Any = [{"role": "user", "content": "What is the capital of France?"}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
TALK: Any = weather_talk(json.dumps)
SCHEMA: Any = {
    "type": "json_schema",
    "json_schema": {
        "name": "person",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
            "required": ["name", "age"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(
    scope="module", params=[pytest.param(SIM, id="sim"), pytest.param(REAL, id="real", marks=pytest.mark.model)]
)
def fleet(request: pytest.FixtureRequest, smollm2_path: Any) -> Iterator[Service]:
    with service(request.param) as made:
        yield made


@pytest.fixture
def client(fleet: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=fleet.openai_url, api_key=fleet.key, max_retries=0, timeout=60) as made:
        yield made


def test_a_chat(client: openai.OpenAI, fleet: Service):
    answer = client.chat.completions.create(model=fleet.model, messages=MESSAGES, max_tokens=8, temperature=0)

    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in {"stop", "length"}
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_streamed_chat_is_the_whole_one_in_pieces(client: openai.OpenAI, fleet: Service):
    asked: Any = {"model": fleet.model, "messages": MESSAGES, "max_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(**asked)

    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))

    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(choice.delta.content or "" for choice in choices) == whole.choices[0].message.content
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == [whole.choices[0].finish_reason]
    assert [chunk.usage.completion_tokens for chunk in chunks if chunk.usage] == [whole.usage.completion_tokens]
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_completion(client: openai.OpenAI, fleet: Service):
    answer = client.completions.create(model=fleet.model, prompt="Once upon a time", max_tokens=6, temperature=0)

    assert answer.choices[0].text
    assert answer.object == "text_completion"


def test_a_tool_is_called(client: openai.OpenAI, fleet: Service):
    answer = client.chat.completions.create(
        model=fleet.model,
        messages=TALK,
        tools=[TOOL],
        tool_choice="required",
        max_tokens=64,
        temperature=0,
    )

    (call, *_) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert "city" in json.loads(call.function.arguments)
    assert answer.choices[0].finish_reason == "tool_calls"


def test_a_tool_is_called_in_a_stream(client: openai.OpenAI, fleet: Service):
    stream = client.chat.completions.create(
        model=fleet.model,
        messages=TALK,
        tools=[TOOL],
        tool_choice="required",
        max_tokens=64,
        temperature=0,
        stream=True,
    )

    name, arguments = "", ""
    for chunk in stream:
        for choice in chunk.choices:
            for call in choice.delta.tool_calls or []:
                assert call.function is not None
                name += call.function.name or ""
                arguments += call.function.arguments or ""
    assert name == "get_weather"
    assert "city" in json.loads(arguments)


def test_an_answer_keeps_to_a_json_schema(client: openai.OpenAI, fleet: Service):
    answer = client.chat.completions.create(
        model=fleet.model,
        messages=[{"role": "user", "content": "Describe Ann, who is 30, as JSON."}],
        response_format=SCHEMA,
        max_tokens=128,
        temperature=0,
    )

    person = json.loads(answer.choices[0].message.content or "")
    assert set(person) == {"name", "age"}
    assert isinstance(person["age"], int)


def test_log_probabilities(client: openai.OpenAI, fleet: Service):
    answer = client.chat.completions.create(
        model=fleet.model, messages=MESSAGES, max_tokens=3, temperature=0, logprobs=True, top_logprobs=2
    )

    found = answer.choices[0].logprobs
    assert found is not None
    assert found.content
    assert all(token.logprob <= 0 for token in found.content)


def test_embeddings(client: openai.OpenAI, fleet: Service):
    answer = client.embeddings.create(model=fleet.model, input=["a fox", "a dog"])

    first, second = (row.embedding for row in answer.data)
    assert len(first) == len(second) > 0
    assert first != second
    assert all(isinstance(value, float) for value in first)


def test_a_response(client: openai.OpenAI, fleet: Service):
    answer = client.responses.create(model=fleet.model, input="Say hello.", max_output_tokens=16)

    assert answer.output_text


def test_a_streamed_response(client: openai.OpenAI, fleet: Service):
    events = list(client.responses.create(model=fleet.model, input="Say hello.", max_output_tokens=16, stream=True))

    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text
    assert events[-1].type in {"response.completed", "response.incomplete"}


def test_the_models_are_listed_and_found(client: openai.OpenAI, fleet: Service):
    names = [model.id for model in client.models.list()]

    assert fleet.model in names
    assert client.models.retrieve(fleet.model).id == fleet.model
    with pytest.raises(openai.NotFoundError, match=fleet.model):
        client.models.retrieve("no-such-model")


def test_an_unknown_model_is_named_with_those_there_are(client: openai.OpenAI, fleet: Service):
    with pytest.raises(openai.NotFoundError, match=fleet.model) as raised:
        client.chat.completions.create(model="no-such-model", messages=MESSAGES)

    assert raised.value.code == "model_not_found"


def test_a_wrong_field_is_named(client: openai.OpenAI, fleet: Service):
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model=fleet.model, messages=MESSAGES, temperature=9)

    assert raised.value.param == "temperature"


def test_a_wrong_key_is_told(fleet: Service):
    stranger = openai.OpenAI(base_url=fleet.openai_url, api_key="wrong", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError) as raised:
        stranger.models.list()

    assert raised.value.code == "invalid_api_key"


def test_a_client_that_times_out_frees_its_slot(client: openai.OpenAI, fleet: Service):
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.001).chat.completions.create(model=fleet.model, messages=MESSAGES, max_tokens=256)

    answer = client.chat.completions.create(model=fleet.model, messages=MESSAGES, max_tokens=2)
    assert answer.choices


def test_a_client_that_is_told_to_wait_comes_again():
    """Its own retry, by our Retry-After: the queue has no place while another request is served."""
    statuses: list[int] = []
    watched = httpx.Client(event_hooks={"response": [lambda response: statuses.append(response.status_code)]})
    bounds = {"NEUROGATE_MAX_CONCURRENT": "1", "NEUROGATE_MAX_QUEUE": "0"}
    with (
        service(SIM, gateway=bounds) as busy,
        openai.OpenAI(base_url=busy.openai_url, api_key=busy.key, max_retries=0) as first,
        openai.OpenAI(base_url=busy.openai_url, api_key=busy.key, max_retries=5, http_client=watched) as second,
    ):
        endless: Any = {"model": busy.model, "prompt": "Go on.", "max_tokens": 1_000_000, "stream": True}
        stream = first.completions.create(**endless, extra_body={"ignore_eos": True})
        next(iter(stream))
        with pytest.raises(openai.InternalServerError) as refused:
            second.with_options(max_retries=0).completions.create(model=busy.model, prompt="Hello.", max_tokens=1)
        assert refused.value.code == "queue_full"

        stream.close()
        answer = second.completions.create(model=busy.model, prompt="Hello.", max_tokens=1)

    assert answer.choices[0].text
    assert statuses[0] == 503
    assert statuses[-1] == 200

"""The official Ollama client against a gateway, in front of the simulated and of the real engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ollama
import pytest

from clients_support import REAL, SIM, Service, service, weather_talk

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
FEW: dict[str, Any] = {"num_predict": 8, "temperature": 0}


@pytest.fixture(
    scope="module", params=[pytest.param(SIM, id="sim"), pytest.param(REAL, id="real", marks=pytest.mark.model)]
)
def fleet(request: pytest.FixtureRequest, smollm2_path: Any) -> Iterator[Service]:
    with service(request.param) as made:
        yield made


@pytest.fixture
def client(fleet: Service) -> Iterator[ollama.Client]:
    with ollama.Client(host=fleet.url, headers={"Authorization": f"Bearer {fleet.key}"}, timeout=60) as made:
        yield made


def test_generate(client: ollama.Client, fleet: Service):
    answer = client.generate(model=fleet.model, prompt="Say hello.", options=FEW)

    assert answer.response
    assert answer.done
    assert answer.done_reason in {"stop", "length"}
    assert 1 <= (answer.eval_count or 0) <= 8
    assert (answer.total_duration or 0) > 0


def test_a_streamed_generation_is_the_whole_one_in_pieces(client: ollama.Client, fleet: Service):
    whole = client.generate(model=fleet.model, prompt="Say hello.", options=FEW)

    pieces = list(client.generate(model=fleet.model, prompt="Say hello.", options=FEW, stream=True))

    assert "".join(piece.response for piece in pieces) == whole.response
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert pieces[-1].eval_count == whole.eval_count
    assert pieces[-1].prompt_eval_count == whole.prompt_eval_count


def test_chat(client: ollama.Client, fleet: Service):
    answer = client.chat(model=fleet.model, messages=MESSAGES, options=FEW)

    assert answer.message.role == "assistant"
    assert answer.message.content
    assert answer.prompt_eval_count


def test_a_streamed_chat_is_the_whole_one_in_pieces(client: ollama.Client, fleet: Service):
    whole = client.chat(model=fleet.model, messages=MESSAGES, options=FEW)

    pieces = list(client.chat(model=fleet.model, messages=MESSAGES, options=FEW, stream=True))

    assert "".join(piece.message.content or "" for piece in pieces) == whole.message.content
    assert pieces[-1].done
    assert pieces[-1].done_reason == whole.done_reason


def test_a_tool_is_called(client: ollama.Client, fleet: Service):
    city = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    weather = {"name": "get_weather", "description": "Get the weather of a city", "parameters": city}
    answer = client.chat(
        model=fleet.model,
        messages=weather_talk(dict),
        tools=[{"type": "function", "function": weather}],
        options={"num_predict": 64, "temperature": 0},
    )

    (call,) = answer.message.tool_calls or []
    assert call.function.name == "get_weather"
    assert "city" in call.function.arguments


def test_embed(client: ollama.Client, fleet: Service):
    answer = client.embed(model=fleet.model, input=["a fox", "a dog"])

    first, second = answer.embeddings
    assert len(first) == len(second) > 0


def test_what_there_is(client: ollama.Client, fleet: Service):
    names = {model.model for model in client.list().models}
    loaded = {model.model for model in client.ps().models}

    assert fleet.model in names
    assert fleet.model in loaded
    assert client.show(fleet.model).modelinfo is not None


def test_a_name_with_latest_is_the_same_model(client: ollama.Client, fleet: Service):
    assert client.generate(model=f"{fleet.model}:latest", prompt="Say hello.", options=FEW).response


def test_an_unknown_model_is_told(client: ollama.Client):
    with pytest.raises(ollama.ResponseError, match="not found") as raised:
        client.generate(model="no-such-model", prompt="Say hello.")

    assert raised.value.status_code == 404


def test_pulling_is_for_the_workers_own_ollama(client: ollama.Client, fleet: Service):
    with pytest.raises(ollama.ResponseError) as raised:
        client.pull(fleet.model)

    assert raised.value.status_code == 501


def test_a_stranger_is_not_let_in(fleet: Service):
    with ollama.Client(host=fleet.url) as stranger, pytest.raises(ollama.ResponseError) as raised:
        stranger.list()

    assert raised.value.status_code == 401

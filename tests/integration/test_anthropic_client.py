"""The official Anthropic client against a gateway, in front of the simulated and of the real engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from clients_support import REAL, SIM, Service, service

MESSAGES: Any = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(
    scope="module", params=[pytest.param(SIM, id="sim"), pytest.param(REAL, id="real", marks=pytest.mark.model)]
)
def fleet(request: pytest.FixtureRequest, smollm2_path: Any) -> Iterator[Service]:
    with service(request.param) as made:
        yield made


@pytest.fixture
def client(fleet: Service) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=fleet.url, api_key=fleet.key, max_retries=0, timeout=60) as made:
        yield made


def test_a_message(client: anthropic.Anthropic, fleet: Service):
    answer = client.messages.create(model=fleet.model, messages=MESSAGES, max_tokens=8, system="Be brief.")

    assert answer.role == "assistant"
    assert "".join(block.text for block in answer.content if block.type == "text")
    assert answer.stop_reason in {"end_turn", "max_tokens"}
    assert 1 <= answer.usage.output_tokens <= 8


def test_a_streamed_message(client: anthropic.Anthropic, fleet: Service):
    with client.messages.stream(model=fleet.model, messages=MESSAGES, max_tokens=8) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()

    assert text
    assert "".join(block.text for block in final.content if block.type == "text") == text
    assert final.stop_reason in {"end_turn", "max_tokens"}
    assert final.usage.output_tokens >= 1


def test_tokens_are_counted(client: anthropic.Anthropic, fleet: Service):
    assert client.messages.count_tokens(model=fleet.model, messages=MESSAGES).input_tokens > 0


def test_the_models_are_listed(client: anthropic.Anthropic, fleet: Service):
    assert fleet.model in [model.id for model in client.models.list()]


def test_every_answer_and_error_has_a_request_id(client: anthropic.Anthropic, fleet: Service):
    """Where the client looks for it, whole, streamed or refused early or late; it is the one that the body tells."""
    named = {"x-request-id": "mine-7"}
    answer = client.messages.create(model=fleet.model, messages=MESSAGES, max_tokens=4, extra_headers=named)
    assert answer._request_id == "mine-7"
    with client.messages.stream(model=fleet.model, messages=MESSAGES, max_tokens=4, extra_headers=named) as stream:
        assert stream.request_id == "mine-7"
    for wrong in ({"model": "no-such-model"}, {"max_tokens": -5}):
        asked = {"model": fleet.model, "max_tokens": 4, **wrong}
        with pytest.raises(anthropic.APIStatusError) as refused:
            client.messages.create(messages=MESSAGES, extra_headers=named, **asked)
        assert refused.value.request_id == "mine-7"
        assert isinstance(refused.value.body, dict)
        assert refused.value.body["request_id"] == "mine-7"


def test_an_unknown_model_is_told(client: anthropic.Anthropic, fleet: Service):
    with pytest.raises(anthropic.NotFoundError, match=fleet.model):
        client.messages.create(model="no-such-model", messages=MESSAGES, max_tokens=8)


def test_a_wrong_body_is_told(client: anthropic.Anthropic, fleet: Service):
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        client.messages.create(model=fleet.model, messages=MESSAGES, max_tokens=-5)


def test_a_stranger_is_not_let_in(fleet: Service):
    stranger = anthropic.Anthropic(base_url=fleet.url, api_key="wrong", max_retries=0)
    with stranger, pytest.raises(anthropic.AuthenticationError):
        stranger.messages.create(model=fleet.model, messages=MESSAGES, max_tokens=8)

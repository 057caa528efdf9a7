"""Ollama's API on the real llama.cpp engine: the same words and counts as by OpenAI's, with true durations."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import ollama
import pytest

from cluster import KEY, Cluster

pytestmark = pytest.mark.model

MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY: dict[str, Any] = {"temperature": 0, "seed": 1, "num_predict": 12, "top_k": 1, "repeat_penalty": 1.1}
REAL = {"NEUROGATE_ENGINE": "llamacpp", "NEUROGATE_ENGINE_THREADS": "1", "NEUROGATE_ENGINE_SLOTS": "2"}
MODEL = "smollm2-135m-instruct"
AUTH = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def url(smollm2_path: Any) -> Iterator[str]:
    async def ready(made: Cluster) -> None:
        async with made.client() as client:
            await made.until_ready(client)

    with Cluster([{}], **REAL) as made:
        asyncio.run(ready(made))
        yield made.url


def openai(url: str, path: str, **fields: Any) -> Any:
    body = {"model": MODEL, "temperature": 0, "seed": 1, "max_tokens": 12, "top_k": 1, "repeat_penalty": 1.1, **fields}
    answer = httpx.post(f"{url}{path}", json=body, headers=AUTH, timeout=60)
    assert answer.status_code == 200
    return answer.json()


def assert_counted(last: ollama.ChatResponse | ollama.GenerateResponse, usage: dict[str, int]) -> None:
    """As many tokens as OpenAI's API tells, and durations that add up."""
    assert (last.prompt_eval_count, last.eval_count) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert last.total_duration is not None
    assert last.prompt_eval_duration is not None
    assert last.eval_duration is not None
    assert last.prompt_eval_duration > 0
    assert last.eval_duration > 0
    assert last.total_duration >= 0.5 * (last.prompt_eval_duration + last.eval_duration)
    assert last.load_duration == 0


def test_words_and_counts_are_those_of_openais_api(url: str) -> None:
    chat = openai(url, "/v1/chat/completions", messages=MESSAGES)
    text = chat["choices"][0]["message"]["content"]
    with ollama.Client(host=url, headers=AUTH, timeout=60) as client:
        whole = client.chat(MODEL, MESSAGES, options=GREEDY)
        assert whole.message.content == text
        assert whole.done_reason == ("length" if chat["choices"][0]["finish_reason"] == "length" else "stop")
        assert_counted(whole, chat["usage"])
        pieces = list(client.chat(f"{MODEL}:latest", MESSAGES, options=GREEDY, stream=True))
        assert "".join(piece.message.content or "" for piece in pieces) == text
        assert_counted(pieces[-1], chat["usage"])
        generated = client.generate(MODEL, MESSAGES[0]["content"], options=GREEDY)
        assert generated.response == text
        assert_counted(generated, chat["usage"])
        completed = openai(url, "/v1/completions", prompt="The capital of France is")
        parts = list(client.generate(MODEL, "The capital of France is", raw=True, options=GREEDY, stream=True))
        assert "".join(part.response for part in parts) == completed["choices"][0]["text"]
        assert_counted(parts[-1], completed["usage"])


def test_json_comes_by_its_schema(url: str) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "large": {"type": "boolean"}},
        "required": ["city", "large"],
    }
    with ollama.Client(host=url, headers=AUTH, timeout=60) as client:
        options = {"temperature": 0, "num_predict": 100}
        answer = client.chat(MODEL, MESSAGES, format=schema, options=options)
        found = json.loads(answer.message.content or "")
        assert isinstance(found["city"], str)
        assert isinstance(found["large"], bool)
        free = client.generate(MODEL, "Answer with JSON: the capital of France", format="json", options=options)
        assert free.response.lstrip().startswith("{")


def test_the_model_is_shown_as_llamacpp_knows_it(url: str) -> None:
    with ollama.Client(host=url, headers=AUTH, timeout=60) as client:
        shown = client.show(MODEL)
    assert shown.details is not None
    assert (shown.details.family, shown.details.quantization_level) == ("llama", "Q4_1")
    assert shown.details.parameter_size == "134.52M"
    assert (shown.modelinfo or {})["llama.context_length"] == 4096
    assert "im_start" in (shown.template or "")
    assert "completion" in (shown.capabilities or [])

"""LiteLLM as a client of a gateway, in front of the simulated and of the real engine.

It runs in a process of its own: what it does to its surroundings at import (loops, warnings, threads) stays there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from clients_support import REAL, SIM, Service, service, unmeasured

SCRIPT = """
import json, os, sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it asks the internet for prices otherwise
import litellm

litellm.telemetry = False
litellm.suppress_debug_info = True
url, key, model = sys.argv[1:]
said = [{"role": "user", "content": "What is the capital of France?"}]
openai = {"model": f"openai/{model}", "api_base": f"{url}/v1", "api_key": key, "messages": said, "max_tokens": 8}
anthropic = {**openai, "model": f"anthropic/{model}", "api_base": url}
ollama = {**openai, "model": f"ollama_chat/{model}", "api_base": url}
found = {}
for name, call in {"openai": openai, "anthropic": anthropic, "ollama": ollama}.items():
    whole = litellm.completion(**call)
    pieces = list(litellm.completion(**call, stream=True))
    found[name] = {
        "whole": whole.choices[0].message.content,
        "tokens": whole.usage.completion_tokens,
        "streamed": "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices),
        "finished": [piece.choices[0].finish_reason for piece in pieces if piece.choices][-1],
    }
embedded = litellm.embedding(
    model=f"openai/{model}", api_base=f"{url}/v1", api_key=key, input=["a fox"], encoding_format="float"
)
found["embedding"] = len(embedded.data[0]["embedding"])
try:
    litellm.completion(**{**openai, "model": "openai/no-such-model"})
except litellm.NotFoundError as error:
    found["unknown"] = type(error).__name__
try:
    litellm.completion(**{**openai, "api_key": "wrong"})
except litellm.AuthenticationError as error:
    found["stranger"] = type(error).__name__
print(json.dumps(found))
"""


@pytest.fixture(
    scope="module", params=[pytest.param(SIM, id="sim"), pytest.param(REAL, id="real", marks=pytest.mark.model)]
)
def fleet(request: pytest.FixtureRequest, smollm2_path: Any) -> Iterator[Service]:
    with service(request.param) as made:
        yield made


def test_litellm_is_served(fleet: Service):
    command = [sys.executable, "-c", SCRIPT, fleet.url, fleet.key, fleet.model]
    done = subprocess.run(command, env=unmeasured(), capture_output=True, text=True, timeout=110, check=False)

    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for name in ("openai", "anthropic", "ollama"):
        assert found[name]["whole"], name
        assert found[name]["streamed"], name
        assert found[name]["finished"] in {"stop", "length"}, name
    assert found["embedding"] > 0
    assert (found["unknown"], found["stranger"]) == ("NotFoundError", "AuthenticationError")

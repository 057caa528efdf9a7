"""A fleet of processes for the official clients, its engine simulated or real."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import KEY, Cluster

SIM = {"NEUROGATE_ENGINE": "sim", "NEUROGATE_SIM_DECODE_TPS": "500", "NEUROGATE_SIM_PREFILL_TPS": "0"}
INSTANT = {**SIM, "NEUROGATE_SIM_DECODE_TPS": "0"}
REAL = {
    "NEUROGATE_ENGINE": "llamacpp",
    "NEUROGATE_ENGINE_THREADS": "1",
    "NEUROGATE_ENGINE_SLOTS": "2",
    "NEUROGATE_ENGINE_CHAT_TEMPLATE": str(Path(__file__).parent / "data" / "tools.jinja"),
}
"""The default model's own template tells it nothing of tools."""


def unmeasured() -> dict[str, str]:
    """The environment of a program that is not ours, whose coverage would tell nothing and take long."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def weather_talk(arguments: Callable[[dict[str, str]], Any]) -> list[dict[str, Any]]:
    """A talk in which a tool was called three times: a model of 135 million parameters goes on like that."""
    talk: list[dict[str, Any]] = []
    for number, city in enumerate(("London", "Rome", "Berlin")):
        called = {"name": "get_weather", "arguments": arguments({"city": city})}
        talk += [
            {"role": "user", "content": f"What is the weather in {city}? Use the tool."},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": f"call-{number}", "type": "function", "function": called}],
            },
            {"role": "tool", "tool_call_id": f"call-{number}", "content": "sunny"},
            {"role": "assistant", "content": "It is sunny."},
        ]
    return [*talk, {"role": "user", "content": "What is the weather in Paris? Use the tool."}]


@dataclass(frozen=True)
class Service:
    """Where the clients go, and what to ask for."""

    url: str
    model: str
    """Chats, completes and embeds."""
    key: str = KEY

    @property
    def openai_url(self) -> str:
        return f"{self.url}/v1"


@contextmanager
def service(engine: Mapping[str, str], *, gateway: Mapping[str, str] | None = None) -> Iterator[Service]:
    """A gateway with workers of that engine, all of them ready."""
    with Cluster(1, gateway=dict(gateway or {}), **engine) as cluster:

        async def model() -> str:
            async with cluster.client() as client:
                await cluster.until_ready(client)
                ((name, *_),) = [state["models"] for state in await cluster.states(client)]
            return str(name)

        yield Service(cluster.url, asyncio.run(model()))

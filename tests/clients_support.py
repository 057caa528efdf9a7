"""A fleet of processes for the official clients: one model that chats and one that embeds, simulated or real."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from cluster import KEY, Cluster

SIM = {"NEUROGATE_ENGINE": "sim", "NEUROGATE_SIM_DECODE_TPS": "500", "NEUROGATE_SIM_PREFILL_TPS": "0"}
INSTANT = {**SIM, "NEUROGATE_SIM_DECODE_TPS": "0"}
REAL = {"NEUROGATE_ENGINE": "llamacpp", "NEUROGATE_ENGINE_THREADS": "1", "NEUROGATE_ENGINE_SLOTS": "2"}
EMBEDS = {"NEUROGATE_ENGINE_TASK": "embed"}


@dataclass(frozen=True)
class Service:
    """Where the clients go, and what to ask for."""

    url: str
    model: str
    embedder: str
    key: str = KEY

    @property
    def openai_url(self) -> str:
        return f"{self.url}/v1"


@contextmanager
def service(engine: Mapping[str, str], *, gateway: Mapping[str, str] | None = None) -> Iterator[Service]:
    """A gateway with workers of that engine, all of them ready."""
    embedding_worker = [dict(EMBEDS)] if engine["NEUROGATE_ENGINE"] == "llamacpp" else []
    with Cluster([{}, *embedding_worker], gateway=dict(gateway or {}), **engine) as cluster:

        async def names() -> list[str]:
            async with cluster.client() as client:
                await cluster.until_ready(client)
                return [state["models"][0] for state in await cluster.states(client)]

        models = asyncio.run(names())
        yield Service(cluster.url, models[0], models[-1])

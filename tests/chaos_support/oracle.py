"""What the answers should be: the simulated engine asked directly, with no gateway or worker between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from chaos_support.answers import Said
from chaos_support.checker import APIS, Api, Expected
from chaos_support.client import Target, ask
from cluster import Process

_AT_ONCE = 32


class Oracle:
    """Remembers what it was told."""

    def __init__(self, port: int) -> None:
        self._target = Target(port)
        self._known: dict[tuple[str, str, int], Expected] = {}
        self._whose: dict[str, str] = {}
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def learn(self, questions: Iterable[tuple[Api | None, str, int]]) -> None:
        """Ask what is not known yet. No API stands for gRPC."""
        async with asyncio.TaskGroup() as asking:
            for api, prompt, max_tokens in dict.fromkeys(questions):
                key = _key(api, prompt, max_tokens)
                if key not in self._known:
                    asking.create_task(self._ask(key))

    def expected(self, api: Api | None, prompt: str, max_tokens: int) -> Expected:
        return self._known[_key(api, prompt, max_tokens)]

    def forget(self, api: Api | None, prompt: str, max_tokens: int) -> None:
        """Nobody will ask this again."""
        expected = self._known.pop(_key(api, prompt, max_tokens), None)
        if expected is not None:
            self._whose.pop(expected.text, None)

    def whose(self, text: str) -> str:
        """The prompt whose whole answer this text is, or nothing."""
        return self._whose.get(text, "")

    async def _ask(self, key: tuple[str, str, int]) -> None:
        family, prompt, max_tokens = key
        api = APIS[family]
        async with self._turns:
            received = await ask(self._target, api, prompt, max_tokens)
        assert received.status == 200, received
        assert received.complete
        said = next(iter(api.said(received.body)))
        self._known[key] = _expected(said)
        self._whose[said.text] = f"the answer to {prompt!r}, {family}"


def _key(api: Api | None, prompt: str, max_tokens: int) -> tuple[str, str, int]:
    """All APIs but one wrap the prompt in the same conversation."""
    raw = api is not None and api.path == "/v1/completions"
    return "completions" if raw else "chat", prompt, max_tokens


def _expected(said: Said) -> Expected:
    assert said.usage is not None
    assert said.finish is not None
    return Expected(said.text, said.finish, *said.usage)


@contextmanager
def oracle() -> Iterator[Oracle]:
    """One with an engine of its own, as fast as it can be."""
    settings = {"NEUROGATE_SIM_PREFILL_TPS": "0", "NEUROGATE_SIM_DECODE_TPS": "0", "NEUROGATE_SIM_SLOTS": "64"}
    engine = Process("sim-engine", "--host", "127.0.0.1", "--port", "0", **settings)
    try:
        yield Oracle(int(engine.wait_for_line("listening on").rsplit(":", 1)[1]))
    finally:
        engine.kill()

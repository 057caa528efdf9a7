"""Clients of a fleet: what they ask is drawn beforehand, what they got is judged."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc.aio

from chaos_support.checker import APIS, Api, Kind, Received, Verdict, judge, judge_messages
from chaos_support.client import Target, follow, follow_grpc
from chaos_support.oracle import Oracle

STREAMS = tuple(name for name, api in APIS.items() if api.streams)
GRPC = "grpc stream"
ALL = (*APIS, GRPC)


@dataclass(slots=True)
class Asked:
    """One request, and what came of it."""

    api: Api | None
    """None is gRPC."""
    prompt: str
    max_tokens: int
    received: Received = field(default_factory=Received)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    verdict: Verdict | None = None
    took_s: float = 0.0

    @property
    def name(self) -> str:
        return GRPC if self.api is None else self.api.name

    @property
    def worker(self) -> str:
        """Who began the answer."""
        return self.received.headers.get("x-neurogate-worker", "")


@dataclass
class Tally:
    """What a scenario's clients had."""

    asked: list[Asked] = field(default_factory=list)
    forgotten: int = 0
    """Whole ones that are not kept."""

    @property
    def kinds(self) -> Counter[Kind]:
        return Counter(one.verdict.kind for one in self.asked if one.verdict is not None)

    def of(self, *kinds: Kind) -> list[Asked]:
        return [one for one in self.asked if one.verdict is not None and one.verdict.kind in kinds]

    @property
    def failures(self) -> Counter[str]:
        """Honest failures by reason, without what is particular to each."""
        reasons = (one.verdict.why for one in self.of(Kind.HONEST) if one.verdict is not None)
        return Counter(" ".join(reason.split())[:240] for reason in reasons)

    @property
    def lies(self) -> list[str]:
        found = self.of(Kind.LIE, Kind.SILENT)
        return [f"{one.name} {one.prompt!r} by {one.worker}: {one.verdict}" for one in found]

    @property
    def longest_gap_s(self) -> float:
        return max((one.received.longest_gap_s for one in self.asked), default=0.0)


class Clients:
    """Asks a fleet, and judges by the oracle."""

    def __init__(self, target: Target, oracle: Oracle, *, grpc_port: int = -1, rng: random.Random) -> None:
        self.tally = Tally()
        self.forgets = False
        """Of whole answers keep their number alone: for runs that last."""
        self.notes: list[str] = []
        """What an act wants to have said in the report."""
        self._target = target
        self._oracle = oracle
        self._grpc_port = grpc_port
        self._channel: grpc.aio.Channel | None = None
        self._rng = rng
        self._numbered = 0

    def draw(self, count: int, apis: Sequence[str], tokens: tuple[int, int]) -> list[Asked]:
        """So many requests of these APIs in turn, with prompts of their own and answers of so many tokens."""
        drawn = []
        for index in range(count):
            name = apis[index % len(apis)]
            self._numbered += 1
            prompt = f"question {self._numbered} of {self._rng.randrange(1 << 30)}"
            drawn.append(Asked(APIS.get(name), prompt, self._rng.randint(*tokens)))
        return drawn

    async def learn(self, asked: Sequence[Asked]) -> None:
        await self._oracle.learn((one.api, one.prompt, one.max_tokens) for one in asked)

    async def ask(self, one: Asked, target: Target | None = None) -> Verdict:
        """Ask and judge one that the oracle has learnt."""
        target = target or self._target
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        expected = self._oracle.expected(one.api, one.prompt, one.max_tokens)
        if one.api is None:
            await follow_grpc(self._open(), target, one.prompt, one.max_tokens, one.received, one.started)
            verdict = judge_messages(one.received, expected, self._oracle.whose)
        else:
            body = one.api.body(one.prompt, one.max_tokens)
            await follow(target, one.api, body, one.received, one.started)
            verdict = judge(one.api, one.received, expected, self._oracle.whose)
        one.took_s = loop.time() - began_at
        one.verdict = verdict
        if self.forgets and verdict.kind is Kind.WHOLE:
            self.tally.forgotten += 1
            self._oracle.forget(one.api, one.prompt, one.max_tokens)
        else:
            self.tally.asked.append(one)
        return verdict

    async def ask_all(self, asked: Sequence[Asked]) -> None:
        """All of them at once."""
        async with asyncio.TaskGroup() as asking:
            for one in asked:
                asking.create_task(self.ask(one))

    async def keep_asking(
        self, clients: int, apis: Sequence[str], tokens: tuple[int, int], until: asyncio.Event, *, pause_s: float = 0.0
    ) -> None:
        """So many clients, each asking one thing after the other; told to stop, they await their last answers."""
        async with asyncio.TaskGroup() as asking:
            for number in range(clients):
                asking.create_task(
                    self._one_client(apis[number % len(apis) :] + apis[: number % len(apis)], tokens, until, pause_s)
                )

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close(None)
            self._channel = None

    async def _one_client(
        self, apis: Sequence[str], tokens: tuple[int, int], until: asyncio.Event, pause_s: float
    ) -> None:
        turn = 0
        while not until.is_set():
            asked = self.draw(1, [apis[turn % len(apis)]], tokens)
            await self.learn(asked)
            await self.ask(asked[0])
            turn += 1
            if pause_s:
                await asyncio.sleep(pause_s)

    def _open(self) -> grpc.aio.Channel:
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{self._grpc_port}")
        return self._channel

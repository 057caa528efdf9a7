"""Machines that compute a few tokens a second: their silence is normal, and a wedge is found all the same.

On virtual time, with an engine that is as silent as llama.cpp: it computes a prompt in steps of 512 tokens, counts and
answers between two of them, and shares one loop among its slots.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from neurogate.channel import End, EndCode
from neurogate.engines.engine import EngineCall, EngineReply, ModelInfo, Observation
from neurogate.inference import GenerationEvent, Prompt, Token
from neurogate.testing.engines import DONE, EVENTS, ScriptedEngine
from neurogate.virtual_time import run
from watched_support import Watched, watching
from worker_support import FakeOutlet, incoming, prompt

STEP = 512
CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'


class SlowEngine(ScriptedEngine):
    """Computes `tps` tokens a second; `late` is one whose answers to questions wait for its step."""

    def __init__(self, tps: float, *, slots: int = 4, late: bool = False, answer: int = 3) -> None:
        super().__init__()
        self.tps = tps
        self.answer = answer
        self.healable = True
        self.wedged = False
        self._slots = slots
        self._late = late
        self._steps = 0
        self._busy = 0
        self._cached = False
        self._turn = asyncio.Lock()
        self._between = asyncio.Event()
        self._between.set()

    async def observe(self) -> Observation:
        if self._late:
            try:
                async with asyncio.timeout(2):
                    await self._between.wait()
            except TimeoutError:
                return self._seen(None, None)
        return self._seen(self._busy, self._steps)

    def _seen(self, busy: int | None, work: int | None) -> Observation:
        return Observation(
            ready=True, models=(ModelInfo("m"),), slots_total=self._slots, slots_busy=busy, work_done=work
        )

    async def compute(self, tokens: int) -> None:
        """A step ends though nobody waits for it any more, as in llama.cpp."""
        while tokens > 0:
            step = min(STEP, tokens)
            tokens -= step
            await asyncio.shield(asyncio.ensure_future(self._step(step)))

    async def _step(self, tokens: int) -> None:
        self._busy += 1
        async with self._turn:
            self._between.clear()
            await (asyncio.Event().wait() if self.wedged else asyncio.sleep(tokens / self.tps))
            self._steps += 1
            self._busy -= 1
            self._between.set()
            await asyncio.sleep(0.01)

    async def generate(self, prompt: Prompt) -> AsyncGenerator[GenerationEvent, None]:
        size = len(prompt.text) // 4
        await self.compute(1 if self._cached and size < 10 else 30 + size)
        self._cached = True
        yield Token("x")

    @asynccontextmanager
    async def forward(self, call: EngineCall) -> AsyncIterator[EngineReply]:
        yield EngineReply(200, EVENTS, self._said(len(call.body) // 4))

    async def _said(self, tokens: int) -> AsyncGenerator[bytes, None]:
        await self.compute(tokens)
        for _ in range(self.answer):
            yield CHUNK
            await self.compute(1)
        yield DONE


def body(kib: float) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "word " * int(kib * 1024 // 5)}], "stream": True}


async def told(watched: Watched, kib: float) -> End:
    return await watched.worker.answer(incoming(body(kib), timeout_s=None), FakeOutlet())


def unharmed(watched: Watched, engine: SlowEngine) -> bool:
    return not engine.healed and not watched.canaries("hung") and watched.worker.ready


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("tps", [2, 5, 10, 30])
def test_long_prompts_take_their_time(tps: int, slots: int, late: bool) -> None:
    """Prefill: long and silent is normal."""

    async def main() -> None:
        engine = SlowEngine(tps, slots=slots, late=late)
        async with watching(engine) as watched:
            await watched.until(lambda: watched.canaries("alive") > 0, within_s=60)
            hung = watched.canaries("hung")
            for kib in (0.2, 2, 8):
                end = await told(watched, kib)
                assert (end.code, end.http_status, end.message) == (EndCode.ANSWERED, 200, "")
                await asyncio.sleep(10)
            assert engine.healed == []
            assert watched.canaries("hung") == hung
            assert watched.value("stalls_total", phase="prefill") == 0

    run(main())


def test_a_long_prompt_may_be_the_first_thing_that_comes() -> None:
    """Nothing was measured then: the only slot is the user's."""

    async def main() -> None:
        engine = SlowEngine(2, slots=1)
        async with watching(engine) as watched:
            assert (await told(watched, 8)).http_status == 200
            assert unharmed(watched, engine)

    run(main())


def test_prompts_that_are_computed_together_share_the_machine() -> None:
    async def main() -> None:
        engine = SlowEngine(10)
        async with watching(engine) as watched:
            await asyncio.sleep(20)
            async with asyncio.TaskGroup() as tasks:
                asked = [tasks.create_task(told(watched, 4)) for _ in range(6)]
            assert {task.result().http_status for task in asked} == {200}
            assert unharmed(watched, engine)

    run(main())


def test_a_prompt_that_comes_while_a_canary_is_out_is_waited_for() -> None:
    async def main() -> None:
        engine = SlowEngine(10)
        async with watching(engine) as watched:
            await asyncio.sleep(20)
            await watched.until(lambda: watched.worker.canary.underway, within_s=10)
            assert (await told(watched, 8)).http_status == 200
            assert unharmed(watched, engine)

    run(main())


def test_a_prompt_that_was_given_up_is_computed_to_the_end_of_its_step() -> None:
    """A client that leaves costs nobody else anything."""

    async def main() -> None:
        engine = SlowEngine(10)
        async with watching(engine) as watched:
            await asyncio.sleep(20)
            asking = asyncio.ensure_future(told(watched, 8))
            await asyncio.sleep(5)
            asking.cancel()
            await asyncio.sleep(120)
            assert unharmed(watched, engine)

    run(main())


def test_the_prompts_of_callers_without_a_link_count_as_well() -> None:
    async def main() -> None:
        engine = SlowEngine(10)
        async with watching(engine) as watched:
            await asyncio.sleep(20)
            async for _ in watched.worker.generate(prompt(text="word " * 1000), "r-1"):
                pass
            assert unharmed(watched, engine)

    run(main())


def test_a_stream_beside_a_long_prompt_has_a_token_a_step() -> None:
    async def main() -> None:
        engine = SlowEngine(20, answer=40)
        async with watching(engine) as watched:
            await asyncio.sleep(20)
            async with asyncio.TaskGroup() as tasks:
                stream = tasks.create_task(told(watched, 0.1))
                await asyncio.sleep(3)
                long = tasks.create_task(told(watched, 8))
            assert stream.result().http_status == long.result().http_status == 200
            assert unharmed(watched, engine)

    run(main())


@pytest.mark.parametrize("tps", [5, 30, 500])
def test_a_wedge_between_prompts_is_found_as_fast_as_ever(tps: int) -> None:
    """What canaries took behind prompts is not what they usually take."""

    async def main() -> None:
        engine = SlowEngine(tps)
        async with watching(engine) as watched:
            await asyncio.sleep(60)
            assert (await told(watched, 4)).http_status == 200
            await watched.until(lambda: not watched.worker.canary.underway, within_s=30)
            engine.wedged = True
            assert await watched.until(lambda: not watched.worker.ready, within_s=60) < 10
            assert len(engine.healed) == 1

    run(main())


@pytest.mark.parametrize("late", [False, True])
def test_a_wedge_within_a_long_prompt_is_found_in_the_end(late: bool) -> None:
    async def main() -> None:
        engine = SlowEngine(30, late=late)
        async with watching(engine) as watched:
            await asyncio.sleep(20)
            engine.wedged = True
            began = watched.loop.time()
            end = await told(watched, 8)
            assert end.code in {EndCode.BROKEN, EndCode.UNAVAILABLE}
            assert 60 < watched.loop.time() - began < 100
            await watched.until(lambda: not watched.worker.ready, within_s=10)

    run(main())

"""Engines that answer nothing at all, like a machine that froze: what they hold is given up, for others to go on."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from neurogate.channel import End, EndCode
from neurogate.engines.engine import Observation
from neurogate.inference import Token
from neurogate.testing.engines import HANG, READY, ScriptedEngine, finished, stream
from neurogate.virtual_time import run
from watched_support import Watched, watching

DEAF = Observation(ready=False, detail="no engine answers")
CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
STREAM = {"stream": True}


def frozen() -> ScriptedEngine:
    """One whose streams have said a token, whose whole answers have said nothing."""
    return ScriptedEngine(
        observation=replace(READY, work_done=1),
        replies=lambda call: stream(CHUNK, HANG) if b"true" in call.body else stream(HANG),
        generations=lambda _: [Token("Hi"), finished()],
    )


async def asking(watched: Watched, *bodies: object, tasks: asyncio.TaskGroup) -> list[asyncio.Task[End]]:
    asked = [tasks.create_task(watched.asked(body, timeout_s=None)) for body in bodies]
    await watched.until(lambda: watched.worker.active == len(bodies), within_s=5)
    await asyncio.sleep(0.5)
    return asked


def test_what_an_engine_holds_that_answers_nothing_is_given_up_within_ten_seconds() -> None:
    """Streams, and whole answers that show nothing before their end."""

    async def main() -> None:
        engine = frozen()
        async with watching(engine) as watched, asyncio.TaskGroup() as tasks:
            asked = await asking(watched, STREAM, {"stream": False}, tasks=tasks)
            engine.observation = DEAF
            took_s = await watched.until(lambda: all(one.done() for one in asked), within_s=60)
            assert 3 <= took_s <= 10
            for one in asked:
                end = one.result()
                assert (end.code, end.message) == (EndCode.UNAVAILABLE, "no engine answers")

    run(main())


def test_an_engine_that_goes_on_in_time_keeps_what_it_holds() -> None:
    async def main() -> None:
        engine = frozen()
        async with watching(engine) as watched, asyncio.TaskGroup() as tasks:
            asked = await asking(watched, STREAM, tasks=tasks)
            for _ in range(3):
                engine.observation, well = DEAF, engine.observation
                await asyncio.sleep(3)
                engine.observation = well
                await asyncio.sleep(4)  # what it does sooner may be for the canary
                engine.observation = replace(well, work_done=(well.work_done or 0) + 1)
                await asyncio.sleep(1.5)
            assert not asked[0].done()
            asked[0].cancel()

    run(main())


def test_an_engine_that_loads_a_model_keeps_what_it_holds() -> None:
    async def main() -> None:
        engine = frozen()
        async with watching(engine) as watched, asyncio.TaskGroup() as tasks:
            asked = await asking(watched, {"stream": False}, tasks=tasks)
            engine.observation = replace(DEAF, loading=True)
            await asyncio.sleep(30)
            assert not asked[0].done()
            asked[0].cancel()

    run(main())


def test_tokens_are_life_whatever_an_engine_says_of_itself() -> None:
    async def main() -> None:
        goes_on = [asyncio.Event() for _ in range(10)]
        engine = frozen()
        engine.replies = lambda _: stream(*(step for one in goes_on for step in (CHUNK, one)))
        async with watching(engine) as watched, asyncio.TaskGroup() as tasks:
            asked = await asking(watched, STREAM, tasks=tasks)
            engine.observation = DEAF
            for one in goes_on:
                await asyncio.sleep(3)
                one.set()
            assert (await asked[0]).http_status == 200

    run(main())


def test_a_whole_answer_is_waited_for_where_engines_never_tell_what_they_do() -> None:
    """An API may refuse to list its models for a while, and compute all the same."""

    async def main() -> None:
        engine = frozen()
        engine.observation = replace(READY, work_done=None)
        async with watching(engine) as watched, asyncio.TaskGroup() as tasks:
            asked = await asking(watched, {"stream": False}, tasks=tasks)
            engine.observation = DEAF
            await asyncio.sleep(60)
            assert not asked[0].done()
            asked[0].cancel()

    run(main())

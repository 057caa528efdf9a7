"""The scripted engine keeps the promises of `Engine`, and does what it is told."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from neurogate.engines.engine import Engine, EngineBrokenError, EngineCall, EngineFatalError, EngineUnavailableError
from neurogate.inference import GenerationEvent, Prompt, Token
from neurogate.testing.engines import DONE, HANG, READY, Pause, Reply, ScriptedEngine, finished, stream
from neurogate.testing.watched import Watched
from neurogate.virtual_time import run

CALL = EngineCall("/v1/completions", b"{}", "r-1")


async def read(engine: Engine, call: EngineCall = CALL) -> bytes:
    async with engine.forward(call) as reply:
        return b"".join([piece async for piece in reply.body])


def test_it_is_an_engine_that_is_ready() -> None:
    async def main() -> None:
        engine: Engine = ScriptedEngine()
        await engine.start()
        assert engine.kind == "scripted"
        assert await engine.observe() is READY
        await engine.stop()
        assert repr(engine) == "<ScriptedEngine active=0 aborted=0>"

    run(main())


def test_it_says_its_steps_one_after_the_other() -> None:
    async def main() -> None:
        opened = asyncio.Event()
        engine = ScriptedEngine(replies=lambda _: stream(b"a", opened, b"b"))
        asyncio.get_running_loop().call_later(3, opened.set)
        assert await read(engine) == b"ab" + DONE
        assert asyncio.get_running_loop().time() == 3
        assert engine.calls == [CALL]
        assert (engine.active.value, engine.aborted) == (0, 0)

    run(main())


def test_it_fails_where_it_is_told_to() -> None:
    async def main() -> None:
        before = ScriptedEngine(replies=lambda _: Reply([b"a"], before=[EngineUnavailableError("gone")]))
        with pytest.raises(EngineUnavailableError):
            await read(before)
        amid = ScriptedEngine(replies=lambda _: Reply([b"a", EngineBrokenError("cut"), b"b"]))
        with pytest.raises(EngineBrokenError):
            await read(amid)
        assert (before.active.value, amid.active.value, amid.aborted) == (0, 0, 0)
        fatal = ScriptedEngine(start=[EngineFatalError("no model")])
        with pytest.raises(EngineFatalError):
            await fatal.start()

    run(main())


@pytest.mark.parametrize("reply", [Reply([b"a", HANG]), Reply([HANG]), Reply([b"a"], before=[HANG])])
def test_a_call_that_is_left_is_aborted(reply: Reply) -> None:
    async def main() -> None:
        engine = ScriptedEngine(replies=lambda _: reply)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(read(engine))
            await engine.active.until(lambda active: active == 1)
            await asyncio.sleep(1)
            task.cancel()
        assert (engine.active.value, engine.aborted) == (0, 1)

    run(main())


def test_it_generates_and_can_be_closed() -> None:
    async def main() -> None:
        steps: list[GenerationEvent | Pause] = [Token("a"), Token("b"), finished()]
        engine = ScriptedEngine(generations=lambda _: steps)
        async with aclosing(engine.generate(Prompt("x"))) as events:
            assert [event async for event in events] == steps
        assert engine.aborted == 0
        async with aclosing(engine.generate(Prompt("y"))) as events:
            assert await anext(events) == Token("a")
        assert (engine.active.value, engine.aborted) == (0, 1)
        assert [prompt.text for prompt in engine.prompts] == ["x", "y"]

    run(main())


def test_a_watched_value_is_waited_for_and_never_missed() -> None:
    async def main() -> None:
        watched = Watched(0)
        assert await watched.until(lambda value: value == 0) == 0
        async with asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(watched.until(number.__eq__)) for number in (1, 2)]
            given_up = tasks.create_task(watched.until(lambda value: value == 9))
            await asyncio.sleep(0)
            for value in (1, 2, 3):
                watched.set(value)
            given_up.cancel()
        assert [task.result() for task in waiting] == [1, 2]
        assert repr(watched) == "<Watched 3>"

    run(main())

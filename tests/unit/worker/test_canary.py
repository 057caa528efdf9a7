"""The canary and what follows from it, on virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from neurogate.channel import EndCode
from neurogate.engines.engine import (
    EngineBrokenError,
    EngineRefusedError,
    EngineUnavailableError,
    EngineUnsupportedError,
    ModelInfo,
    Observation,
)
from neurogate.errors import NoWorkerError
from neurogate.inference import Token
from neurogate.operations import CANARY_PATH
from neurogate.testing.engines import HANG, READY, Reply, ScriptedEngine, finished, stream
from neurogate.virtual_time import run
from watched_support import watching
from worker_support import FakeOutlet, incoming, prompt, prompt_call

STREAM = {"messages": [{"role": "user", "content": "Hi"}], "stream": True}
TELLS = replace(READY, work_done=0)
ON_DEMAND = replace(READY, canaries=False, slots_total=0, models=(ModelInfo("a", loaded=False), ModelInfo("b")))


def test_an_idle_engine_is_asked_for_one_token_at_a_low_rate() -> None:
    async def main() -> None:
        engine = ScriptedEngine(observation=TELLS)
        async with watching(engine) as watched:
            await asyncio.sleep(60)
            assert 10 <= len(engine.prompts) <= 13
            [asked, *_] = engine.prompts
            assert (asked.text, asked.max_tokens, asked.temperature) == ("Hi", 1, 0.0)
            assert engine.aborted == len(engine.prompts)
            assert watched.canaries("alive") == len(engine.prompts)
            told = watched.worker.canary.told()
            assert told is not None
            assert told["outcome"] == "alive"

    run(main())


def test_canaries_are_on_no_book() -> None:
    async def main() -> None:
        async with watching(ScriptedEngine(observation=TELLS)) as watched:
            await asyncio.sleep(20)
            report = watched.worker.report()
            assert (report.requests_total, report.completion_tokens_total, report.prompt_tokens_total) == (0, 0, 0)
            assert watched.value("engine_requests_total", model="tiny", status="200") == 0
            assert watched.value("tokens_generated_total", model="tiny") == 0
            assert watched.canaries("alive") > 2

    run(main())


def test_users_tokens_make_canaries_needless() -> None:
    async def main() -> None:
        engine = ScriptedEngine(observation=TELLS)
        async with watching(engine) as watched:
            await asyncio.sleep(3)
            before = len(engine.prompts)
            for _ in range(30):
                await watched.asked()
                await asyncio.sleep(1)
            assert len(engine.prompts) == before

    run(main())


def test_an_interval_of_zero_asks_nobody_who_is_not_suspected() -> None:
    async def main() -> None:
        engine = ScriptedEngine(observation=TELLS)
        async with watching(engine, canary_interval_s=0):
            await asyncio.sleep(100)
            assert engine.prompts == []

    run(main())


def test_a_wedged_idle_engine_is_out_within_ten_seconds_and_comes_back() -> None:
    """It answers health checks all the time."""

    async def main() -> None:
        engine = ScriptedEngine(observation=TELLS)
        async with watching(engine) as watched:
            await asyncio.sleep(20)
            engine.generations = lambda _: [HANG]
            assert await watched.until(lambda: not watched.worker.ready, within_s=10) < 10
            report = watched.worker.report()
            assert report.detail == "the engine answers but generates nothing: canary failed after 4.0 s"
            assert watched.value("engine_connected") == 0
            end = await watched.asked(STREAM)
            assert (end.code, end.message) == (EndCode.UNAVAILABLE, report.detail)
            await asyncio.sleep(100)
            assert not watched.worker.ready
            assert watched.canaries("hung") <= 8, "it is asked with backoff"
            engine.generations = lambda _: [Token("Hi"), finished()]
            await watched.until(lambda: watched.worker.ready, within_s=40)
            assert watched.worker.report().detail == ""
        assert engine.active.value == 0

    run(main())


def test_an_engine_wedged_from_its_beginning_is_out_within_ten_seconds() -> None:
    async def main() -> None:
        async with watching(ScriptedEngine(generations=lambda _: [HANG], observation=TELLS)) as watched:
            assert await watched.until(lambda: not watched.worker.ready, within_s=10) < 10

    run(main())


@pytest.mark.parametrize("users", [1, 4, 9])
def test_what_a_wedged_engine_holds_is_handed_on(users: int) -> None:
    """Also when users hold every slot, so that there is none for a canary."""

    async def main() -> None:
        engine = ScriptedEngine(observation=TELLS, replies=lambda _: stream(b"data: {}\n\n", HANG))
        async with watching(engine) as watched:
            await asyncio.sleep(7)
            engine.generations = lambda _: [HANG]
            began = watched.loop.time()
            async with asyncio.TaskGroup() as tasks:
                held = [tasks.create_task(watched.asked(STREAM)) for _ in range(users)]
            assert watched.loop.time() - began < 10
            for ended in held:
                assert ended.result().code is EndCode.UNAVAILABLE
                assert "generates nothing" in ended.result().message
            assert not watched.worker.ready
        assert engine.active.value == 0

    run(main())


def test_callers_without_a_link_are_told_as_well() -> None:
    async def main() -> None:
        engine = ScriptedEngine(observation=TELLS)
        async with watching(engine) as watched:
            await asyncio.sleep(7)
            engine.generations = lambda _: [HANG]
            with pytest.raises(NoWorkerError, match="generates nothing"):
                async for _ in watched.worker.generate(prompt(), "r-1"):
                    pass
            assert watched.loop.time() < 17

    run(main())


def test_one_token_shows_that_a_silent_prompt_is_no_wedge() -> None:
    """A free slot answers the canary while another computes a long prompt."""

    async def main() -> None:
        engine = ScriptedEngine(observation=TELLS)
        gate = asyncio.Event()
        engine.replies = lambda _: Reply([gate, b"{}"])
        async with watching(engine) as watched, asyncio.TaskGroup() as tasks:
            slow = tasks.create_task(watched.asked())
            await asyncio.sleep(50)
            assert watched.worker.ready
            assert watched.canaries("hung") == 0
            gate.set()
        assert slow.result().http_status == 200

    run(main())


def test_the_engines_own_progress_is_life_where_every_slot_is_taken() -> None:
    async def main() -> None:
        engine = ScriptedEngine(observation=replace(TELLS, slots_total=1))
        gate = asyncio.Event()
        engine.replies = lambda _: Reply([gate, b"{}"])
        async with watching(engine) as watched, asyncio.TaskGroup() as tasks:
            await asyncio.sleep(3)
            before = len(engine.prompts)
            slow = tasks.create_task(watched.asked(timeout_s=None))
            for step in range(200):
                engine.observation = replace(engine.observation, work_done=step)
                await asyncio.sleep(2)
            assert watched.worker.ready
            assert len(engine.prompts) == before, "no slot was free for a canary"
            gate.set()
        assert slow.result().http_status == 200

    run(main())


def test_a_long_prompt_has_more_time_than_a_short_one() -> None:
    """Nothing at all shows progress; what is to be computed is all there is to go by."""

    async def main() -> None:
        async def out_after(size: int) -> float:
            engine = ScriptedEngine(observation=replace(TELLS, slots_total=1), replies=lambda _: stream(HANG))
            async with watching(engine) as watched:
                await asyncio.sleep(6)
                began = watched.loop.time()
                await watched.asked({"stream": True, "prompt": "x" * size}, timeout_s=None)
                return float(watched.loop.time() - began)

        assert await out_after(10) < 10
        assert 60 < await out_after(10 * 1024) < 75, "never before a request that is computed is stuck itself"
        assert await out_after(1024 * 1024) < 75

    run(main())


def test_a_pause_of_the_worker_says_nothing_about_the_engine() -> None:
    """Stopped, suspended or starved: the token is there all the while, and is read once the worker runs again."""

    async def main() -> None:
        def token(_: object) -> list[Any]:
            ready = asyncio.Event()
            asyncio.get_running_loop().call_later(0.3, lambda: asyncio.get_running_loop().call_soon(ready.set))
            return [ready, Token("Hi"), finished()]

        engine = ScriptedEngine(observation=TELLS, generations=token)
        engine.healable = True
        async with watching(engine) as watched:
            await asyncio.sleep(20)
            await watched.until(lambda: watched.worker.canary.underway, within_s=10)
            watched.pause(60)
            await asyncio.sleep(10)
            assert (engine.healed, watched.canaries("hung"), watched.worker.ready) == ([], 0, True)

    run(main())


def test_an_engine_that_falls_silent_altogether_has_not_worked() -> None:
    """That its count is not told any more is no growth of it."""

    async def main() -> None:
        engine = ScriptedEngine(
            observation=replace(TELLS, slots_total=1), replies=lambda _: stream(b"data: {}\n\n", HANG)
        )
        async with watching(engine) as watched, asyncio.TaskGroup() as tasks:
            await asyncio.sleep(7)
            asked = tasks.create_task(watched.asked(STREAM, timeout_s=None))
            await watched.until(lambda: watched.worker.canary.underway, within_s=10)
            alive = watched.canaries("alive")
            engine.observation = replace(engine.observation, ready=False, work_done=None)
            await asyncio.sleep(1.5)
            assert watched.canaries("alive") == alive
            asked.cancel()

    run(main())


def test_a_pause_within_a_look_at_the_engine_is_no_answer() -> None:
    async def main() -> None:
        engine = ScriptedEngine(observation=TELLS)
        async with watching(engine) as watched:
            await asyncio.sleep(2)
            answer = asyncio.Event()
            engine.observe_steps = [answer]
            before = engine.observed.value
            await asyncio.sleep(1.5)
            assert engine.observed.value == before
            watched.pause(60)
            engine.observe_steps = []
            for _ in range(50):
                assert watched.worker.ready
                await asyncio.sleep(0.1)

    run(main())


def test_a_user_who_comes_for_the_last_slot_has_it() -> None:
    async def main() -> None:
        engine = ScriptedEngine(observation=replace(TELLS, slots_total=1))
        async with watching(engine) as watched:
            await asyncio.sleep(7)
            engine.generations = lambda _: [HANG]
            await watched.until(lambda: engine.active.value == 1, within_s=10)
            aborted = engine.aborted
            assert (await watched.asked(b"{}")).http_status == 200
            await asyncio.sleep(0.5)
            assert engine.aborted == aborted + 1
            assert watched.canaries("hung") == 0
            assert watched.worker.ready

    run(main())


def test_all_who_ask_at_a_time_get_one_canary() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        engine = ScriptedEngine(generations=lambda _: [gate, Token("Hi"), finished()], observation=TELLS)
        async with watching(engine, canary_interval_s=0) as watched:
            outlets = [FakeOutlet() for _ in range(5)]
            async with asyncio.TaskGroup() as tasks:
                asked = [
                    tasks.create_task(watched.worker.answer(incoming(b"", path=CANARY_PATH), outlet))
                    for outlet in outlets
                ]
                await watched.until(lambda: engine.active.value == 1, within_s=1)
                asked[0].cancel()  # it was the one that flew the canary; another one takes over
                await asyncio.sleep(0.5)
                gate.set()
            assert [task.result().http_status for task in asked[1:]] == [200] * 4
            assert [outlet.body for outlet in outlets[1:]] == [b"{}"] * 4
            assert len(engine.prompts) == 2
            assert watched.canaries("alive") == 1
            assert watched.worker.report().requests_total == 0

    run(main())


def test_a_gateway_that_asks_is_told_what_is_wrong() -> None:
    async def main() -> None:
        engine = ScriptedEngine(observation=TELLS)
        ask = incoming(b"", path=CANARY_PATH, timeout_s=20)
        async with watching(engine, canary_interval_s=0) as watched:
            engine.generations = lambda _: [EngineRefusedError(500, "CUDA error")]
            end = await watched.worker.answer(ask, FakeOutlet())
            assert (end.code, end.message) == (EndCode.UNAVAILABLE, "the engine fails canaries: CUDA error")
            assert watched.worker.ready, "one error is the breaker's business"
            engine.generations = lambda _: [HANG]
            end = await watched.worker.answer(ask, FakeOutlet())
            assert (end.code, "generates nothing" in end.message) == (EndCode.UNAVAILABLE, True)
            end = await watched.worker.answer(incoming(b"", path=CANARY_PATH, timeout_s=0.5), FakeOutlet())
            assert end.code is EndCode.DEADLINE
            engine.generations = lambda _: [Token("Hi"), finished()]
            assert (await watched.worker.answer(ask, FakeOutlet())).http_status == 200
            assert watched.worker.ready, "whoever asks, success counts"
            engine.observation = Observation(ready=False, detail="loading")
            await watched.until(lambda: not watched.worker.ready, within_s=3)
            assert (await watched.worker.answer(ask, FakeOutlet())).message == "loading"
            watched.worker.drain()
            assert (await watched.worker.answer(ask, FakeOutlet())).code is EndCode.CANCELLED

    run(main())


def test_an_engine_that_only_has_errors_is_out_after_three() -> None:
    async def main() -> None:
        engine = ScriptedEngine(generations=lambda _: [EngineBrokenError("CUDA error")], observation=TELLS)
        async with watching(engine) as watched:
            await asyncio.sleep(8)
            assert watched.worker.ready
            await watched.until(lambda: not watched.worker.ready, within_s=10)
            assert watched.worker.report().detail == "the engine fails canaries: CUDA error"
            assert watched.canaries("failed") == 3

    run(main())


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (EngineRefusedError(401, "no"), "failed"),
        (EngineRefusedError(400, "only embeds"), "refused"),
        (EngineRefusedError(501, "no such thing"), "refused"),
        (EngineRefusedError(503, "full", retry_after_s=1.0), "refused"),
        (EngineUnsupportedError("no chat"), "refused"),
        (EngineUnavailableError("gone"), "failed"),
        (ValueError("a bug"), "failed"),
    ],
)
def test_what_an_engine_answers_is_told_apart(error: Exception, outcome: str) -> None:
    async def main() -> None:
        engine = ScriptedEngine(generations=lambda _: [error], observation=TELLS)
        async with watching(engine) as watched:
            await watched.until(lambda: watched.worker.canary.last is not None, within_s=5)
            assert watched.canaries(outcome) == 1
            if outcome == "refused":
                await asyncio.sleep(600)
                assert watched.worker.ready
                assert len(engine.prompts) < 12, "who does not generate is asked more and more rarely"

    run(main())


def test_a_model_that_only_embeds_is_never_asked() -> None:
    async def main() -> None:
        engine = ScriptedEngine(observation=replace(TELLS, generates=False))
        async with watching(engine) as watched:
            await asyncio.sleep(60)
            assert (await watched.worker.answer(incoming(b"", path=CANARY_PATH), FakeOutlet())).http_status == 200
            assert engine.prompts == []

    run(main())


def test_models_on_demand_are_asked_only_after_users_and_only_loaded_ones() -> None:
    async def main() -> None:
        engine = ScriptedEngine(observation=ON_DEMAND)
        async with watching(engine) as watched:
            await asyncio.sleep(100)
            assert engine.prompts == []
            await watched.asked({"model": "b"})
            await asyncio.sleep(100)
            assert 3 <= len(engine.prompts) <= 7
            assert {asked.model for asked in engine.prompts} == {"b"}
            engine.observation = replace(ON_DEMAND, models=(ModelInfo("a", loaded=False),))
            await asyncio.sleep(2)
            before = len(engine.prompts)
            await watched.asked({"model": "a"})
            await asyncio.sleep(60)
            assert len(engine.prompts) == before

    run(main())


def test_a_slow_machine_is_given_the_time_it_usually_takes() -> None:
    async def main() -> None:
        slow = 6.0

        def token(_: object) -> list[Any]:
            ready = asyncio.Event()
            asyncio.get_running_loop().call_later(slow, ready.set)
            return [ready, Token("Hi"), finished()]

        engine = ScriptedEngine(generations=token, observation=TELLS)
        async with watching(engine) as watched:
            await asyncio.sleep(60)
            slow = 30.0
            await asyncio.sleep(120)
            assert watched.worker.ready
            assert watched.canaries("hung") == 0

    run(main())


def test_a_wedged_engine_is_healed_where_that_is_possible() -> None:
    async def main() -> None:
        engine = ScriptedEngine(observation=TELLS)
        engine.healable = True
        async with watching(engine) as watched:
            await asyncio.sleep(10)
            engine.generations = lambda _: [HANG]
            await watched.until(lambda: bool(engine.healed), within_s=11)
            assert engine.healed == ["the engine answers but generates nothing: canary failed after 4.0 s"]
            engine.observation = replace(TELLS, ready=False, detail="the engine is restarted")
            await asyncio.sleep(2)
            assert watched.worker.report().detail == "the engine is restarted"
            engine.observation, engine.generations = TELLS, lambda _: [Token("Hi"), finished()]
            await watched.until(lambda: watched.worker.ready, within_s=4)
            assert len(engine.healed) == 1

    run(main())


def test_an_engine_that_never_generated_has_time_to_begin_with() -> None:
    """A machine that is slower than any expected must not restart its engine for ever."""

    async def main() -> None:
        engine = ScriptedEngine(observation=TELLS, generations=lambda _: [HANG])
        async with watching(engine) as watched:
            await asyncio.sleep(50)
            assert not watched.worker.ready
            assert engine.healed == []
            await watched.until(lambda: bool(engine.healed), within_s=60)

    run(main())


def test_prompts_without_a_link_count_as_life_too() -> None:
    async def main() -> None:
        engine = ScriptedEngine(observation=TELLS)
        async with watching(engine) as watched:
            await asyncio.sleep(4)
            before = len(engine.prompts)
            for _ in range(10):
                end = await watched.worker.answer(prompt_call(), FakeOutlet())
                assert end.http_status == 200
                await asyncio.sleep(1)
            assert len(engine.prompts) == before + 10

    run(main())


def test_a_canary_that_starves_behind_a_long_prompt_says_nothing_bad() -> None:
    """As in llama.cpp, where one batch is filled from the first slot on. Its counter is late now and then, too."""

    async def main() -> None:
        engine = ScriptedEngine(observation=TELLS)
        gate = asyncio.Event()
        engine.replies = lambda _: stream(gate, b"data: {}\n\n")
        async with watching(engine) as watched, asyncio.TaskGroup() as tasks:
            await asyncio.sleep(7)
            slow = tasks.create_task(watched.asked({"stream": True}, timeout_s=None))
            engine.generations = lambda _: [HANG]
            for second in range(280):
                engine.observation = replace(TELLS, work_done=second // 3 if second % 4 else None)
                await asyncio.sleep(1)
            assert watched.worker.ready
            assert watched.canaries("hung") == 0
            gate.set()
        assert slow.result().http_status == 200

    run(main())

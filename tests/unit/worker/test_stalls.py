"""Which requests are stuck: by phase, and by what their engine does meanwhile. On virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from neurogate.channel import EndCode
from neurogate.engines.engine import ModelInfo, Observation
from neurogate.inference import GenerationEvent, Prompt
from neurogate.rpc.backend import IncomingCall
from neurogate.testing.engines import HANG, READY, Reply, ScriptedEngine, stream
from neurogate.virtual_time import run
from neurogate.worker.meter import Meter
from neurogate.worker.pace import Pace
from neurogate.worker.stalls import Held, Phase, Stall, Stalls
from watched_support import watching
from worker_support import CHAT, FakeOutlet, incoming

TELLS = replace(READY, work_done=0)
SILENT = replace(READY, slots_total=0)
"""An engine that tells neither slots nor progress."""


class Bench:
    """Stalls with requests in them, and a clock that is turned by hand."""

    def __init__(self, seen: Observation = TELLS, *, prefill_s: float = 60, decode_s: float = 15) -> None:
        self.seen = seen
        self.now = 1000.0
        self.meter = Meter()
        self.pace = Pace()
        self.stalls = Stalls(prefill_s=prefill_s, decode_s=decode_s, now=self.now, pace=self.pace)

    def held(self, *, tokens: int = 0, outlet: FakeOutlet | None = None, model: str = "", **fields: Any) -> Held:
        held = Held(self.meter.begin(None), now=self.now, model=model)
        body = msgspec.json.encode({"stream": True, **fields})
        held.came(IncomingCall(CHAT, body, "r-1", "", None), outlet or FakeOutlet())
        held.job.tokens(tokens)
        self.stalls.add(held)
        return held

    def works(self) -> None:
        assert self.seen.work_done is not None
        self.stalls.worked(self.now)

    def pass_s(self, seconds: int, each: Callable[[], object] = lambda: None) -> list[Stall]:
        """Sweep every second; the stalls of the first sweep that finds any."""
        for _ in range(seconds):
            self.now += 1
            each()
            if found := self.stalls.sweep(self.now, self.seen):
                return found
        return []


def test_a_stream_that_falls_silent_is_stuck_after_its_bound() -> None:
    async def main() -> None:
        bench = Bench()
        held = bench.held(tokens=3)
        assert bench.pass_s(15) == []
        [stall] = bench.pass_s(2)
        assert (stall.held, stall.phase) == (held, Phase.DECODE)
        assert stall.told == "the engine stalled in decode: nothing for 15 s"

    run(main())


@pytest.mark.parametrize("seen", [TELLS, SILENT])
def test_a_prompt_may_take_a_minute_without_any_sign(seen: Observation) -> None:
    async def main() -> None:
        bench = Bench(seen)
        bench.held()
        assert bench.pass_s(59) == []
        [stall] = bench.pass_s(3)
        assert stall.phase is Phase.PREFILL

    run(main())


def test_a_prompt_may_take_as_long_as_the_engine_works_on_it_but_not_for_ever() -> None:
    async def main() -> None:
        bench = Bench()
        bench.held()
        assert bench.pass_s(299, bench.works) == []
        [stall] = bench.pass_s(3, bench.works)
        assert (stall.phase, stall.told) == (Phase.PREFILL, "the engine stalled in prefill: nothing for 300 s")

    run(main())


def test_a_request_may_wait_for_a_slot_as_long_as_others_move() -> None:
    async def main() -> None:
        bench = Bench(replace(SILENT, slots_total=1))
        other = bench.held(tokens=1)
        waiting = bench.held()
        assert bench.pass_s(1000, lambda: other.job.tokens(1)) == []
        found = bench.pass_s(70)
        assert [stall.held for stall in found] == [other]
        bench.stalls.drop(other, bench.now)
        [stall] = bench.pass_s(70)
        assert (stall.held, stall.phase) == (waiting, Phase.PREFILL)

    run(main())


def test_queued_requests_are_told_from_those_that_are_computed() -> None:
    async def main() -> None:
        bench = Bench(replace(TELLS, slots_total=1))
        for _ in range(2):
            bench.held()
        assert [stall.phase for stall in bench.pass_s(70)] == [Phase.PREFILL, Phase.QUEUE]

    run(main())


def test_a_prompt_of_others_keeps_a_stream_waiting_for_a_bounded_time() -> None:
    async def main() -> None:
        bench = Bench()
        stuck = bench.held(tokens=1)
        bench.pass_s(1)
        bench.held()
        assert bench.pass_s(58) == []
        assert next(stall.held for stall in bench.pass_s(3)) is stuck

    run(main())


def test_one_hung_stream_in_an_engine_that_works_ends_too() -> None:
    async def main() -> None:
        bench = Bench()
        stuck, other = bench.held(tokens=1), bench.held(tokens=1)
        assert bench.pass_s(60, lambda: other.job.tokens(5)) == []
        assert [stall.held for stall in bench.pass_s(3, lambda: other.job.tokens(5))] == [stuck]

    run(main())


def test_strangers_on_the_engine_are_work_as_well() -> None:
    async def main() -> None:
        bench = Bench(replace(TELLS, slots_busy=3))
        bench.held(tokens=1)
        assert bench.pass_s(59) == []
        assert bench.pass_s(3) != []

    run(main())


def test_one_token_a_minute_is_no_answer() -> None:
    """Nor is one whose engine is busy with others, so that its silence alone would be excused."""

    async def main() -> None:
        for busy in (False, True):
            bench = Bench()
            slow = bench.held(tokens=1)
            other = bench.held(tokens=1)
            second = 0

            def tick(bench: Bench = bench, slow: Held = slow, other: Held = other, busy: bool = busy) -> None:
                nonlocal second
                second += 1
                if second % 50 == 0:
                    slow.job.tokens(1)
                if busy:
                    other.job.tokens(10)

            if not busy:
                bench.stalls.drop(other, bench.now)
            [stall] = bench.pass_s(120, tick)
            assert stall.held is slow
            assert bench.now - 1000 <= 65
            assert "stalled in decode" in stall.told

    run(main())


def test_a_slow_but_steady_stream_is_left_alone() -> None:
    async def main() -> None:
        bench = Bench(SILENT)
        slow = bench.held(tokens=1)
        second = 0

        def tick() -> None:
            nonlocal second
            second += 1
            if second % 10 == 0:
                slow.job.tokens(1)

        assert bench.pass_s(2000, tick) == []

    run(main())


def test_a_slow_reader_is_no_stall() -> None:
    async def main() -> None:
        bench = Bench()
        outlet = FakeOutlet(limit=1)
        bench.held(tokens=1, outlet=outlet)
        outlet.chunk(b"x")
        assert outlet.full
        assert bench.pass_s(1000) == []
        outlet.read()
        assert bench.pass_s(14) == []
        assert bench.pass_s(3) != []

    run(main())


@pytest.mark.parametrize("fields", [{"stream": False}, {"tools": [{}]}])
def test_answers_that_show_nothing_are_judged_by_the_engine(fields: dict[str, Any]) -> None:
    async def main() -> None:
        for tokens in (0, 1):
            bench = Bench()
            bench.held(tokens=tokens, **fields)
            assert bench.pass_s(250, bench.works) == [], "the engine works"
            assert bench.pass_s(70) != [], "and then it does not"

    run(main())


def test_where_nothing_tells_an_unstreamed_answer_has_its_deadline_only() -> None:
    async def main() -> None:
        bench = Bench(SILENT)
        bench.held(stream=False)
        assert bench.pass_s(5000) == []
        held = bench.held(tokens=1, tools=[{}])
        assert bench.pass_s(299) == []
        assert [stall.held for stall in bench.pass_s(5)] == [held]

    run(main())


@pytest.mark.parametrize("fields", [{}, {"stream": False}, {"tools": [{}]}])
@pytest.mark.parametrize("tokens", [0, 1])
def test_what_an_idle_engine_does_not_know_of_is_stuck(fields: dict[str, Any], tokens: int) -> None:
    """Its connection is gone without a word, say; and what the engine does for canaries is no work on it."""

    async def main() -> None:
        bench = Bench(decode_s=0)
        bench.stalls.told(bench.now, known=0)
        bench.pass_s(100)
        bench.held(tokens=tokens, **fields)

        def idles() -> None:
            bench.stalls.told(bench.now, known=0)
            bench.stalls.worked(bench.now, for_canary=True)

        assert bench.pass_s(59, idles) == []
        [stall] = bench.pass_s(3, idles)
        assert stall.told.endswith(": nothing for 60 s")
        assert stall.phase is (Phase.DECODE if tokens else Phase.PREFILL)

    run(main())


def test_whole_answers_that_an_idle_engine_has_lost_do_not_keep_its_streams_waiting() -> None:
    """They look like prompts that are computed, for which streams would wait as long as prompts may take."""

    async def main() -> None:
        bench = Bench()
        lost = [bench.held(tokens=3), bench.held(stream=False), bench.held(tokens=3)]

        def each() -> None:
            bench.stalls.told(bench.now, known=0)
            bench.stalls.worked(bench.now, for_canary=True)

        assert bench.pass_s(14, each) == []
        assert [stall.held for stall in bench.pass_s(3, each)] == lost

    run(main())


def test_an_engine_that_is_idle_now_and_then_is_not() -> None:
    async def main() -> None:
        bench = Bench()
        bench.held(stream=False)

        def each() -> None:
            bench.stalls.told(bench.now, known=int(bench.now % 2 == 0))
            bench.works()

        assert bench.pass_s(1000, each) == []

    run(main())


@pytest.mark.parametrize("fields", [{}, {"stream": False}, {"tools": [{}]}])
def test_one_that_a_busy_engine_has_lost_is_the_one_that_is_silent_for_the_longest(fields: dict[str, Any]) -> None:
    """It has two fewer than are held: they go one after the other, and those that move stay."""

    async def main() -> None:
        bench = Bench()
        moving = bench.held(tokens=1)
        lost = [bench.held(**fields)]
        bench.pass_s(10)
        lost += [bench.held(**fields)]

        def each() -> None:
            moving.job.tokens(1)
            bench.works()
            bench.stalls.told(bench.now, known=1)

        found: list[Held] = []
        for _ in range(2):
            [stall] = bench.pass_s(70, each)
            assert bench.now - stall.held.moved_at == 60
            found.append(stall.held)
            bench.stalls.drop(stall.held, bench.now)
        assert found == lost
        assert bench.pass_s(1000, each) == []

    run(main())


def test_others_that_come_and_go_do_not_hide_for_ever_that_one_is_lost() -> None:
    """While one of them is with the engine it has as many as it must have; when none is, it has not."""

    async def main() -> None:
        bench = Bench()
        lost = bench.held(stream=False)

        def each() -> None:
            bench.works()
            if bench.now % 7 == 0:
                bench.stalls.told(bench.now, known=0)
                return
            brief = bench.held(stream=False)
            bench.stalls.told(bench.now, known=1)
            bench.stalls.drop(brief, bench.now)

        [stall] = bench.pass_s(70, each)
        assert stall.held is lost

    run(main())


def test_a_long_answer_is_not_lost_because_others_are_on_their_way() -> None:
    """At each look there is one that the engine has not got yet, or has just answered: another one each time."""

    async def main() -> None:
        bench = Bench()
        bench.held(stream=False)
        before: list[Held] = []

        def each() -> None:
            bench.works()
            while before:
                bench.stalls.drop(before.pop(), bench.now)
            before.append(bench.held(stream=False))
            bench.stalls.told(bench.now, known=1)

        assert bench.pass_s(1000, each) == []

    run(main())


def test_what_an_engine_counts_right_after_a_canary_keeps_no_stream_alive() -> None:
    """A busy machine counts the canary's token late; what the engine does at other times is for users."""

    async def main() -> None:
        bench = Bench(decode_s=15)
        bench.held(tokens=1)
        [stall] = bench.pass_s(20, lambda: bench.stalls.worked(bench.now, doubtful=True))
        assert (stall.phase, stall.told) == (Phase.DECODE, "the engine stalled in decode: nothing for 15 s")
        bench.stalls.drop(stall.held, bench.now)

        bench.held(tokens=1)
        assert bench.pass_s(50, bench.works) == []

    run(main())


def test_an_engine_that_miscounts_now_and_then_has_lost_none() -> None:
    async def main() -> None:
        bench = Bench()
        bench.held(stream=False)
        bench.held(stream=False)

        def each() -> None:
            bench.stalls.told(bench.now, known=1 + int(bench.now % 2 == 0))
            bench.works()

        assert bench.pass_s(1000, each) == []

    run(main())


class Forgetful(ScriptedEngine):
    """Loses whatever it is asked for but canaries; each takes half a second of a slot, and is counted."""

    def __init__(self) -> None:
        super().__init__(observation=replace(TELLS, slots_busy=0), replies=lambda _: Reply(before=[HANG]))

    async def generate(self, prompt: Prompt) -> AsyncGenerator[GenerationEvent, None]:
        before = self.observation
        self.observation = replace(before, slots_busy=1)
        await asyncio.sleep(0.5)
        self.observation = replace(before, work_done=(before.work_done or 0) + 1)
        async with aclosing(super().generate(prompt)) as events:
            async for event in events:
                yield event


@pytest.mark.parametrize("fields", [{"stream": False}, {"stream": True}])
def test_canaries_keep_no_request_alive_that_the_engine_has_lost(fields: dict[str, Any]) -> None:
    async def main() -> None:
        engine = Forgetful()
        async with watching(engine) as watched:
            end = await watched.asked(fields, timeout_s=None)
            assert (end.code, end.message) == (EndCode.BROKEN, "the engine stalled in prefill: nothing for 16 s")
            assert len(engine.prompts) > 2

    run(main())


def test_a_model_that_is_being_loaded_takes_its_time() -> None:
    async def main() -> None:
        bench = Bench(replace(SILENT, canaries=False, models=(ModelInfo("a"), ModelInfo("b", loaded=False))))
        bench.held(model="b")
        assert bench.pass_s(1000) == []
        bench.seen = replace(bench.seen, models=(ModelInfo("a"), ModelInfo("b")))
        assert bench.pass_s(59) == []
        assert bench.pass_s(3) != []

    run(main())


def test_a_pause_of_the_worker_restarts_the_clocks() -> None:
    """What the engine said meanwhile is still in the socket."""

    async def main() -> None:
        engine = ScriptedEngine(observation=TELLS, replies=lambda _: stream(b"data: {}\n\n", gate))
        gate = asyncio.Event()
        async with watching(engine) as watched, asyncio.TaskGroup() as tasks:
            await asyncio.sleep(7)
            asked = tasks.create_task(watched.asked({"stream": True}, timeout_s=None))
            await asyncio.sleep(5)
            watched.pause(100)
            await asyncio.sleep(12)
            assert watched.value("stalls_total", phase="decode") == 0
            gate.set()
            assert (await asked).http_status == 200

    run(main())


def test_a_machine_that_is_always_late_does_not_keep_a_silent_engine_for_ever() -> None:
    """What it lost of its time is not counted; the rest is."""

    async def main() -> None:
        engine = ScriptedEngine(observation=TELLS, replies=lambda _: stream(b"data: {}\n\n", HANG))
        async with watching(engine, canary_interval_s=0, stall_decode_s=15) as watched, asyncio.TaskGroup() as tasks:
            await asyncio.sleep(7)
            asked = tasks.create_task(watched.asked({"stream": True}, timeout_s=None))
            late_s = 0.0
            began = watched.loop.time()
            while not asked.done():
                await asyncio.sleep(0.8)
                watched.pause(0.9)
                late_s += 0.9
                assert watched.loop.time() < began + 120
            assert asked.result().code in {EndCode.BROKEN, EndCode.UNAVAILABLE}
            assert watched.loop.time() - began - late_s > 3

    run(main())


def test_tokens_that_waited_out_a_pause_say_nothing_about_the_engines_speed() -> None:
    async def main() -> None:
        bench = Bench()
        held = bench.held(tokens=1)
        for _ in range(12):
            held.job.tokens(1)
            bench.pass_s(1)
        assert bench.pace.tokens_per_s == 1
        bench.now += 100
        bench.stalls.restart(bench.now)
        held.job.tokens(100)
        for _ in range(15):
            held.job.tokens(1)
            bench.pass_s(1)
        assert bench.pace.tokens_per_s == 1

    run(main())


@pytest.mark.parametrize(("tps", "bound_s"), [(1000, 59), (30, 68), (5, 409), (0.1, 1199)])
def test_a_step_of_a_slow_engine_is_waited_for(tps: float, bound_s: float) -> None:
    """At a quarter of its speed; 20 times the bound at the most."""

    async def main() -> None:
        bench = Bench()
        bench.pace.told(tps)
        bench.held(prompt="x" * 8192)
        assert bench.pass_s(int(bound_s)) == []
        assert [stall.phase for stall in bench.pass_s(2)] == [Phase.PREFILL]

    run(main())


def test_a_step_may_take_longer_than_those_before() -> None:
    """Prompts get slower with their length."""

    async def main() -> None:
        bench = Bench()
        bench.pace.told(1000)
        bench.held(prompt="x" * 8192)
        for step_s in (20, 40, 100):
            assert bench.pass_s(step_s) == []
            bench.works()
        assert bench.pass_s(399) == []

    run(main())


def test_where_no_step_shows_a_whole_prompt_is_waited_for() -> None:
    async def main() -> None:
        bench = Bench(SILENT)
        bench.pace.token(0.5)
        bench.held(prompt="x" * 3 * 200)
        assert bench.pass_s(400) == []
        assert bench.pass_s(20) != []

    run(main())


def test_bounds_of_zero_are_none() -> None:
    async def main() -> None:
        bench = Bench(prefill_s=0, decode_s=0)
        bench.held()
        bench.held(tokens=1)
        assert bench.pass_s(5000) == []

    run(main())


def test_a_request_is_cut_once_and_only_while_it_lasts() -> None:
    async def main() -> None:
        from neurogate.channel import End

        bench = Bench()
        held = bench.held()
        end = End(EndCode.BROKEN, message="stuck")
        assert not held.cut(end), "it has not begun"

        async def last() -> None:
            async with held.within(asyncio.timeout(None)):
                assert held.cut(end)
                assert not held.cut(end)
                assert "cut" in repr(held)
                await asyncio.sleep(100)

        with pytest.raises(TimeoutError):
            await last()
        other = bench.held()
        async with other.within(asyncio.timeout(None)):
            pass
        assert not other.cut(end), "it is over"

    run(main())


def test_the_worker_ends_a_stalled_stream_as_broken_and_suspects_the_engine() -> None:
    """Another worker goes on with it; the slot is free again, and a canary tells at once whether the engine lives."""

    async def main() -> None:
        engine = ScriptedEngine(observation=TELLS, replies=lambda _: stream(b"data: {}\n\n", HANG))
        async with watching(engine) as watched:
            await asyncio.sleep(7)
            before = len(engine.prompts)
            outlet = FakeOutlet()
            end = await watched.worker.answer(incoming({"stream": True}, timeout_s=None), outlet)
            assert (end.code, end.message) == (EndCode.BROKEN, "the engine stalled in decode: nothing for 15 s")
            assert outlet.body == b"data: {}\n\n"
            assert engine.active.value == 0
            assert watched.value("stalls_total", phase="decode") == 1
            assert watched.value("engine_requests_total", model="tiny", status="broken") == 1
            await asyncio.sleep(1)
            assert len(engine.prompts) > before
            assert watched.loop.time() - watched.worker.canary.last_at <= 1
            assert watched.worker.ready

    run(main())


def test_an_unstreamed_answer_on_an_engine_that_tells_nothing_is_waited_for() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        engine = ScriptedEngine(observation=replace(SILENT, canaries=False), replies=lambda _: Reply([gate, b"{}"]))
        async with watching(engine) as watched:
            asyncio.get_running_loop().call_later(1000, gate.set)
            assert (await watched.worker.answer(incoming(timeout_s=None), FakeOutlet())).http_status == 200
            assert engine.prompts == []

    run(main())

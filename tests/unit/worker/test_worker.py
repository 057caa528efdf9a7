"""The worker behind the wire: what it takes, what it refuses, and what everything an engine does wrong becomes."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from neurogate import __version__
from neurogate.channel import End, EndCode
from neurogate.endpoint import ServedModel
from neurogate.engines.engine import (
    AnswerTooLargeError,
    EngineBrokenError,
    EngineError,
    EngineFatalError,
    EngineRefusedError,
    EngineUnavailableError,
    EngineUnsupportedError,
    ModelInfo,
    Observation,
)
from neurogate.errors import (
    BadRequestError,
    BusyError,
    DeadlineError,
    EngineFailedError,
    GatewayError,
    ModelNotFoundError,
    NoWorkerError,
    StreamBrokenError,
    UnsupportedError,
)
from neurogate.inference import GenerationEvent, Prompt, Token
from neurogate.rpc.backend import EngineKeyError
from neurogate.testing.engines import HANG, READY, Pause, Reply, ScriptedEngine, finished, stream
from neurogate.virtual_time import run
from neurogate.worker.backend import Worker, WorkerLimits
from worker_support import NOW, FakeOutlet, Setup, incoming, prompt, prompt_call

DATA: dict[str, Any] = {
    "family": "llama",
    "parameters": 7,
    "quantization": "Q4_1",
    "size_bytes": 8,
    "digest": "ab",
}
MODEL = ModelInfo("a", context_length=9, template="{{ messages }}", **DATA)


def raising(error: Exception) -> ScriptedEngine:
    """An engine that fails before its first byte."""

    def fail(_: object) -> Reply:
        raise error

    return ScriptedEngine(replies=fail)


async def generated(setup: Setup, asked: Prompt) -> list[GenerationEvent]:
    async with aclosing(setup.worker.generate(asked, "r-1")) as events:
        return [event async for event in events]


# Answers


def test_an_answer_is_the_engines_own() -> None:
    async def main() -> None:
        setup = Setup(ScriptedEngine(replies=lambda _: Reply([b'{"a":', b"1}"])))
        outlet = FakeOutlet()
        end = await setup.worker.answer(incoming(b'{"messages":[]}'), outlet)
        assert end == End(http_status=200, content_type="application/json")
        assert outlet.body == b'{"a":1}'
        [seen] = setup.engine.calls
        assert (seen.path, seen.body, seen.request_id) == ("/v1/chat/completions", b'{"messages":[]}', "r-1")
        setup.assert_idle()

    run(main())


def test_prompts_are_the_workers_own_api() -> None:
    async def main() -> None:
        setup = Setup(ScriptedEngine())
        end = await setup.worker.answer(prompt_call("Why?"), FakeOutlet())
        assert end.http_status == 200
        assert [asked.text for asked in setup.engine.prompts] == ["Why?"]
        assert setup.engine.calls == []

    run(main())


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (EngineUnavailableError("loading"), End(EndCode.UNAVAILABLE, message="loading")),
        (EngineBrokenError("cut"), End(EndCode.BROKEN, message="cut")),
        (EngineUnsupportedError("no such API"), End(EndCode.UNSUPPORTED, message="no such API")),
        (EngineRefusedError(404, "no such model"), End(http_status=404, message="no such model")),
        (
            EngineRefusedError(401, "HTTP 401"),
            End(
                EndCode.UNAVAILABLE,
                message="HTTP 401: the engine does not take the worker's NEUROGATE_ENGINE_API_KEY",
            ),
        ),
        (
            AnswerTooLargeError(9),
            End(
                EndCode.BROKEN, message="the engine's answer is larger than the worker's NEUROGATE_MAX_ANSWER_BYTES, 9"
            ),
        ),
        (
            EngineRefusedError(503, "full", retry_after_s=2.0),
            End(http_status=503, retry_after_s=2.0, message="full"),
        ),
        (EngineFatalError("no model file"), End(EndCode.BROKEN, message="no model file")),
        (EngineError("odd"), End(EndCode.BROKEN, message="odd")),
    ],
)
def test_everything_an_engine_does_wrong_is_an_end(error: EngineError, end: End) -> None:
    async def main() -> None:
        setup = Setup(raising(error))
        assert await setup.worker.answer(incoming(), FakeOutlet()) == end
        setup.assert_idle()

    run(main())


def test_an_error_after_the_first_bytes_is_an_end_too() -> None:
    async def main() -> None:
        setup = Setup(ScriptedEngine(replies=lambda _: stream(b"data: {}\n\n", EngineBrokenError("reset by peer"))))
        outlet = FakeOutlet()
        end = await setup.worker.answer(incoming(), outlet)
        assert (end.code, end.message) == (EndCode.BROKEN, "reset by peer")
        assert outlet.chunks == [b"data: {}\n\n"]
        setup.assert_idle()

    run(main())


@pytest.mark.parametrize("error", [ValueError("a bug"), TimeoutError("somebody's own"), ZeroDivisionError("x")])
def test_a_bug_ends_one_request_and_is_logged(error: Exception) -> None:
    """The link that carries all the others goes on; the text of the bug stays in the log."""

    async def main() -> None:
        setup = Setup(raising(error))
        with capture_logs() as logs:
            end = await setup.worker.answer(incoming(), FakeOutlet())
        assert end == End(EndCode.INTERNAL, message=f"{type(error).__name__} in the worker")
        [log] = [log for log in logs if log["log_level"] == "error"]
        assert log["request_id"] == "r-1"
        assert log["exc_info"]
        setup.assert_idle()

    run(main())


def test_a_request_whose_time_is_over_is_stopped_in_the_engine() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        setup = Setup(ScriptedEngine(replies=lambda _: stream(b"data: {}\n\n", HANG)))
        end = await setup.worker.answer(incoming(timeout_s=7.5), FakeOutlet())
        assert end == End(EndCode.DEADLINE, message="the request's time ran out")
        assert loop.time() == pytest.approx(7.5)
        assert setup.engine.aborted == 1
        setup.assert_idle()

    run(main())


def test_a_request_without_a_deadline_may_take_for_ever() -> None:
    async def main() -> None:
        opened = asyncio.Event()
        setup = Setup(ScriptedEngine(replies=lambda _: Reply([opened, b"{}"])))
        asyncio.get_running_loop().call_later(1e6, opened.set)
        end = await setup.worker.answer(incoming(timeout_s=None), FakeOutlet())
        assert end.http_status == 200

    run(main())


def test_a_cancelled_request_is_stopped_in_the_engine() -> None:
    async def main() -> None:
        setup = Setup(ScriptedEngine(replies=lambda _: stream(b"data: {}\n\n", HANG)))
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(setup.worker.answer(incoming(), FakeOutlet()))
            await setup.engine.active.until(lambda active: active == 1)
            assert setup.worker.active == 1
            task.cancel()
        assert task.cancelled()
        assert setup.engine.aborted == 1
        assert setup.value("engine_requests_total", model="tiny", status="cancelled") == 1
        assert setup.value("engine_request_errors_total", model="tiny", error_type="cancelled") == 0
        setup.assert_idle()

    run(main())


def test_token_counts_that_make_no_sense_fail_nobody() -> None:
    async def main() -> None:
        usage = b'{"choices":[],"usage":{"prompt_tokens":-5,"completion_tokens":-7}}'
        setup = Setup(ScriptedEngine(replies=lambda _: Reply([usage])))
        end = await setup.worker.answer(incoming(), FakeOutlet())
        assert end.http_status == 200
        setup.assert_idle()
        assert setup.worker.report().completion_tokens_total == 0

    run(main())


# Refusals


def test_a_worker_that_drains_hands_requests_back() -> None:
    """As cancelled, which says nothing bad about it and lets another worker take them."""

    async def main() -> None:
        setup = Setup(ScriptedEngine())
        setup.worker.drain()
        end = await setup.worker.answer(incoming(), FakeOutlet())
        assert (end.code, end.message) == (EndCode.CANCELLED, "the worker drains")
        with pytest.raises(NoWorkerError, match="the worker drains"):
            await generated(setup, prompt())
        assert setup.changes == 2
        assert not setup.worker.ready

    run(main())


def test_a_worker_that_is_not_ready_says_why() -> None:
    async def main() -> None:
        setup = Setup(ScriptedEngine(), observation=None)
        end = await setup.worker.answer(incoming(), FakeOutlet())
        assert (end.code, end.message) == (EndCode.UNAVAILABLE, "the engine is starting")
        setup.worker.take_observation(Observation(ready=False, detail="loading the model"))
        with pytest.raises(NoWorkerError, match="loading the model"):
            await generated(setup, prompt())

    run(main())


def test_a_worker_that_holds_enough_is_busy() -> None:
    async def main() -> None:
        setup = Setup(ScriptedEngine(replies=lambda _: Reply([HANG])), max_requests=2)
        async with asyncio.TaskGroup() as tasks:
            held = [tasks.create_task(setup.worker.answer(incoming(), FakeOutlet())) for _ in range(2)]
            await setup.engine.active.until(lambda active: active == 2)
            end = await setup.worker.answer(incoming(), FakeOutlet())
            assert (end.code, end.retry_after_s) == (EndCode.BUSY, 1.0)
            assert "holds 2 requests already (NEUROGATE_WORKER_MAX_REQUESTS)" in end.message
            with pytest.raises(BusyError) as refused:
                await generated(setup, prompt())
            assert refused.value.retry_after_s == 1.0
            for task in held:
                task.cancel()
        assert len(setup.engine.calls) == 2
        setup.assert_idle()

    run(main())


def test_what_a_draining_worker_holds_goes_on() -> None:
    """`idle` is reached when the last of it has ended."""

    async def main() -> None:
        gate = asyncio.Event()
        setup = Setup(ScriptedEngine(replies=lambda _: Reply([gate, b"{}"])))
        await setup.worker.idle()
        async with asyncio.TaskGroup() as tasks:
            held = tasks.create_task(setup.worker.answer(incoming(), FakeOutlet()))
            await setup.engine.active.until(lambda active: active == 1)
            setup.worker.drain()
            idle = tasks.create_task(setup.worker.idle())
            await asyncio.sleep(1)
            assert not idle.done()
            gate.set()
        assert held.result().http_status == 200
        setup.assert_idle()

    run(main())


# Generation without a link


def test_a_generation_is_passed_on_and_counted() -> None:
    async def main() -> None:
        setup = Setup(ScriptedEngine(generations=lambda _: [Token("Hel"), Token("lo"), finished()]))
        asked = prompt("Why?", model="tiny", system="Be brief.", max_tokens=9, temperature=0.0)
        assert await generated(setup, asked) == [Token("Hel"), Token("lo"), finished()]
        assert setup.engine.prompts == [asked]
        report = setup.worker.report()
        assert (report.requests_total, report.prompt_tokens_total, report.completion_tokens_total) == (1, 3, 2)
        assert setup.value("engine_requests_total", model="tiny", status="200") == 1
        setup.assert_idle()

    run(main())


def test_a_generation_that_is_closed_stops_the_engine() -> None:
    async def main() -> None:
        setup = Setup(ScriptedEngine(generations=lambda _: [Token("a"), Token("b"), finished()]))
        async with aclosing(setup.worker.generate(prompt(max_tokens=100), "r-1")) as events:
            assert await anext(events) == Token("a")
            assert setup.worker.report().tokens_outstanding == 99
        assert setup.engine.aborted == 1
        setup.assert_idle()

    run(main())


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (EngineRefusedError(404, "no such model"), ModelNotFoundError),
        (EngineRefusedError(400, "too long"), BadRequestError),
        (EngineRefusedError(429, "slow down", retry_after_s=3.0), BusyError),
        (EngineRefusedError(503, "full", retry_after_s=3.0), BusyError),
        (EngineRefusedError(503, "loading"), NoWorkerError),
        (EngineRefusedError(401, "HTTP 401"), EngineKeyError),
        (EngineRefusedError(403, "HTTP 403"), EngineKeyError),
        (EngineRefusedError(504, "too slow"), DeadlineError),
        (EngineRefusedError(500, "crashed"), EngineFailedError),
        (EngineUnavailableError("gone"), NoWorkerError),
        (EngineUnsupportedError("no such API"), UnsupportedError),
        (EngineBrokenError("cut"), EngineFailedError),
    ],
)
def test_a_generation_that_fails_raises_what_a_client_may_see(error: EngineError, raised: type[GatewayError]) -> None:
    async def main() -> None:
        setup = Setup(ScriptedEngine(generations=lambda _: [error]))
        with pytest.raises(raised, match=str(error)) as told:
            await generated(setup, prompt())
        if isinstance(error, EngineRefusedError) and error.retry_after_s is not None:
            assert told.value.retry_after_s == error.retry_after_s
        setup.assert_idle()

    run(main())


def test_a_generation_that_breaks_off_is_a_broken_stream() -> None:
    async def main() -> None:
        steps: list[GenerationEvent | Pause] = [Token("a"), EngineBrokenError("cut")]
        setup = Setup(ScriptedEngine(generations=lambda _: steps))
        with pytest.raises(StreamBrokenError, match="cut"):
            await generated(setup, prompt())
        assert setup.value("engine_request_errors_total", model="tiny", error_type="broken") == 1
        setup.assert_idle()

    run(main())


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (Prompt(""), "prompt"),
        (Prompt("Why?", max_tokens=0), "max_tokens"),
        (Prompt("Why?", max_tokens=-1), "max_tokens"),
        (Prompt("Why?", max_tokens=1_000_001), "max_tokens"),
        (Prompt("Why?", temperature=-0.1), "temperature"),
        (Prompt("Why?", temperature=2.1), "temperature"),
        (Prompt("Why?", temperature=float("nan")), "temperature"),
    ],
)
def test_a_prompt_that_no_engine_could_take_is_refused(asked: Prompt, field: str) -> None:
    async def main() -> None:
        setup = Setup(ScriptedEngine())
        with pytest.raises(BadRequestError, match=f"^{field}: ") as refused:
            await generated(setup, asked)
        assert refused.value.param == field
        assert setup.engine.prompts == []
        setup.assert_idle()

    run(main())


# What it says of itself


def test_the_report_is_the_truth() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        setup = Setup(ScriptedEngine(replies=lambda _: Reply([HANG])))
        setup.worker.take_observation(replace(READY, slots_total=2, kv_used_ratio=0.25, restarts=3, models=(MODEL,)))
        async with asyncio.TaskGroup() as tasks:
            held = [tasks.create_task(setup.worker.answer(incoming(), FakeOutlet())) for _ in range(3)]
            await setup.engine.active.until(lambda active: active == 3)
            await asyncio.sleep(5)
            report = setup.worker.report()
            assert (report.worker_id, report.version) == ("w-1", __version__)
            assert (report.ready, report.draining, report.detail) == (True, False, "")
            assert (report.engine_kind, report.engine_version, report.engine_restarts) == ("scripted", "1.2.3", 3)
            assert report.models == (ServedModel("a", context_length=9, **DATA),)
            assert (report.slots_total, report.slots_busy, report.running, report.queued) == (2, 2, 2, 1)
            assert report.tokens_outstanding == 3 * 256
            assert (report.kv_used_ratio, report.requests_total, report.uptime_s) == (0.25, 3, 5.0)
            assert loop.time() == 5.0
            for task in held:
                task.cancel()
        later = setup.worker.report()
        assert (later.running, later.queued, later.slots_busy) == (0, 0, 0)
        assert later.seq == report.seq + 1
        setup.worker.drain()
        assert not setup.worker.report().ready
        assert setup.worker.report().draining

    run(main())


def test_of_slots_that_are_not_known_none_is_busy_and_all_that_is_held_runs() -> None:
    async def main() -> None:
        setup = Setup(ScriptedEngine(replies=lambda _: Reply([HANG])))
        setup.worker.take_observation(replace(READY, slots_total=0))
        async with asyncio.TaskGroup() as tasks:
            held = [tasks.create_task(setup.worker.answer(incoming(), FakeOutlet())) for _ in range(3)]
            await setup.engine.active.until(lambda active: active == 3)
            report = setup.worker.report()
            assert (report.slots_total, report.slots_busy, report.running, report.queued) == (0, 0, 3, 0)
            setup.worker.take_observation(replace(READY, slots_total=0, queued=2))
            assert (setup.worker.report().running, setup.worker.report().queued) == (3, 2)
            assert (setup.value("load"), setup.value("active_inferences")) == (0, 3)
            for task in held:
                task.cancel()

    run(main())


def test_an_engine_that_tells_its_slots_is_believed() -> None:
    async def main() -> None:
        setup = Setup(ScriptedEngine())
        setup.worker.take_observation(replace(READY, slots_busy=3))
        assert setup.worker.report().slots_busy == 3

    run(main())


@pytest.mark.parametrize(("told", "queued"), [(None, 1), (0, 1), (5, 5)])
def test_the_queue_is_the_larger_of_two_views(told: int | None, queued: int) -> None:
    """The engine's own queue may be filled by others too."""

    async def main() -> None:
        setup = Setup(ScriptedEngine(replies=lambda _: Reply([HANG])))
        setup.worker.take_observation(replace(READY, slots_total=1, queued=told))
        async with asyncio.TaskGroup() as tasks:
            held = [tasks.create_task(setup.worker.answer(incoming(), FakeOutlet())) for _ in range(2)]
            await setup.engine.active.until(lambda active: active == 2)
            assert setup.worker.report().queued == queued
            for task in held:
                task.cancel()

    run(main())


@pytest.mark.parametrize(
    ("body", "label"),
    [({"model": "b"}, "b"), ({"model": "made up"}, "a"), ({}, "a"), (b"{oops", "a"), (b'{"model":"\xff"}', "a")],
)
def test_metrics_name_the_requests_model_when_the_engine_has_it(body: object, label: str) -> None:
    async def main() -> None:
        setup = Setup(ScriptedEngine())
        setup.worker.take_observation(replace(READY, models=(ModelInfo("a"), ModelInfo("b"))))
        await setup.worker.answer(incoming(body), FakeOutlet())
        assert setup.value("engine_requests_total", model=label, status="200") == 1
        await generated(setup, prompt(model="b"))
        assert setup.value("tokens_generated_total", model="b") == 2

    run(main())


def test_answers_are_held_within_the_workers_limit() -> None:
    async def main() -> None:
        setup = Setup(ScriptedEngine(replies=lambda _: Reply([b'"12345678"']), generations=lambda _: [Token("ö" * 5)]))
        worker = Worker(
            setup.engine,
            limits=WorkerLimits(max_requests=1, max_answer_bytes=9),
            metrics=setup.metrics,
            loop=asyncio.get_running_loop(),
            now=lambda: NOW,
            on_change=lambda: None,
        )
        worker.take_observation(READY)
        for call in (incoming(), prompt_call()):
            outlet = FakeOutlet()
            end = await worker.answer(call, outlet)
            assert (end.code, outlet.chunks) == (EndCode.BROKEN, [])
            assert "NEUROGATE_MAX_ANSWER_BYTES, 9" in end.message
        setup.assert_idle()

    run(main())


def test_rates_are_those_of_the_engine_at_work() -> None:
    """Ticked with every observation; a second without requests leaves them, but that nothing runs is told."""

    async def main() -> None:
        usage = b'{"choices":[],"usage":{"prompt_tokens":30,"completion_tokens":50}}'
        setup = Setup(ScriptedEngine(replies=lambda _: Reply([usage])), observation=None)
        await asyncio.sleep(1)
        setup.worker.take_observation(READY)
        await setup.worker.answer(incoming(), FakeOutlet())
        await asyncio.sleep(1)
        setup.worker.take_observation(READY)
        report = setup.worker.report()
        assert (report.decode_tokens_per_s, report.prompt_tokens_per_s) == (50, 30)
        assert setup.value("tokens_per_second", model="tiny") == 0
        assert replace(report, running=1).tokens_per_s == 50
        await asyncio.sleep(10)
        setup.worker.take_observation(READY)
        assert setup.worker.report().decode_tokens_per_s == 50

    run(main())


def test_gauges_follow_the_observations() -> None:
    async def main() -> None:
        setup = Setup(ScriptedEngine(replies=lambda _: Reply([HANG])))
        assert setup.value("engine_connected") == 1
        async with asyncio.TaskGroup() as tasks:
            held = tasks.create_task(setup.worker.answer(incoming(), FakeOutlet()))
            await setup.engine.active.until(lambda active: active == 1)
            setup.worker.take_observation(replace(READY, slots_total=4, restarts=2))
            assert (setup.value("load"), setup.value("active_inferences")) == (0.25, 1)
            assert setup.value("engine_restarts") == 2
            held.cancel()
        setup.worker.take_observation(Observation(ready=False, models=(), slots_total=0))
        assert (setup.value("engine_connected"), setup.value("load")) == (0, 0)

    run(main())


def test_only_a_change_of_readiness_or_models_is_told_at_once() -> None:
    async def main() -> None:
        setup = Setup(ScriptedEngine(), observation=None)
        for observation, changes in [
            (READY, 1),
            (replace(READY, slots_busy=2), 1),
            (replace(READY, models=(ModelInfo("other"),)), 2),
            (Observation(ready=False, detail="down"), 3),
            (Observation(ready=False, detail="still down"), 3),
        ]:
            setup.worker.take_observation(observation)
            assert setup.changes == changes

    run(main())


def test_observing_asks_once_an_interval_and_an_engine_that_hangs_is_not_ready() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        setup = Setup(ScriptedEngine(), observation=None)
        async with asyncio.TaskGroup() as tasks:
            observing = tasks.create_task(setup.worker.observe(1.0))
            await setup.engine.observed.until(lambda observed: observed == 3)
            assert loop.time() == 2.0
            assert setup.worker.ready
            setup.engine.observe_steps = [HANG]
            await asyncio.sleep(1 + 2.5)
            await asyncio.sleep(0.001)
            assert not setup.worker.ready
            assert setup.worker.report().detail == "the engine does not answer"
            setup.engine.observe_steps = []
            await setup.engine.observed.until(lambda observed: observed == 4)
            await asyncio.sleep(0)
            assert setup.worker.ready
            observing.cancel()

    run(main())


def test_an_engine_that_cannot_be_observed_is_not_ready_and_said_so_once() -> None:
    """Whatever it answered: the worker lives on and asks again."""

    async def main() -> None:
        setup = Setup(ScriptedEngine(), observation=None)
        setup.engine.observe_steps = [OverflowError("1e999")]
        with capture_logs() as logs:
            async with asyncio.TaskGroup() as tasks:
                observing = tasks.create_task(setup.worker.observe(1.0))
                await asyncio.sleep(3.5)
                assert setup.worker.report().detail == "the engine's state cannot be read (OverflowError: 1e999)"
                setup.engine.observe_steps = []
                await asyncio.sleep(1)
                assert setup.worker.ready
                observing.cancel()
        assert [log["event"] for log in logs if log["log_level"] == "error"] == ["the engine cannot be observed"]

    run(main())

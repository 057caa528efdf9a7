"""`/prompt` on whatever engine the worker has, streamed and whole."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from neurogate.channel import End
from neurogate.engines.engine import EngineBrokenError, EngineRefusedError
from neurogate.inference import Finished, GenerationEvent, Prompt, Token, Usage
from neurogate.prompt_api import PromptAnswer
from neurogate.testing.engines import HANG, Pause, ScriptedEngine
from neurogate.virtual_time import run
from neurogate.worker.meter import Meter
from neurogate.worker.metrics import WorkerMetrics
from neurogate.worker.prompting import answer_prompt
from worker_support import FakeOutlet, incoming, progress, prompt_call

FINISHED = Finished(Usage(5, 2), "stop", "tiny", 120)
HELLO: list[GenerationEvent | Pause] = [Token("Hel"), Token('lo "you"\n\n'), FINISHED]


def speaking(*events: GenerationEvent | Pause) -> ScriptedEngine:
    return ScriptedEngine(generations=lambda _: list(events))


async def prompted(engine: ScriptedEngine, **fields: Any) -> tuple[End, FakeOutlet]:
    outlet = FakeOutlet()
    end = await answer_prompt(engine, prompt_call(**fields), outlet, progress())
    assert engine.active.value == 0
    return end, outlet


def events_of(body: bytes) -> list[Any]:
    """The JSON of each event."""
    assert body.endswith(b"\n\n")
    return [msgspec.json.decode(event.removeprefix(b"data: ")) for event in body.split(b"\n\n")[:-1]]


def test_a_whole_answer() -> None:
    async def main() -> None:
        end, outlet = await prompted(speaking(*HELLO))
        assert end == End(http_status=200, usage=Usage(5, 2), finish_reason="stop")
        [body] = outlet.chunks
        assert msgspec.json.decode(body, type=PromptAnswer) == PromptAnswer(
            request_id="r-1",
            response='Hello "you"\n\n',
            model="tiny",
            tokens=7,
            prompt_tokens=5,
            completion_tokens=2,
            finish_reason="stop",
            inference_time_ms=120,
        )

    run(main())


def test_a_streamed_answer_is_an_event_for_each_token_and_one_that_ends_it() -> None:
    async def main() -> None:
        end, outlet = await prompted(speaking(*HELLO), stream=True)
        assert end.usage == Usage(5, 2)
        assert len(outlet.chunks) == 3
        assert events_of(outlet.body) == [
            {"request_id": "r-1", "token": "Hel", "tokens_generated": 1, "done": False},
            {"request_id": "r-1", "token": 'lo "you"\n\n', "tokens_generated": 2, "done": False},
            {
                "request_id": "r-1",
                "model": "tiny",
                "finish_reason": "stop",
                "tokens": 7,
                "prompt_tokens": 5,
                "completion_tokens": 2,
                "inference_time_ms": 120,
                "done": True,
            },
        ]

    run(main())


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({}, Prompt("Why?")),
        (
            {"model": "tiny", "system_prompt": "Be brief.", "max_tokens": 9, "temperature": 0.7},
            Prompt("Why?", "tiny", "Be brief.", 9, 0.7),
        ),
        ({"temperature": 0}, Prompt("Why?", temperature=0.0)),
        ({"model": None, "max_tokens": None, "temperature": None, "system_prompt": None}, Prompt("Why?")),
        ({"unknown": 1}, Prompt("Why?")),
    ],
)
def test_the_engine_is_asked_what_the_client_asked(fields: dict[str, Any], asked: Prompt) -> None:
    """Temperature 0 is a value, not an absence."""

    async def main() -> None:
        engine = speaking(FINISHED)
        await prompted(engine, query="Why?", **fields)
        assert engine.prompts == [asked]

    run(main())


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"query":""}', b'{"query":1}', b'{"query":"\xff"}', b'{"query":"x","max_tokens":0}'],
)
def test_a_bad_body_is_a_bad_request(body: bytes) -> None:
    """The gateway has checked it, so only another client of the link can send one; it costs the engine nothing."""

    async def main() -> None:
        engine = speaking(FINISHED)
        end = await answer_prompt(engine, incoming(body, path="/prompt"), FakeOutlet(), progress())
        assert end.http_status == 400
        assert end.message
        assert engine.prompts == []

    run(main())


def test_an_absurd_limit_is_a_bad_request() -> None:
    """It would become the worker's outstanding work, which its reports must be able to carry."""

    async def main() -> None:
        engine = speaking(FINISHED)
        end, _ = await prompted(engine, max_tokens=2**63)
        assert end.http_status == 400
        assert "1000000" in end.message
        assert engine.prompts == []

    run(main())


def test_an_answer_that_just_ends_is_broken() -> None:
    async def main() -> None:
        with pytest.raises(EngineBrokenError, match="without its end mark"):
            await prompted(speaking(Token("Hel")), stream=True)

    run(main())


def test_the_engines_errors_are_raised() -> None:
    async def main() -> None:
        with pytest.raises(EngineRefusedError):
            await prompted(speaking(EngineRefusedError(404, "no such model")))

    run(main())


def test_a_gateway_that_reads_slowly_pauses_the_engine() -> None:
    async def main() -> None:
        outlet = FakeOutlet(limit=1)
        engine = speaking(*HELLO)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(answer_prompt(engine, prompt_call(stream=True), outlet, progress()))
            await asyncio.sleep(1)
            assert len(outlet.chunks) == 1
            outlet.read()
            await asyncio.sleep(1)
            outlet.read()
        assert task.result().http_status == 200
        assert len(outlet.chunks) == 3

    run(main())


def test_cancelling_stops_the_engine() -> None:
    async def main() -> None:
        engine = speaking(Token("Hel"), HANG)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(answer_prompt(engine, prompt_call(), FakeOutlet(), progress()))
            await engine.active.until(lambda active: active == 1)
            await asyncio.sleep(1)
            task.cancel()
        assert (engine.active.value, engine.aborted) == (0, 1)

    run(main())


def test_the_limit_a_request_names_is_the_work_it_may_become() -> None:
    async def main() -> None:
        meter = Meter()
        counted = progress(WorkerMetrics(), meter)
        gate = asyncio.Event()
        engine = speaking(Token("a"), Token("b"), gate, FINISHED)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(answer_prompt(engine, prompt_call(max_tokens=10), FakeOutlet(), counted))
            await asyncio.sleep(1)
            assert meter.tokens_outstanding == 8
            gate.set()

    run(main())

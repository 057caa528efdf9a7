"""What every engine promises a worker, checked against each: `Engine` in engines/engine.py, sentence by sentence.

| engine       | against                                                    |
|--------------|------------------------------------------------------------|
| sim          | itself                                                     |
| openai       | a fake Ollama's OpenAI endpoints                           |
| ollama       | the same fake's native API                                 |
| llama-server | the simulated engine behind llama.cpp's HTTP API           |
| llamacpp     | a real llama.cpp child with the real model (marked model)  |
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine_support import (
    CHAT_PATH,
    LogList,
    chat_call,
    child_processes,
    leaving_nothing,
    read,
    running,
    until_ready,
)
from neurogate.channel import Resume
from neurogate.engines.engine import (
    FEATURES,
    Engine,
    EngineBrokenError,
    EngineCall,
    EngineRefusedError,
    EngineUnavailableError,
    EngineUnsupportedError,
)
from neurogate.engines.llama_server import LlamaServerEngine
from neurogate.engines.llamacpp.engine import ManagedLlamaCppEngine
from neurogate.engines.ollama import OllamaEngine
from neurogate.engines.openai import OpenAIEngine
from neurogate.engines.settings import EngineSettings, SimSettings
from neurogate.engines.sim.engine import SimEngine
from neurogate.engines.sim.server import serve
from neurogate.engines.sse import Ending, SseTap
from neurogate.inference import Finished, Prompt, Token
from neurogate.operations import OPERATIONS
from neurogate.testing import fake_ollama
from neurogate.testing.fake_ollama import FakeOllama

QUESTION = "Why is the sky blue?"
MODES = ("answers", "refuses", "breaks", "holds")

SIM_FAULTS = {"answers": "", "refuses": "error=1", "breaks": "cut_after=2", "holds": "hang_after=2"}
OLLAMA_SCRIPTS = {
    "answers": fake_ollama.ANSWERS,
    "refuses": fake_ollama.REFUSES,
    "breaks": fake_ollama.DIES,
    "holds": fake_ollama.HOLDS,
}


@dataclass
class Case:
    """One engine in one mood."""

    engine: Engine
    busy: Callable[[], Awaitable[int]]
    """Requests that have a slot."""
    question: str = QUESTION
    model: str | None = None
    max_tokens: int = 8
    break_off: Callable[[], None] = lambda: None
    """What makes the answer break off once its first token came, where that does not happen by itself."""
    slots: int = 2
    """0 where neither the engine nor its settings tell."""

    def call(self, **fields: Any) -> Any:
        asked = {"model": self.model, "max_tokens": self.max_tokens, "temperature": 0, **fields}
        return chat_call(self.question, **asked)

    @property
    def prompt(self) -> Prompt:
        return Prompt(self.question, model=self.model or "", max_tokens=self.max_tokens, temperature=0)


Opening = Callable[[str], AbstractAsyncContextManager[Case]]
Promise = Callable[[Case], Awaitable[None]]


async def observed_busy(engine: Engine) -> int:
    busy = (await engine.observe()).slots_busy
    assert busy is not None
    return busy


def sim_settings(mode: str) -> SimSettings:
    return SimSettings(prefill_tps=0, decode_tps=200, slots=2, faults=SIM_FAULTS[mode])


@asynccontextmanager
async def sim(mode: str) -> AsyncIterator[Case]:
    engine = SimEngine(sim_settings(mode), rng=random.Random(1), now=lambda: 0.0)
    yield Case(engine, lambda: observed_busy(engine))


@asynccontextmanager
async def llama_server(mode: str) -> AsyncIterator[Case]:
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(serve(sim_settings(mode), host="127.0.0.1", port=0, announce=listening.set_result))
        engine = LlamaServerEngine((await listening).removeprefix("listening on "))
        yield Case(engine, lambda: observed_busy(engine))
        serving.cancel()


@asynccontextmanager
async def openai(mode: str) -> AsyncIterator[Case]:
    async with FakeOllama(slots=2) as fake:
        fake.script = OLLAMA_SCRIPTS[mode]
        yield Case(OpenAIEngine(fake.url), lambda: running_in(fake), model="llama3.2", slots=0)


@asynccontextmanager
async def ollama(mode: str) -> AsyncIterator[Case]:
    async with FakeOllama(slots=2) as fake:
        fake.script = OLLAMA_SCRIPTS[mode]
        yield Case(OllamaEngine(fake.url), lambda: running_in(fake), model="llama3.2", slots=0)


async def running_in(fake: FakeOllama) -> int:
    return fake.running


class LlamaCpp:
    """The real engine, whose child takes seconds to start: one of them is kept for all that leave it as it was."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._runner = asyncio.Runner()
        self._engine: ManagedLlamaCppEngine | None = None
        self._over = asyncio.Event()
        self._life: asyncio.Task[None] | None = None
        self._others = child_processes()
        """What other tests started and keep, a Redis for example."""

    @asynccontextmanager
    async def __call__(self, mode: str) -> AsyncIterator[Case]:
        yield self._case(self._made(), mode)

    def check_kept(self, mode: str, promise: Promise) -> None:
        """Check a promise on the engine that is kept, and that nothing of it is left there."""

        async def go() -> None:
            async with asyncio.timeout(60):
                if self._engine is None:
                    await self._begin()
                case = self._case(self._engine, mode)
                await until_idle(case)
                async with leaving_nothing():
                    await promise(case)
                await until_idle(case)

        self._runner.run(go())

    def close(self) -> None:
        """Stops it, and checks that it leaves nothing."""

        async def go() -> None:
            if self._life is not None:
                self._over.set()
                await self._life
            assert asyncio.all_tasks() == {asyncio.current_task()}

        with self._runner:
            self._runner.run(go())
        assert child_processes() <= self._others

    async def _begin(self) -> None:
        ready: asyncio.Future[ManagedLlamaCppEngine] = asyncio.get_running_loop().create_future()

        async def live() -> None:
            async with running(self._made()) as engine:
                await until_ready(engine)
                ready.set_result(engine)
                await self._over.wait()

        self._life = asyncio.create_task(live())
        await asyncio.wait([ready, self._life], return_when=asyncio.FIRST_COMPLETED)
        self._engine = ready.result() if ready.done() else self._life.result()

    def _made(self) -> ManagedLlamaCppEngine:
        settings = EngineSettings(slots=2, context_length=512, threads=1)
        return ManagedLlamaCppEngine(settings, self._path, "smollm2", log=LogList())

    @staticmethod
    def _case(engine: ManagedLlamaCppEngine, mode: str) -> Case:
        def kill() -> None:
            os.kill(engine.pid or 0, signal.SIGKILL)

        return Case(
            engine,
            lambda: observed_busy(engine),
            question=QUESTION * 200 if mode == "refuses" else QUESTION,
            max_tokens=8 if mode == "answers" else 400,
            break_off=kill if mode == "breaks" else lambda: None,
        )


@pytest.fixture(scope="module")
def llamacpp(smollm2_path: Path) -> Iterator[LlamaCpp]:
    made = LlamaCpp(smollm2_path)
    yield made
    made.close()


@pytest.fixture(params=["sim", "openai", "ollama", "llama-server", pytest.param("llamacpp", marks=pytest.mark.model)])
def opening(request: pytest.FixtureRequest) -> Opening:
    """How to get the engine in a mode."""
    match request.param:
        case "sim":
            return sim
        case "openai":
            return openai
        case "ollama":
            return ollama
        case "llama-server":
            return llama_server
    real: LlamaCpp = request.getfixturevalue("llamacpp")
    return real


def check(opening: Opening, mode: str, promise: Promise, *, ends: bool = False) -> None:
    """Check a promise on a running engine that leaves nothing behind. `ends` says that the promise stops the engine."""
    if isinstance(opening, LlamaCpp) and mode != "breaks" and not ends:
        opening.check_kept(mode, promise)
        return

    async def go() -> None:
        async with asyncio.timeout(60), leaving_nothing(), opening(mode) as case, running(case.engine):
            await until_ready(case.engine)
            await promise(case)

    asyncio.run(go())


async def streamed(case: Case) -> tuple[bytes, Ending]:
    """A streamed answer and how it ended; one that breaks off at the transport just ends."""
    tap = SseTap()
    whole = b""
    async with case.engine.forward(case.call(stream=True, stream_options={"include_usage": True})) as reply:
        assert (reply.status, reply.content_type) == (200, "text/event-stream")
        try:
            async for piece in reply.body:
                events = tap.feed(piece)
                if events and not whole:
                    case.break_off()
                whole += events
        except EngineBrokenError:
            pass
    return whole, tap.finish()


def text_of(stream: bytes) -> str:
    events = [event.removeprefix("data: ") for event in stream.decode().split("\n\n") if event.startswith("data: {")]
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def test_an_answer_is_the_same_streamed_whole_and_generated(opening: Opening) -> None:
    async def promise(case: Case) -> None:
        stream, ending = await streamed(case)
        async with case.engine.forward(case.call()) as reply:
            assert (reply.status, reply.content_type) == (200, "application/json")
            whole = json.loads(await read(reply.body))
        events = [event async for event in case.engine.generate(case.prompt)]

        text = text_of(stream)
        assert text
        assert whole["choices"][0]["message"]["content"] == text
        *tokens, finished = events
        assert "".join(token.text for token in tokens if isinstance(token, Token)) == text
        assert ending.complete
        assert ending.error is None
        assert ending.usage is not None
        assert ending.tokens == ending.usage.completion_tokens > 0
        assert isinstance(finished, Finished)
        assert finished.usage.completion_tokens == ending.tokens
        assert finished.finish_reason in {"stop", "length"}
        assert finished.finish_reason == ending.finish_reason
        assert finished.model
        assert finished.inference_time_ms >= 0

    check(opening, "answers", promise)


def test_several_requests_are_answered_at_once(opening: Opening) -> None:
    async def promise(case: Case) -> None:
        async with asyncio.TaskGroup() as tasks:
            answers = [tasks.create_task(streamed(case)) for _ in range(6)]
        assert all(answer.result()[1].complete for answer in answers)

    check(opening, "answers", promise)


def test_a_refusal_is_an_answer_with_a_status_and_stops_a_generation(opening: Opening) -> None:
    async def promise(case: Case) -> None:
        for stream in (True, False):
            async with case.engine.forward(case.call(stream=stream)) as reply:
                assert reply.status >= 400
                status = reply.status
                assert json.loads(await read(reply.body))["error"]
        with pytest.raises(EngineRefusedError) as caught:
            await anext(case.engine.generate(case.prompt))
        assert caught.value.status == status
        assert str(caught.value)
        assert await case.busy() == 0

    check(opening, "refuses", promise)


def test_an_answer_that_broke_off_never_looks_complete(opening: Opening) -> None:
    async def promise(case: Case) -> None:
        stream, ending = await streamed(case)
        assert text_of(stream)
        assert b"[DONE]" not in stream
        assert not ending.complete

    check(opening, "breaks", promise)


def test_a_generation_that_broke_off_raises_and_never_finishes(opening: Opening) -> None:
    async def generate(case: Case, said: list[object]) -> None:
        async with aclosing(case.engine.generate(case.prompt)) as events:
            async for event in events:
                said.append(event)
                if len(said) == 1:
                    case.break_off()

    async def promise(case: Case) -> None:
        said: list[object] = []
        with pytest.raises(EngineBrokenError):
            await generate(case, said)
        assert said
        assert all(isinstance(event, Token) for event in said)

    check(opening, "breaks", promise)


def test_leaving_a_forward_early_frees_the_slot(opening: Opening) -> None:
    async def promise(case: Case) -> None:
        async with case.engine.forward(case.call(stream=True)) as reply:
            await anext(reply.body)
            assert await case.busy() == 1
        await until_idle(case)

    check(opening, "holds", promise)


@pytest.mark.parametrize("stream", [True, False])
def test_cancelling_a_forward_frees_the_slot(opening: Opening, stream: bool) -> None:
    async def ask(case: Case) -> None:
        async with case.engine.forward(case.call(stream=stream)) as reply:
            await read(reply.body)

    async def promise(case: Case) -> None:
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(ask(case))
            while not await case.busy():
                await asyncio.sleep(0.01)
            asking.cancel()
        await until_idle(case)

    check(opening, "holds", promise)


def test_closing_a_generation_frees_the_slot(opening: Opening) -> None:
    async def promise(case: Case) -> None:
        async with aclosing(case.engine.generate(case.prompt)) as events:
            assert isinstance(await anext(events), Token)
            assert await case.busy() == 1
        await until_idle(case)

    check(opening, "holds", promise)


async def until_idle(case: Case) -> None:
    async with asyncio.timeout(10):
        while await case.busy():
            await asyncio.sleep(0.01)


def pieces_of(stream: bytes) -> list[str]:
    events = [event.removeprefix("data: ") for event in stream.decode().split("\n\n") if event.startswith("data: {")]
    deltas = [choice["delta"] for event in events for choice in json.loads(event)["choices"]]
    return [delta["content"] for delta in deltas if delta.get("content")]


def test_what_another_one_began_it_continues_to_the_letter(opening: Opening) -> None:
    """From every token on: text, usage and finish reason are those of the answer that nobody broke off."""

    async def promise(case: Case) -> None:
        if CHAT_PATH not in (await case.engine.observe()).resumes:
            with pytest.raises(EngineUnsupportedError):
                await anext(case.engine.resume(case.call(stream=True), Resume("Hello", 1)))
            return
        stream, ending = await streamed(case)
        assert ending.usage is not None
        pieces = pieces_of(stream)
        call = case.call(stream=True, stream_options={"include_usage": True})
        for cut in range(len(pieces) + 1):
            text = "".join(pieces[:cut])
            whole = ending.finish_reason if cut == len(pieces) else ""
            said = Resume(text, cut, lengths=bytes(map(len, pieces[:cut])), finish_reason=whole)
            *tokens, finished = [event async for event in case.engine.resume(call, said)]
            assert text + "".join(token.text for token in tokens if isinstance(token, Token)) == "".join(pieces)
            assert isinstance(finished, Finished)
            assert finished.usage.prompt_tokens == ending.usage.prompt_tokens
            assert finished.usage.completion_tokens == ending.usage.completion_tokens
            assert finished.finish_reason == ending.finish_reason
        await until_idle(case)

    check(opening, "answers", promise)


def test_closing_a_continuation_frees_the_slot(opening: Opening) -> None:
    async def promise(case: Case) -> None:
        if CHAT_PATH not in (await case.engine.observe()).resumes:
            return
        async with aclosing(case.engine.resume(case.call(stream=True), Resume("", 0))) as events:
            assert isinstance(await anext(events), Token)
            assert await case.busy() == 1
        await until_idle(case)

    check(opening, "holds", promise)


def test_what_cannot_be_continued_faithfully_is_unsupported(opening: Opening) -> None:
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}

    async def promise(case: Case) -> None:
        for path in ("/v1/embeddings", "/v1/messages"):
            with pytest.raises(EngineUnsupportedError):
                await anext(case.engine.resume(EngineCall(path, b"{}"), Resume("Hello", 1)))
        for unfaithful in ({"n": 2}, {"logprobs": True}, {"tools": [tool], "tool_choice": "required"}):
            with pytest.raises(EngineUnsupportedError):
                await anext(case.engine.resume(case.call(stream=True, **unfaithful), Resume("Hello", 1)))
        assert await case.busy() == 0

    check(opening, "answers", promise)


def test_an_api_the_engine_has_not_is_unsupported(opening: Opening) -> None:
    async def promise(case: Case) -> None:
        with pytest.raises(EngineUnsupportedError):
            async with case.engine.forward(chat_call(path="/v1/audio/speech")):
                pass

    check(opening, "answers", promise)


REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/responses": {"input": "Say hello.", "max_output_tokens": 4},
    "/v1/embeddings": {"input": "Hello"},
    "/v1/rerank": {"query": "Hello", "documents": ["Hello", "Goodbye"]},
    "/v1/messages": {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "Say hello."}]},
    "/completion": {"prompt": "Hello", "n_predict": 4},
    "/infill": {"input_prefix": "def add(", "input_suffix": "return", "n_predict": 4},
    "/tokenize": {"content": "Hello"},
    "/detokenize": {"tokens": []},
    "/apply-template": {"messages": [{"role": "user", "content": "Say hello."}]},
}


def test_it_takes_the_apis_it_says_and_refuses_the_others(opening: Opening) -> None:
    """An API that it claims is answered, or refused by itself in words of its own; no other is ever sent."""

    async def promise(case: Case) -> None:
        seen = await case.engine.observe()
        assert seen.unsupported <= FEATURES
        assert seen.apis <= {path for path, operation in OPERATIONS.items() if not operation.universal}
        for path, body in REQUESTS.items():
            call = EngineCall(path, json.dumps({**body, **({"model": case.model} if case.model else {})}).encode())
            if path not in seen.apis:
                with pytest.raises(EngineUnsupportedError):
                    async with case.engine.forward(call):
                        pass
                continue
            async with case.engine.forward(call) as reply:
                answer = json.loads(await read(reply.body))
            assert (reply.status, reply.content_type) == (200, "application/json"), (path, answer)
        assert await case.busy() == 0

    check(opening, "answers", promise)


def test_what_it_observes_is_true_and_plausible(opening: Opening) -> None:
    async def promise(case: Case) -> None:
        observation = await case.engine.observe()
        assert (observation.ready, observation.detail, observation.restarts) == (True, "", 0)
        assert observation.slots_total == case.slots
        assert observation.slots_busy in {0, None}
        assert observation.queued in {0, None}
        assert observation.models
        assert all(model.name for model in observation.models)
        assert case.engine.kind in {"llamacpp", "llama-server", "ollama", "openai", "sim"}
        assert "Engine" in repr(case.engine)

    check(opening, "answers", promise)


def test_outside_its_life_it_is_not_ready_unavailable_and_stops_harmlessly(opening: Opening) -> None:
    async def go() -> None:
        async with asyncio.timeout(60), leaving_nothing(), opening("answers") as case:
            engine = case.engine
            for _ in range(2):  # before its start, and after its stop
                observation = await engine.observe()
                assert not observation.ready
                assert observation.detail
                with pytest.raises(EngineUnavailableError):
                    async with engine.forward(case.call()):
                        pass
                with pytest.raises(EngineUnavailableError):
                    await anext(engine.generate(case.prompt))
                await engine.stop()

    asyncio.run(go())


def test_stopped_without_ever_having_run_it_leaves_nothing(opening: Opening) -> None:
    async def go() -> None:
        async with asyncio.timeout(60), leaving_nothing(), opening("answers") as case:
            await case.engine.start()
            await case.engine.stop()
            await case.engine.stop()

    asyncio.run(go())


def test_stopping_it_breaks_the_answer_under_way(opening: Opening) -> None:
    async def promise(case: Case) -> None:
        async with case.engine.forward(case.call(stream=True)) as reply:
            await anext(reply.body)
            await case.engine.stop()
            with pytest.raises(EngineBrokenError):
                await read(reply.body)

    check(opening, "holds", promise, ends=True)

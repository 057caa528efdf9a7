"""A worker continues what another one began: joined, the client has the undisturbed answer. On virtual time."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from neurogate.channel import End, EndCode, Resume
from neurogate.engines.engine import (
    EngineBrokenError,
    EngineCall,
    EngineRefusedError,
    EngineUnavailableError,
    EngineUnsupportedError,
    Observation,
)
from neurogate.engines.settings import SimSettings
from neurogate.engines.sim.engine import SimEngine
from neurogate.inference import Finished, Token, Usage
from neurogate.rpc.backend import IncomingCall
from neurogate.testing.engines import READY, ScriptedEngine, finished
from neurogate.virtual_time import run
from neurogate.worker.backend import Worker, WorkerLimits
from neurogate.worker.meter import Meter
from neurogate.worker.metrics import WorkerMetrics
from neurogate.worker.resuming.api import resumes_of
from neurogate.worker.stalls import Held
from told_support import events_of, read
from trace_support import Spans, tracer_into
from worker_support import CHAT, NOW, FakeOutlet, Setup, incoming, prompt_call

COMPLETION = "/v1/completions"
OPENAI = frozenset({CHAT, COMPLETION})
USAGE = {"stream_options": {"include_usage": True}}


def ask(path: str, **body: Any) -> IncomingCall:
    return incoming({"stream": True, **body}, path=path)


def chat(text: str = "Why is the sky blue?", **body: Any) -> IncomingCall:
    return ask(CHAT, messages=[{"role": "user", "content": text}], **body)


def ollama_chat(**body: Any) -> IncomingCall:
    return ask("/api/chat", model="sim", messages=[{"role": "user", "content": "Why?"}], **body)


def generate(**body: Any) -> IncomingCall:
    return ask("/api/generate", model="sim", prompt="Why?", **body)


CALLS = {
    "chat": chat(max_tokens=12),
    "chat with usage": chat(max_tokens=12, **USAGE),
    "chat to its natural end": chat(**USAGE),
    "chat with a stop text": chat(stop=["fox", "e"], **USAGE),
    "chat in other scripts": chat("为什么 🦊?", max_tokens=7, **USAGE),
    "chat of one token": chat(max_tokens=1),
    "completion": ask(COMPLETION, prompt="Once upon a time", max_tokens=9),
    "completion with usage": ask(COMPLETION, prompt="Once upon a time", max_tokens=9, **USAGE),
    "completion of nothing": ask(COMPLETION, prompt="Once", max_tokens=0, **USAGE),
    "completion with a stop text": ask(COMPLETION, prompt="Once upon a time", stop="a", **USAGE),
    "prompt": prompt_call("Why?", stream=True, max_tokens=8),
    "prompt with a system": prompt_call("Why 🦊?", stream=True, system_prompt="Be brief.", temperature=0),
    "Ollama's chat": ollama_chat(options={"num_predict": 8}),
    "Ollama's chat to its end": ollama_chat(),
    "Ollama's chat with a stop text": ollama_chat(options={"stop": ["e"]}),
    "Ollama's generate": generate(options={"num_predict": 8}),
    "Ollama's generate, by default a stream": incoming(
        {"model": "sim:latest", "prompt": "Why?", "system": "Be brief."}, path="/api/generate"
    ),
    "Ollama's generate, raw": generate(raw=True, options={"num_predict": 8}),
}


@asynccontextmanager
async def sim_worker(**settings: Any) -> AsyncIterator[Worker]:
    """A worker on a simulated engine, which holds nothing afterwards."""
    engine = SimEngine(
        SimSettings(**{"slots": 2, "prefill_tps": 1000, "decode_tps": 50, **settings}),
        rng=random.Random(1),
        now=lambda: NOW,
    )
    await engine.start()
    worker = Worker(
        engine,
        limits=WorkerLimits(max_requests=8),
        metrics=WorkerMetrics(),
        loop=asyncio.get_running_loop(),
        now=lambda: NOW,
        on_change=lambda: None,
    )
    worker.take_observation(await engine.observe())
    yield worker
    assert worker.active == 0
    assert (await engine.observe()).slots_busy == 0
    await engine.stop()


async def answered(worker: Worker, call: IncomingCall) -> tuple[bytes, End]:
    outlet = FakeOutlet()
    end = await worker.answer(call, outlet)
    return outlet.body, end


@pytest.mark.parametrize("name", CALLS)
def test_cut_behind_any_event_the_joined_stream_says_what_the_undisturbed_one_says(name: str) -> None:
    call = CALLS[name]

    async def main() -> None:
        async with sim_worker() as one, sim_worker(slots=1, decode_tps=7) as other:
            stream, undisturbed = await answered(one, call)
            whole = read(stream)
            assert whole.end_marks == 1
            events = events_of(stream)
            for cut in range(len(events)):
                begun = b"".join(events[:cut])
                said = read(begun).resume()
                rest, end = await answered(other, structs.replace(call, resume=said))
                assert end.http_status == 200, end.message
                joined = read(begun + rest)
                if not said.completion_id and name.startswith(("chat", "completion")):  # nothing had come
                    assert len(joined.ids) == len(joined.fingerprints) == 1
                    joined = replace(joined, ids=whole.ids, fingerprints=whole.fingerprints)
                assert joined == whole
                assert end.finish_reason == undisturbed.finish_reason
                if not (said.usage_sent and end.usage is None):
                    assert end.usage == undisturbed.usage

    run(main())


def test_a_client_that_has_nothing_yet_is_told_who_speaks() -> None:
    async def main() -> None:
        async with sim_worker() as worker:
            body, _ = await answered(worker, structs.replace(chat(max_tokens=2), resume=Resume("")))
        assert read(body).roles == 1
        assert read(body).ids == {"chatcmpl-r-1"}

    run(main())


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
@pytest.mark.parametrize("fingerprint", ["b6000-abc", ""])
def test_every_event_has_the_fingerprint_that_the_first_ones_had(path: str, fingerprint: str) -> None:
    async def main() -> None:
        async with sim_worker() as worker:
            said = Resume("[sim]", 1, "id", 1, "m", system_fingerprint=fingerprint)
            call = ask(path, prompt="Why?", messages=[{"role": "user", "content": "Why?"}], max_tokens=4, **USAGE)
            body, _ = await answered(worker, structs.replace(call, resume=said))
        assert read(body).usages
        assert read(body).fingerprints == {fingerprint}
        assert (b"system_fingerprint" in body) is bool(fingerprint)

    run(main())


def test_only_the_end_mark_is_written_when_only_that_is_missing() -> None:
    """The engine is not even asked."""

    async def main() -> None:
        made = Setup(ScriptedEngine(), observation=replace(READY, resumes=OPENAI))
        said = Resume("Hi", 1, "id", 1, "m", "stop", usage_sent=True)
        outlet = FakeOutlet()
        end = await made.worker.answer(incoming(path=CHAT, resume=said), outlet)
        assert (outlet.body, end) == (b"data: [DONE]\n\n", End(http_status=200, finish_reason="stop"))
        assert made.engine.resumed == []
        made.assert_idle()

    asyncio.run(main())


def test_tokens_of_another_worker_are_not_counted_as_this_ones() -> None:
    async def main() -> None:
        steps = [Token(" two"), Token(" three"), finished(prompt=5, completion=12)]
        engine = ScriptedEngine(continuations=lambda _: steps)
        made = Setup(engine, observation=replace(READY, resumes=OPENAI))
        end = await made.worker.answer(incoming(path=CHAT, resume=Resume("one", 10)), FakeOutlet())
        assert end.usage == Usage(5, 12)
        assert made.value("tokens_generated_total", model="tiny") == 2
        assert made.worker.report().completion_tokens_total == 2
        assert made.worker.report().prompt_tokens_total == 5
        made.assert_idle()

    asyncio.run(main())


def test_what_was_said_already_is_to_be_computed_as_the_prompt_is() -> None:
    for said, more in ((None, 0), (Resume("Hello"), 5)):
        held = Held(Meter().begin(None), now=0.0)
        held.came(incoming(b"{}", path=CHAT, resume=said), FakeOutlet())
        assert held.prompt_bytes == 2 + more


def test_work_that_is_outstanding_is_what_is_left_of_it() -> None:
    async def main() -> None:
        release = asyncio.Event()
        engine = ScriptedEngine(continuations=lambda _: [Token("a"), release, finished()])
        made = Setup(engine, observation=replace(READY, resumes=OPENAI))
        call = structs.replace(prompt_call(max_tokens=50, stream=True), resume=Resume("...", 30))
        outlet = FakeOutlet(limit=1)
        answering = asyncio.create_task(made.worker.answer(call, outlet))
        await engine.active.until(lambda active: active == 1)
        await asyncio.sleep(0)
        assert made.worker.report().tokens_outstanding == 19
        outlet.read()
        release.set()
        await answering
        assert outlet.waited == 1
        made.assert_idle()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("resumes", "path", "body"),
    [
        (frozenset[str](), CHAT, {}),
        (frozenset({CHAT}), COMPLETION, {}),
        (frozenset({COMPLETION}), "/prompt", {"query": "Why?"}),
        (frozenset({CHAT}), "/api/generate", {"model": "tiny", "prompt": "Why?"}),
        (OPENAI, "/v1/messages", {}),
    ],
)
def test_what_the_engine_cannot_continue_is_unsupported(resumes: frozenset[str], path: str, body: object) -> None:
    async def main() -> None:
        made = Setup(ScriptedEngine(), observation=replace(READY, resumes=resumes))
        end = await made.worker.answer(incoming(body, path=path, resume=Resume("Hi", 1)), FakeOutlet())
        assert end.code is EndCode.UNSUPPORTED
        assert path in end.message
        assert made.engine.calls == []
        made.assert_idle()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"tools": [{"type": "function"}]}),
        ("/api/chat", {"model": "tiny", "messages": [{"role": "user", "content": "Why?"}], "tools": [{}]}),
    ],
)
def test_a_feature_that_the_engine_would_ignore_is_unsupported(path: str, body: object) -> None:
    async def main() -> None:
        seen = replace(READY, resumes=OPENAI, unsupported=frozenset({"tools"}))
        made = Setup(ScriptedEngine(), observation=seen)
        end = await made.worker.answer(incoming(body, path=path, resume=Resume("Hi", 1)), FakeOutlet())
        assert (end.code, "'tools'" in end.message) == (EndCode.UNSUPPORTED, True)
        assert made.engine.calls == []
        made.assert_idle()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("failure", "code", "status"),
    [
        (EngineUnsupportedError("not that"), EndCode.UNSUPPORTED, 0),
        (EngineUnavailableError("gone"), EndCode.UNAVAILABLE, 0),
        (EngineBrokenError("broke"), EndCode.BROKEN, 0),
        (EngineRefusedError(400, "no"), EndCode.ANSWERED, 400),
        (EngineRefusedError(429, "later", retry_after_s=2.0), EndCode.ANSWERED, 429),
    ],
)
def test_what_the_engine_does_wrong_is_said_as_for_any_answer(failure: Exception, code: EndCode, status: int) -> None:
    async def main() -> None:
        engine = ScriptedEngine(continuations=lambda _: [Token("a"), failure])
        made = Setup(engine, observation=replace(READY, resumes=OPENAI))
        outlet = FakeOutlet()
        end = await made.worker.answer(incoming(path=CHAT, resume=Resume("Hi", 1, "id")), outlet)
        assert (end.code, end.http_status) == (code, status)
        assert len(outlet.chunks) == 1
        assert b"[DONE]" not in outlet.body
        made.assert_idle()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([Token("a")], Resume("Hi", 1)),
        ([], Resume("Hi", 1)),
        ([], Resume("Hi", 1, finish_reason="stop")),
        ([Token("a"), finished()], Resume("Hi", 1, finish_reason="stop")),
    ],
)
def test_an_engine_that_does_not_end_or_goes_on_after_the_end_is_broken(
    steps: list[Token | Finished], said: Resume
) -> None:
    async def main() -> None:
        engine = ScriptedEngine(continuations=lambda _: steps)
        made = Setup(engine, observation=replace(READY, resumes=OPENAI))
        outlet = FakeOutlet()
        end = await made.worker.answer(incoming(path=CHAT, resume=said), outlet)
        assert end.code is EndCode.BROKEN
        assert b"[DONE]" not in outlet.body
        made.assert_idle()

    asyncio.run(main())


@pytest.mark.parametrize("path", ["/prompt", "/api/chat"])
def test_a_body_that_cannot_be_read_is_refused(path: str) -> None:
    async def main() -> None:
        made = Setup(ScriptedEngine(), observation=replace(READY, resumes=OPENAI))
        end = await made.worker.answer(incoming(b"{", path=path, resume=Resume("Hi", 1)), FakeOutlet())
        assert (end.code, end.http_status) == (EndCode.ANSWERED, 400)
        made.assert_idle()

    asyncio.run(main())


def test_what_is_wrong_with_an_openai_body_the_engine_says() -> None:
    async def main() -> None:
        made = Setup(ScriptedEngine(), observation=replace(READY, resumes=OPENAI))
        await made.worker.answer(incoming(b"{", path=CHAT, resume=Resume("Hi", 1)), FakeOutlet())
        assert [call.body for call in made.engine.calls] == [b"{"]

    asyncio.run(main())


def test_a_worker_that_drains_hands_it_back() -> None:
    async def main() -> None:
        made = Setup(ScriptedEngine(), observation=replace(READY, resumes=OPENAI))
        made.worker.drain()
        end = await made.worker.answer(incoming(path=CHAT, resume=Resume("Hi", 1)), FakeOutlet())
        assert end.code is EndCode.CANCELLED
        assert made.engine.calls == []

    asyncio.run(main())


def test_one_that_is_cancelled_or_out_of_time_frees_its_slot() -> None:
    async def main() -> None:
        async with sim_worker(decode_tps=1) as worker:
            call = structs.replace(chat(), resume=Resume("[sim]", 1, "id"))
            outlet = FakeOutlet()
            end = await worker.answer(structs.replace(call, timeout_s=3.0), outlet)
            assert end.code is EndCode.DEADLINE
            assert outlet.chunks
            answering = asyncio.create_task(worker.answer(call, FakeOutlet()))
            await asyncio.sleep(2)
            assert worker.active == 1
            answering.cancel()
            with pytest.raises(asyncio.CancelledError):
                await answering

    run(main())


def test_the_engine_behind_prompt_is_asked_for_its_model_when_the_client_names_none() -> None:
    async def main() -> None:
        engine = ScriptedEngine()
        made = Setup(engine, observation=replace(READY, resumes=OPENAI))
        await made.worker.answer(structs.replace(prompt_call(stream=True), resume=Resume("Hi", 1)), FakeOutlet())
        [asked] = engine.calls
        assert asked.path == CHAT
        assert json.loads(asked.body)["model"] == "tiny"

    asyncio.run(main())


class OllamaLike(ScriptedEngine):
    """An engine that speaks Ollama's API itself."""

    @property
    def kind(self) -> str:
        return "ollama"


def test_ollama_itself_gets_the_clients_own_bytes() -> None:
    async def main() -> None:
        engine = OllamaLike(continuations=lambda _: [Token(" you"), finished(reason="length")])
        made = Setup(engine, observation=replace(READY, resumes=frozenset({"/api/generate"})))
        call = incoming({"model": "tiny", "prompt": "Why?"}, path="/api/generate", resume=Resume("Hi", 1, model="tiny"))
        outlet = FakeOutlet()
        end = await made.worker.answer(call, outlet)
        assert [(asked.path, asked.body) for asked in engine.calls] == [(call.path, call.body)]
        assert read(outlet.body).text == " you"
        assert (end.finish_reason, end.usage) == ("length", Usage(3, 2))

    asyncio.run(main())


def test_ollamas_clients_compute_the_rate_at_which_the_rest_was_said() -> None:
    async def main() -> None:
        call = ollama_chat(options={"num_predict": 20})
        async with sim_worker(decode_tps=10) as worker:
            stream, _ = await answered(worker, call)
            begun = b"".join(events_of(stream)[:15])
            rest, _ = await answered(worker, structs.replace(call, resume=read(begun).resume()))
        last = json.loads(events_of(rest)[-1])
        assert last["eval_count"] == 20
        assert last["eval_count"] / last["eval_duration"] == pytest.approx(10e-9, rel=0.3)
        assert last["total_duration"] == last["prompt_eval_duration"] + last["eval_duration"]

    run(main())


@pytest.mark.parametrize(
    ("kind", "of_engine", "of_worker"),
    [
        ("sim", OPENAI, OPENAI | {"/prompt", "/api/chat", "/api/generate"}),
        ("llama-server", frozenset({CHAT}), frozenset({CHAT, "/prompt", "/api/chat"})),
        ("openai", frozenset({COMPLETION}), frozenset({COMPLETION})),
        ("openai", frozenset(), frozenset()),
        ("ollama", OPENAI, OPENAI | {"/prompt"}),
        ("ollama", frozenset({"/api/chat"}), frozenset({"/api/chat"})),
    ],
)
def test_a_worker_continues_what_its_engine_does_and_what_it_translates_to_that(
    kind: str, of_engine: frozenset[str], of_worker: frozenset[str]
) -> None:
    assert resumes_of(Observation(ready=True, resumes=of_engine), kind) == of_worker


def test_the_span_of_a_continued_answer_says_so() -> None:
    async def main() -> None:
        spans = Spans()
        engine = ScriptedEngine(continuations=lambda _: [Token(" two"), finished()])
        made = Setup(engine, observation=replace(READY, resumes=OPENAI), tracer=tracer_into(spans))
        end = await made.worker.answer(incoming(path=CHAT, resume=Resume("one", 1)), FakeOutlet())
        assert end.http_status == 200
        attributes = spans.one("call").attributes
        assert (attributes["neurogate.resumed"], attributes["neurogate.end"]) == (True, "answered")
        made.assert_idle()

    asyncio.run(main())


def test_a_change_of_what_is_continued_is_reported_at_once() -> None:
    async def main() -> None:
        made = Setup(ScriptedEngine())
        before = made.changes
        made.worker.take_observation(replace(READY, resumes=frozenset({CHAT})))
        assert made.changes == before + 1
        assert made.worker.report().resumes == {CHAT, "/prompt", "/api/chat"}

    asyncio.run(main())


def test_a_continued_call_names_itself_to_the_engine() -> None:
    async def main() -> None:
        engine = ScriptedEngine()
        made = Setup(engine, observation=replace(READY, resumes=OPENAI))
        await made.worker.answer(incoming({"a": 1}, path=CHAT, resume=Resume("Hi", 1)), FakeOutlet())
        [asked] = engine.calls
        assert asked == EngineCall(CHAT, b'{"a":1}', "r-1")

    asyncio.run(main())

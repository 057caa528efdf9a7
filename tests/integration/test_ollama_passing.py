"""A worker beside Ollama: bytes pass both ways, in whole lines only, and no cut answer looks whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest

from engine_support import leaving_nothing, running
from neurogate.channel import End, EndCode
from neurogate.engines.engine import AnswerTooLargeError, Engine, EngineBrokenError, Observation
from neurogate.engines.ollama import OllamaEngine
from neurogate.inference import Usage
from neurogate.testing import fake_ollama
from neurogate.testing.engines import JSON, Pause, Reply, ScriptedEngine
from neurogate.testing.fake_ollama import FakeOllama, Script
from neurogate.virtual_time import run
from neurogate.worker.ollama_api.api import OllamaApi
from worker_support import NOW, FakeOutlet, incoming, progress

BOTH = pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
NDJSON = "application/x-ndjson"
LINE = b'{"response":"Hi","done":false}\n'
LAST = b'{"response":"","done":true,"done_reason":"stop","prompt_eval_count":26,"eval_count":4}\n'
WHOLE = LAST.rstrip()


class OllamaLike(ScriptedEngine):
    @property
    def kind(self) -> str:
        return "ollama"


def body_of(path: str, **fields: Any) -> dict[str, Any]:
    question = {"messages": [{"role": "user", "content": "Hi"}]} if path == "/api/chat" else {"prompt": "Hi"}
    return {"model": "llama3.2", **question, **fields}


async def answered(
    engine: Engine, path: str, outlet: FakeOutlet | None = None, **fields: Any
) -> tuple[End, FakeOutlet]:
    outlet = outlet or FakeOutlet()
    api = OllamaApi(engine, now=lambda: NOW, max_answer_bytes=1000)
    end = await api.answer(incoming(fields, path=path), outlet, progress(), Observation(ready=True))
    return end, outlet


def scripted(*steps: bytes | Pause, kind: str = NDJSON, status: int = 200) -> OllamaLike:
    return OllamaLike(replies=lambda _: Reply(steps, content_type=kind, status=status))


@asynccontextmanager
async def connected(script: Script = fake_ollama.ANSWERS) -> AsyncIterator[tuple[FakeOllama, OllamaEngine]]:
    async with leaving_nothing(), FakeOllama() as fake, running(OllamaEngine(fake.url)) as engine:
        fake.script = script
        yield fake, engine


@BOTH
@pytest.mark.parametrize("stream", [{}, {"stream": True}, {"stream": False}])
def test_bytes_pass_both_ways(path: str, stream: dict[str, Any]) -> None:
    async def go() -> None:
        async with connected() as (fake, engine), httpx.AsyncClient(base_url=fake.url) as client:
            asked = body_of(path, unknown={"kept": True}, **stream)
            end, outlet = await answered(engine, path, **asked)
            assert (end.code, end.http_status, end.usage, end.finish_reason) == (
                EndCode.ANSWERED,
                200,
                Usage(26, 4),
                "stop",
            )
            assert outlet.body == (await client.post(path, json=asked)).content
            assert fake.asked[0].body == asked
            assert len(outlet.body.splitlines()) == (1 if stream == {"stream": False} else 5)

    asyncio.run(go())


@BOTH
def test_the_reason_is_ollamas_own(path: str) -> None:
    async def go() -> None:
        async with connected(replace(fake_ollama.ANSWERS, done_reason="length")) as (_fake, engine):
            end, _ = await answered(engine, path, **body_of(path))
            assert end.finish_reason == "length"

    asyncio.run(go())


@BOTH
@pytest.mark.parametrize(("keep_alive", "reason"), [("5m", "load"), (0, "unload")])
def test_loading_and_unloading_pass_too(path: str, keep_alive: Any, reason: str) -> None:
    """Ollama answers them with one object, also to who asked for a stream: that one gets it as a line."""

    async def go() -> None:
        async with connected() as (_fake, engine):
            for stream, lines in ((True, 1), (False, 0)):
                asked = {"model": "llama3.2", "keep_alive": keep_alive, "stream": stream}
                end, outlet = await answered(engine, path, **asked)
                assert (end.http_status, end.finish_reason, end.usage) == (200, reason, None)
                assert outlet.body.count(b"\n") == lines
                assert json.loads(outlet.body)["done_reason"] == reason

    asyncio.run(go())


@pytest.mark.parametrize(
    ("path", "fields", "usage"),
    [
        ("/api/embed", {"input": ["a", "b"]}, Usage(2, 0)),
        ("/api/embeddings", {"prompt": "a"}, None),
        ("/api/show", {"verbose": True}, None),
    ],
)
def test_what_is_never_streamed_passes_whole(path: str, fields: dict[str, Any], usage: Usage | None) -> None:
    async def go() -> None:
        async with connected() as (fake, engine), httpx.AsyncClient(base_url=fake.url) as client:
            asked = {"model": "llama3.2:latest", **fields}
            end, outlet = await answered(engine, path, **asked)
            assert (end.http_status, end.usage) == (200, usage)
            assert outlet.body == (await client.post(path, json=asked)).content

    asyncio.run(go())


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/api/embed", "/api/embeddings", "/api/show"])
def test_a_refusal_passes_with_its_words(path: str) -> None:
    async def go() -> None:
        async with connected() as (_fake, engine):
            end, outlet = await answered(engine, path, model="other", input="a", prompt="a")
            assert (end.http_status, json.loads(end.body)) == (404, {"error": "model 'other' not found"})
            assert outlet.chunks == []

    asyncio.run(go())


def test_a_full_queue_is_told_with_a_time_to_try_again() -> None:
    async def go() -> None:
        async with leaving_nothing(), FakeOllama(queue_max=0) as fake, running(OllamaEngine(fake.url)) as engine:
            fake.script = fake_ollama.HOLDS
            async with asyncio.TaskGroup() as tasks:
                held = tasks.create_task(answered(engine, "/api/chat", **body_of("/api/chat")))
                await fake.until_running(1)
                end, _ = await answered(engine, "/api/chat", **body_of("/api/chat"))
                assert (end.http_status, end.retry_after_s) == (503, 1.0)
                fake.release()
            assert held.result()[0].http_status == 200

    asyncio.run(go())


@BOTH
@pytest.mark.parametrize(
    ("script", "told"),
    [
        (fake_ollama.REPORTS_ERROR, "reported: an error was encountered"),
        (fake_ollama.TRUNCATES, "without its last line"),
        (fake_ollama.DIES, "broke off"),
    ],
)
def test_a_stream_that_breaks_is_broken(path: str, script: Script, told: str) -> None:
    async def go() -> None:
        async with connected(script) as (_fake, engine):
            outlet = FakeOutlet()
            try:
                end, _ = await answered(engine, path, outlet, **body_of(path))
            except EngineBrokenError as error:
                end = End(EndCode.BROKEN, message=str(error))
            assert end.code is EndCode.BROKEN
            assert told in end.message
            assert outlet.body.count(b"\n") == 2
            assert outlet.body.endswith(b"\n")
            assert b'"error"' not in outlet.body
            assert b'"done":true' not in outlet.body

    asyncio.run(go())


def test_leaving_stops_ollama() -> None:
    async def go() -> None:
        async with connected(fake_ollama.HOLDS) as (fake, engine), asyncio.TaskGroup() as tasks:
            task = tasks.create_task(answered(engine, "/api/chat", **body_of("/api/chat")))
            await fake.until_running(1)
            task.cancel()
            await fake.until_running(0)

    asyncio.run(go())


# Against an engine that says bytes as they are written here


@pytest.mark.parametrize("size", [1, 2, 5, 13])
def test_only_whole_lines_pass(size: int) -> None:
    async def main() -> None:
        said = LINE + LINE + LAST
        pieces = [said[start : start + size] for start in range(0, len(said), size)]
        end, outlet = await answered(scripted(*pieces), "/api/generate")
        assert (end.http_status, end.usage) == (200, Usage(26, 4))
        assert outlet.body == said
        assert all(chunk.endswith(b"\n") for chunk in outlet.chunks)

    run(main())


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (scripted(LINE), "without its last line"),
        (scripted(LINE, WHOLE), "without its last line"),
        (scripted(), "without its last line"),
        (scripted(LINE, b'{"error":"no"}\n', LAST), "reported: no"),
        (scripted(b'{"response":"Hi"}', kind=JSON), "does not say that it is done"),
        (scripted(WHOLE[:20], kind=JSON), "does not say that it is done"),
        (scripted(b"", kind="text/html"), "does not say that it is done"),
    ],
)
def test_what_does_not_say_that_it_is_done_is_broken(reply: OllamaLike, told: str) -> None:
    async def main() -> None:
        end, outlet = await answered(reply, "/api/generate")
        assert end.code is EndCode.BROKEN
        assert told in end.message
        assert b'"done":true' not in outlet.body

    run(main())


def test_a_description_need_not_say_that_it_is_done() -> None:
    async def main() -> None:
        end, outlet = await answered(scripted(b'{"details":{}}', kind=JSON), "/api/show")
        assert (end.http_status, outlet.body) == (200, b'{"details":{}}')
        cut, _ = await answered(scripted(b'{"details":', kind=JSON), "/api/show")
        assert cut.code is EndCode.BROKEN

    run(main())


def test_a_whole_answer_is_held_within_the_limit() -> None:
    async def main() -> None:
        with pytest.raises(AnswerTooLargeError):
            await answered(scripted(b" " * 999, b"  ", kind=JSON), "/api/generate", stream=False)

    run(main())


def test_the_workers_own_key_is_no_business_of_the_client() -> None:
    async def main() -> None:
        end, _ = await answered(scripted(b'{"error":"no"}', kind=JSON, status=401), "/api/chat")
        assert end.code is EndCode.UNAVAILABLE

    run(main())


def test_a_gateway_that_reads_slowly_pauses_ollama() -> None:
    async def main() -> None:
        outlet = FakeOutlet(limit=1)
        engine = scripted(LINE, LINE, LAST)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(answered(engine, "/api/generate", outlet))
            for count in (1, 2, 3):
                await asyncio.sleep(1)
                assert len(outlet.chunks) == count
                outlet.read()
        assert task.result()[0].http_status == 200

    run(main())

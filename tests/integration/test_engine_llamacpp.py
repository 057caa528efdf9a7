"""The managed engine: a real llama.cpp child with a real model, and a stand-in binary where no model is needed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from engine_support import LogList, alive, chat_call, leaving_nothing, read, running, until, until_dead, until_ready
from neurogate.engines.engine import (
    EngineBrokenError,
    EngineFatalError,
    EngineUnavailableError,
    EngineUnsupportedError,
    ModelInfo,
)
from neurogate.engines.llamacpp.engine import ManagedLlamaCppEngine
from neurogate.engines.settings import EngineSettings
from neurogate.inference import Finished, GenerationEvent, Prompt, Token

STORY = "Tell me a very long story about a fox."


def managed(path: Path, *, log: LogList | None = None, **fields: Any) -> ManagedLlamaCppEngine:
    settings = EngineSettings(**{"slots": 2, "context_length": 1024, "threads": 1, **fields})
    return ManagedLlamaCppEngine(settings, path, "smollm2", log=log or LogList())


@asynccontextmanager
async def ready(path: Path, **fields: Any) -> AsyncIterator[ManagedLlamaCppEngine]:
    async with leaving_nothing(), running(managed(path, **fields)) as engine:
        await until_ready(engine)
        yield engine


async def generated(engine: ManagedLlamaCppEngine, prompt: Prompt) -> list[GenerationEvent]:
    async with aclosing(engine.generate(prompt)) as events:
        return [event async for event in events]


def streamed_text(stream: bytes) -> str:
    events = [line.removeprefix("data: ") for line in stream.decode().split("\n\n") if line.startswith("data: {")]
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


# --- the real child -------------------------------------------------------------------------------------------------


@pytest.mark.model
def test_a_real_prompt_is_answered_in_every_way_alike(smollm2_path: Path) -> None:
    async def go() -> None:
        async with ready(smollm2_path) as engine:
            observation = await engine.observe()
            [model] = observation.models
            assert (model.name, model.loaded, model.context_length) == ("smollm2", True, 1024)
            assert (observation.slots_total, observation.slots_busy, observation.queued) == (2, 0, 0)
            assert (observation.version, observation.restarts) != ("", 1)

            question = "What is the capital of France?"
            *tokens, finished = await generated(engine, Prompt(question, max_tokens=16, temperature=0))
            async with engine.forward(chat_call(question, max_tokens=16, temperature=0)) as reply:
                assert (reply.status, reply.content_type) == (200, "application/json")
                whole = json.loads(await read(reply.body))
            async with engine.forward(chat_call(question, max_tokens=16, temperature=0, stream=True)) as reply:
                assert (reply.status, reply.content_type) == (200, "text/event-stream")
                stream = await read(reply.body)

        text = "".join(token.text for token in tokens if isinstance(token, Token))
        assert text
        assert whole["choices"][0]["message"]["content"] == text
        assert whole["object"] == "chat.completion"
        assert streamed_text(stream) == text
        assert stream.endswith(b"data: [DONE]\n\n")
        assert isinstance(finished, Finished)
        assert whole["usage"]["completion_tokens"] == finished.usage.completion_tokens
        assert whole["usage"]["prompt_tokens"] == finished.usage.prompt_tokens
        assert (finished.model, finished.finish_reason) == ("smollm2", whole["choices"][0]["finish_reason"])
        assert finished.inference_time_ms > 0

    asyncio.run(go())


@pytest.mark.model
def test_a_folded_answer_has_every_field_of_the_engines_own(smollm2_path: Path) -> None:
    """A whole answer read as a stream, next to one that llama.cpp wrote whole."""

    async def go() -> None:
        async with ready(smollm2_path) as engine:
            asked = {"max_tokens": 8, "temperature": 0, "stop": ["\n"]}
            async with engine.forward(chat_call(**asked)) as reply:
                folded = json.loads(await read(reply.body))
            async with engine.forward(chat_call(**asked, mirostat=0)) as reply:  # a field folding does not know
                whole = json.loads(await read(reply.body))

        assert folded.keys() == whole.keys()
        assert folded["choices"] == whole["choices"]
        assert folded["usage"].keys() == whole["usage"].keys()
        assert folded["timings"].keys() == whole["timings"].keys()
        assert folded["object"] == whole["object"]

    asyncio.run(go())


@pytest.mark.model
@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_killed_child_breaks_its_answers_and_is_restarted(smollm2_path: Path, loop_factory: Any) -> None:
    async def go() -> None:
        log = LogList()
        async with ready(smollm2_path, log=log) as engine:
            first = engine.pid
            assert first is not None
            async with engine.forward(chat_call(STORY, stream=True, max_tokens=800, ignore_eos=True)) as reply:
                await anext(reply.body)
                os.kill(first, signal.SIGKILL)
                with pytest.raises(EngineBrokenError):
                    await read(reply.body)

            gone = await until(engine, lambda observation: "restarted" in observation.detail)
            assert (gone.ready, gone.restarts) == (False, 1)
            assert "SIGKILL" in gone.detail
            assert gone.models == (ModelInfo("smollm2", loaded=False),)
            with pytest.raises(EngineUnavailableError, match="SIGKILL"):
                async with engine.forward(chat_call()):
                    pass

            back = await until_ready(engine)
            assert back.restarts == 1
            assert engine.pid != first
            assert len(await generated(engine, Prompt("Hi", max_tokens=3, temperature=0))) > 1
        assert log.events() == ["engine ready", "engine died", "engine ready"]

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(go())


@pytest.mark.model
@pytest.mark.parametrize("stream", [True, False])
def test_cancelling_frees_the_slot_also_while_others_stream(smollm2_path: Path, stream: bool) -> None:
    async def ask(engine: ManagedLlamaCppEngine, started: asyncio.Event, **fields: Any) -> None:
        async with engine.forward(chat_call(STORY, max_tokens=900, ignore_eos=True, **fields)) as reply:
            async for _ in reply.body:
                started.set()

    async def go() -> None:
        async with ready(smollm2_path) as engine, asyncio.TaskGroup() as tasks:
            other_started = asyncio.Event()
            other = tasks.create_task(ask(engine, other_started, stream=True))
            await other_started.wait()
            asking = tasks.create_task(ask(engine, asyncio.Event(), stream=stream))
            await until(engine, lambda observation: observation.slots_busy == 2)
            asking.cancel()
            await until(engine, lambda observation: observation.slots_busy == 1)
            assert not other.done()
            other.cancel()
            await until(engine, lambda observation: observation.slots_busy == 0)

    asyncio.run(go())


@pytest.mark.model
def test_other_local_processes_are_kept_out_by_a_key(smollm2_path: Path) -> None:
    async def go() -> None:
        log = LogList()
        async with ready(smollm2_path, log=log):
            url = next(fields["url"] for _, event, fields in log.lines if event == "engine ready")
            async with httpx.AsyncClient(base_url=str(url)) as stranger:
                refused = await stranger.post("/v1/chat/completions", json={"messages": []})
            assert refused.status_code == 401

    asyncio.run(go())


OWNER = """
import asyncio, os, sys
from pathlib import Path
from neurogate.engines.llamacpp.engine import ManagedLlamaCppEngine
from neurogate.engines.settings import EngineSettings

async def main(path, binary, wait_until_ready):
    settings = EngineSettings(slots=1, context_length=512, threads=1, llama_server_bin=binary)
    engine = ManagedLlamaCppEngine(settings, Path(path), "owned")
    await engine.start()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(engine.run())
        while engine.pid is None or (wait_until_ready and not (await engine.observe()).ready):
            await asyncio.sleep(0.01)
        print(engine.pid, file=sys.stderr, flush=True)

asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3] == "ready"))
"""


def owner_killed(path: Path, binary: str, moment: str) -> int:
    """Run a worker of sorts in a process, kill that process, and give the id of its engine."""
    command = [sys.executable, "-c", OWNER, str(path), binary, moment]
    owner = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    with owner:
        assert owner.stderr is not None
        engine = int(owner.stderr.readline())
        owner.kill()
    return engine


@pytest.mark.model
@pytest.mark.parametrize("moment", ["ready", "loading"])
def test_a_killed_worker_leaves_no_orphan(smollm2_path: Path, moment: str) -> None:
    asyncio.run(until_dead(owner_killed(smollm2_path, "", moment)))


@pytest.mark.model
def test_a_damaged_model_is_named_before_a_child_is_started(smollm2_path: Path, tmp_path: Path) -> None:
    whole = smollm2_path.read_bytes()
    files = {
        "truncated.gguf": whole[: len(whole) // 2],
        "corrupt.gguf": b"\0" * 4096,
        "page.gguf": b"<!DOCTYPE html><html></html>",
        "empty.gguf": b"",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)

    for name in [*files, "missing.gguf"]:
        with pytest.raises(EngineFatalError, match=name):
            asyncio.run(managed(tmp_path / name).start())


@pytest.mark.model
def test_a_model_that_only_the_engine_can_tell_is_unusable_is_fatal(smollm2_path: Path, tmp_path: Path) -> None:
    strange = tmp_path / "strange.gguf"
    strange.write_bytes(smollm2_path.read_bytes().replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0lamma", 1))

    async def go() -> None:
        async with leaving_nothing():
            engine = managed(strange)
            await engine.start()
            with pytest.raises(EngineFatalError, match=r"cannot start.*strange\.gguf"):
                await engine.run()
            await engine.stop()

    asyncio.run(go())


def taken_port() -> socket.socket:
    """A listener on a port that the system gives to nobody by itself, so that it stays free when this lets go of it."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with suppress(OSError):
            return socket.create_server(("127.0.0.1", port))
    raise AssertionError("no port below the ephemeral ones is free")


@pytest.mark.model
def test_a_port_can_be_chosen(smollm2_path: Path) -> None:
    async def go() -> None:
        with taken_port() as taken:
            port = taken.getsockname()[1]
            async with leaving_nothing():
                engine = managed(smollm2_path, port=port)
                await engine.start()
                with pytest.raises(EngineFatalError, match=f"port {port} is taken"):
                    await engine.run()
        async with ready(smollm2_path, port=port) as engine, httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/health")).status_code == 200

    asyncio.run(go())


# --- a binary in its place ------------------------------------------------------------------------------------------

STAND_IN = """
import asyncio, sys
from neurogate.engines.settings import SimSettings
from neurogate.engines.sim.server import serve

flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
settings = SimSettings(slots=int(flags["--parallel"]), prefill_tps=0, decode_tps=20)
asyncio.run(serve(settings, host=flags["--host"], port=int(flags["--port"]), model=flags["--alias"]))
"""


@pytest.fixture
def binary(tmp_path: Path) -> str:
    """A program that takes llama-server's flags and serves its API."""
    path = tmp_path / "llama-server"
    path.write_text(f"#!{sys.executable}\n{STAND_IN}", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file with a GGUF header, and nothing in it."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF\x03\0\0\0" + bytes(16))
    return path


def test_a_configured_binary_is_run_instead(binary: str, model: Path) -> None:
    async def go() -> None:
        log = LogList()
        async with ready(model, llama_server_bin=binary, slots=3, threads=0, log=log) as engine:
            assert (engine.kind, engine.pid is not None) == ("llamacpp", True)
            assert "running" in repr(engine)
            assert (await engine.observe()).slots_total == 3
            *_, finished = await generated(engine, Prompt("Hi", max_tokens=2))
            assert isinstance(finished, Finished)
            assert finished.usage.completion_tokens == 2
            with pytest.raises(EngineUnsupportedError):
                async with engine.forward(chat_call(path="/v1/nothing")):
                    pass
        assert any("listening on" in str(line) for line in log.said("debug"))

    asyncio.run(go())


def test_a_killed_binary_is_restarted_and_its_answers_break(binary: str, model: Path) -> None:
    async def go() -> None:
        async with ready(model, llama_server_bin=binary) as engine:
            async with aclosing(engine.generate(Prompt("Hi", max_tokens=100))) as events:
                await anext(events)
                os.kill(engine.pid or 0, signal.SIGKILL)
                with pytest.raises(EngineBrokenError):
                    await anext(events)
            await until(engine, lambda observation: observation.restarts == 1)
            await until_ready(engine)
            assert len(await generated(engine, Prompt("Hi", max_tokens=2))) == 3

    asyncio.run(go())


def test_a_dead_child_that_is_not_yet_noticed_is_unavailable(binary: str, model: Path) -> None:
    async def go() -> None:
        async with ready(model, llama_server_bin=binary) as engine:
            pid = engine.pid or 0
            os.kill(pid, signal.SIGKILL)
            while alive(pid):
                pass  # without a turn of the event loop, which would notice
            with pytest.raises(EngineUnavailableError):
                await generated(engine, Prompt("Hi"))
            assert not (await engine.observe()).ready

    asyncio.run(go())


def test_stopping_ends_answers_and_the_child(binary: str, model: Path) -> None:
    async def go() -> None:
        async with ready(model, llama_server_bin=binary) as engine:
            async with engine.forward(chat_call(stream=True, max_tokens=100)) as reply:
                await anext(reply.body)
                await engine.stop()
                with pytest.raises(EngineBrokenError):
                    await read(reply.body)
            with pytest.raises(EngineUnavailableError, match="stopped"):
                await generated(engine, Prompt("Hi"))

    asyncio.run(go())


@pytest.mark.parametrize("moment", ["ready", "loading"])
def test_a_killed_worker_leaves_no_binary_behind(binary: str, model: Path, moment: str) -> None:
    asyncio.run(until_dead(owner_killed(model, binary, moment)))


def test_a_binary_that_keeps_dying_is_fatal_with_its_last_words(model: Path, tmp_path: Path) -> None:
    failing = tmp_path / "llama-server"
    failing.write_text("#!/bin/sh\necho 'error: unknown argument' >&2\nexit 1\n", encoding="utf-8")
    failing.chmod(0o755)

    async def go() -> None:
        async with leaving_nothing():
            engine = managed(model, llama_server_bin=str(failing))
            await engine.start()
            with pytest.raises(EngineFatalError, match=r"died 3 times.*unknown argument"):
                await engine.run()

    asyncio.run(go())


def test_a_binary_that_is_no_program_is_fatal_and_names_the_setting(model: Path) -> None:
    for wrong in ("/nowhere/llama-server", str(model)):
        with pytest.raises(EngineFatalError, match="NEUROGATE_LLAMA_SERVER_BIN"):
            asyncio.run(managed(model, llama_server_bin=wrong).start())


def test_before_the_start_there_is_nothing_to_ask_and_stop_is_harmless(model: Path) -> None:
    async def go() -> None:
        engine = managed(model)
        observation = await engine.observe()
        assert (observation.ready, observation.detail) == (False, "the engine is not started")
        with pytest.raises(EngineUnavailableError, match="not started"):
            await generated(engine, Prompt("Hi"))
        await engine.stop()
        await engine.stop()

    asyncio.run(go())

"""Engine processes that hang, crash or run out of memory: real processes, and the real engine where it matters."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from engine_support import LogList, alive, chat_call, leaving_nothing, read, running, until, until_ready
from neurogate.channel import EndCode
from neurogate.engines.engine import EngineBrokenError, EngineFatalError, EngineUnavailableError
from neurogate.engines.llamacpp import oom
from neurogate.engines.llamacpp.engine import ManagedLlamaCppEngine
from neurogate.engines.llamacpp.process import Launch
from neurogate.engines.llamacpp.supervisor import Supervisor
from neurogate.engines.settings import EngineSettings
from neurogate.errors import NeuroGateError
from neurogate.inference import Prompt
from watched_support import Watched
from worker_support import FakeOutlet, incoming

ANNOUNCE = """print('{"listening":"http://127.0.0.1:1"}', flush=True)\n"""
WAIT = "sys.stdin.read()\n"
SAY = "print({!r}, flush=True)\n"
KILL_ME = "os.kill(os.getpid(), signal.SIGKILL)\n"
ABORT = "os.abort()\n"

STAND_IN = """
import asyncio, sys
from neurogate.engines.settings import SimSettings
from neurogate.engines.sim.server import serve

flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
settings = SimSettings(slots=int(flags["--parallel"]), prefill_tps=0, decode_tps=20)
asyncio.run(serve(settings, host=flags["--host"], port=int(flags["--port"]), model=flags["--alias"]))
"""


class Guest:
    """A tenant that is healthy at once, or never."""

    def __init__(self, *, healthy: bool = True) -> None:
        self.moved = asyncio.Event()
        self._healthy = asyncio.Event()
        if healthy:
            self._healthy.set()

    async def move_in(self, url: str) -> None:
        await self._healthy.wait()
        self.moved.set()

    async def move_out(self) -> None:
        self.moved.clear()


class DeathLog(LogList):
    """A log that wakes whoever waits for a death."""

    def __init__(self) -> None:
        super().__init__()
        self.died = asyncio.Event()

    def warning(self, event: str, **fields: object) -> None:
        super().warning(event, **fields)
        if event == "engine died":
            self.died.set()


def supervisor(script: str, *scripts: str, guest: Guest, log: LogList, **settings: Any) -> Supervisor:
    """A supervisor whose processes run these scripts, the last of them from then on."""
    rest = [script, *scripts]

    def launch() -> Launch:
        now = rest.pop(0) if len(rest) > 1 else rest[0]
        return Launch((sys.executable, "-I", "-S", "-c", f"import os, signal, sys\n{now}"), b"{}\n", "")

    return Supervisor(launch, guest, log=log, **settings)


async def supervised(
    test: Callable[[Supervisor, Guest, DeathLog], Awaitable[None]], *scripts: str, healthy: bool = True, **settings: Any
) -> None:
    guest, log = Guest(healthy=healthy), DeathLog()
    made = supervisor(*scripts, guest=guest, log=log, **settings)
    async with leaving_nothing(), asyncio.TaskGroup() as tasks:
        tasks.create_task(made.run())
        async with asyncio.timeout(30):
            await test(made, guest, log)
        await made.stop()


def test_a_stopped_process_is_killed_and_followed_by_another() -> None:
    """One that hangs hears no SIGTERM."""

    async def test(made: Supervisor, guest: Guest, log: DeathLog) -> None:
        await guest.moved.wait()
        first = made.pid or 0
        os.kill(first, signal.SIGSTOP)
        assert made.kill("it generates nothing")
        assert not made.kill("once is enough")
        await log.died.wait()
        assert made.detail == "the engine is restarted in 0.5 s because it hung: it generates nothing"
        await guest.moved.wait()
        assert made.pid != first
        assert made.deaths == {"hung": 1}
        assert not alive(first)

    asyncio.run(supervised(test, ANNOUNCE + WAIT))


def test_a_process_that_never_gets_ready_is_given_up() -> None:
    async def test(made: Supervisor, guest: Guest, log: DeathLog) -> None:
        await log.died.wait()
        assert "it was not ready within 0.2 s (NEUROGATE_ENGINE_LOAD_TIMEOUT_S)" in made.detail
        assert made.deaths == {"loading": 1}

    asyncio.run(supervised(test, ANNOUNCE + WAIT, healthy=False, load_timeout_s=0.2))


def test_a_crash_is_told_with_the_words_before_the_backtrace() -> None:
    why = "ggml.c:1234: GGML_ASSERT(tensor != NULL) failed"
    script = (
        ANNOUNCE + SAY.format(why) + "".join(SAY.format(f"#{line} 0x0000 in main ()") for line in range(50)) + ABORT
    )

    async def test(made: Supervisor, guest: Guest, log: DeathLog) -> None:
        await log.died.wait()
        assert made.detail == "the engine is restarted in 0.5 s because it was killed by SIGABRT", (
            "clients are told that"
        )
        assert made.loading
        assert why in made.last_words
        assert "\n" not in made.last_words
        assert len(made.last_words) < 600
        assert made.deaths == {"signal": 1}
        await guest.moved.wait()
        assert (made.detail, made.last_words, made.loading) == ("", "", False)

    asyncio.run(supervised(test, script, ANNOUNCE + WAIT))


def test_crash_loops_back_off() -> None:
    async def test(made: Supervisor, guest: Guest, log: DeathLog) -> None:
        for _ in range(3):
            log.died.clear()
            await log.died.wait()
        delays = [fields["restart_in_s"] for _, event, fields in log.lines if event == "engine died"]
        assert delays == [0.5, 1.0, 2.0]

    asyncio.run(supervised(test, ANNOUNCE + "import time; time.sleep(0.1)\n" + ABORT))


@pytest.mark.parametrize(
    ("said", "counted", "out_of_memory"),
    [
        ("", 1, True),
        ("", 0, False),
        ("terminate called after throwing an instance of 'std::bad_alloc'", 0, True),
        ("0.01 E ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 9", 0, True),
        ("ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9 MiB: cudaMalloc failed: out of memory", 0, True),
        ("error: something else", 0, False),
    ],
)  # fmt: skip
def test_memory_that_ran_out_is_told_from_other_deaths(said: str, counted: int, out_of_memory: bool) -> None:
    async def test(made: Supervisor, guest: Guest, log: DeathLog) -> None:
        await log.died.wait()
        assert ("lower NEUROGATE_ENGINE_CONTEXT or NEUROGATE_ENGINE_SLOTS" in made.detail) is out_of_memory
        assert made.deaths == {"out of memory" if out_of_memory else "signal": 1}

    counts = [5, 5 + counted]
    kills = lambda: counts.pop(0) if counts else 0  # noqa: E731
    asyncio.run(supervised(test, ANNOUNCE + SAY.format(said) + KILL_ME, WAIT, oom_kills=kills))


def test_what_kills_a_loading_engine_is_put_right_if_it_can_be() -> None:
    """Then it is no failed start, and not fatal either."""

    async def mend() -> str:
        return "the model file /models/m.gguf was broken; it has been fetched anew"

    async def test(made: Supervisor, guest: Guest, log: DeathLog) -> None:
        await log.died.wait()
        assert made.detail == "the engine is restarted in 0.1 s because what it needs was broken and has been put right"
        assert "/models/m.gguf" in made.last_words
        await guest.moved.wait()
        assert made.restarts == 1
        [why] = [fields["why"] for _, event, fields in log.lines if event == "engine died"]
        assert why == "the model file /models/m.gguf was broken; it has been fetched anew"

    asyncio.run(supervised(test, "sys.exit(65)", ANNOUNCE + WAIT, mend=mend))


def test_what_kills_a_loading_engine_and_cannot_be_put_right_is_fatal() -> None:
    async def mend() -> str:
        raise EngineFatalError("the model file is broken: delete it")

    async def go() -> None:
        async with leaving_nothing():
            with pytest.raises(EngineFatalError, match="delete it"):
                await supervisor("os.abort()", guest=Guest(), log=LogList(), mend=mend).run()

    asyncio.run(go())


def test_the_kernels_count_is_read_where_it_is_kept(tmp_path: Path) -> None:
    def write(path: str, text: str) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="ascii")

    assert oom.kills(tmp_path) == 0
    write("proc/vmstat", "pgfault 3\noom_kill 1\n")
    assert oom.kills(tmp_path) == 1
    write("proc/self/cgroup", "12:cpu:/a\n5:memory:/box/one\n")
    write("sys/fs/cgroup/memory/memory.oom_control", "under_oom 0\noom_kill 2\n")
    assert oom.kills(tmp_path) == 2, "a container sees its own group as the root"
    write("sys/fs/cgroup/memory/box/one/memory.oom_control", "under_oom 0\noom_kill 3\n")
    assert oom.kills(tmp_path) == 3
    write("proc/self/cgroup", "0::/box/two\n")
    write("sys/fs/cgroup/box/two/memory.events", "oom 9\noom_kill 4\noom_group_kill 8\n")
    assert oom.kills(tmp_path) == 4
    assert oom.kills() >= 0


# --- the managed engine ---------------------------------------------------------------------------------------------


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


def managed(path: Path, *, mend: Any = lambda _path, _stop: "", **fields: Any) -> ManagedLlamaCppEngine:
    settings = EngineSettings(**{"slots": 2, "context_length": 1024, "threads": 1, **fields})
    return ManagedLlamaCppEngine(settings, path, "smollm2", log=LogList(), mend=mend)


def test_a_child_that_answers_no_health_check_is_killed_and_comes_back(binary: str, model: Path) -> None:
    async def go() -> None:
        async with leaving_nothing(), running(managed(model, llama_server_bin=binary, hang_s=0.3)) as engine:
            await until_ready(engine)
            assert await engine.heal("it generates nothing")
            gone = await until(engine, lambda seen: dict(seen.deaths) == {"hung": 1})
            assert "because it hung: it generates nothing" in gone.detail
            assert gone.loading
            await until_ready(engine)
            os.kill(engine.pid or 0, signal.SIGSTOP)
            async with aclosing(engine.generate(Prompt("Hi", max_tokens=100))) as events:
                asking = asyncio.ensure_future(anext(events))
                gone = await until(engine, lambda seen: "hung" in seen.detail)
                with pytest.raises((EngineBrokenError, EngineUnavailableError)):
                    await asking
            assert "it answered no health check for 0.3 s (NEUROGATE_ENGINE_HANG_S)" in gone.detail
            back = await until_ready(engine)
            assert dict(back.deaths) == {"hung": 2}

    asyncio.run(go())


def test_a_model_that_broke_later_is_named(model: Path, tmp_path: Path) -> None:
    """The engine dies in loading; its file is looked at then."""
    failing = tmp_path / "llama-server"
    failing.write_text(f"#!/bin/sh\nprintf x > {model}\nexit 1\n", encoding="utf-8")
    failing.chmod(0o755)

    async def go() -> None:
        async with leaving_nothing():
            engine = managed(model, llama_server_bin=str(failing))
            await engine.start()
            with pytest.raises(EngineFatalError, match=r"model\.gguf cannot be used: it is no GGUF file"):
                await engine.run()

    asyncio.run(go())


def test_a_model_that_cannot_be_mended_is_fatal(model: Path, tmp_path: Path) -> None:
    failing = tmp_path / "llama-server"
    failing.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    failing.chmod(0o755)

    def mend(path: Path, stop: object) -> str:
        raise NeuroGateError(f"{path.name} is broken, and there is no network")

    async def go() -> None:
        async with leaving_nothing():
            engine = managed(model, llama_server_bin=str(failing), mend=mend)
            await engine.start()
            with pytest.raises(EngineFatalError, match="there is no network"):
                await engine.run()

    asyncio.run(go())


@pytest.mark.model
def test_the_real_engine_is_healed_under_load(smollm2_path: Path) -> None:
    """Stopped in the middle of streams, it is out within seconds, its requests end, and another one takes its place."""

    async def go() -> None:
        async with leaving_nothing(), running(managed(smollm2_path, hang_s=1.0)) as engine:
            watched = Watched(engine, canary_interval_s=1)
            async with asyncio.TaskGroup() as tasks:
                background = [tasks.create_task(watched.worker.observe(0.5)), tasks.create_task(watched.worker.watch())]
                await watched.until(lambda: watched.worker.ready, within_s=60)
                await watched.until(lambda: watched.canaries("alive") > 0, within_s=20)
                body = {"messages": [{"role": "user", "content": "Tell me a story."}], "stream": True}
                outlets = [FakeOutlet() for _ in range(3)]
                asked = [
                    tasks.create_task(
                        watched.worker.answer(incoming({**body, "max_tokens": 900, "ignore_eos": True}), to)
                    )
                    for to in outlets
                ]
                await watched.until(lambda: sum(bool(outlet.chunks) for outlet in outlets) >= 2, within_s=30)
                stopped = engine.pid or 0
                os.kill(stopped, signal.SIGSTOP)
                await watched.until(lambda: not watched.worker.ready, within_s=15)
                ends = await asyncio.gather(*asked)
                assert {end.code for end in ends} <= {EndCode.BROKEN, EndCode.UNAVAILABLE}
                await watched.until(lambda: watched.worker.ready, within_s=60)
                assert engine.pid != stopped
                assert watched.value("engine_deaths_total", cause="hung") == 1
                end = await watched.worker.answer(incoming({**body, "max_tokens": 3}), outlet := FakeOutlet())
                assert (end.code, end.http_status) == (EndCode.ANSWERED, 200)
                assert outlet.body.endswith(b"data: [DONE]\n\n")
                for task in background:
                    task.cancel()

    asyncio.run(go())


@pytest.mark.model
def test_the_real_engine_tells_its_progress_and_its_last_words(smollm2_path: Path) -> None:
    async def go() -> None:
        async with leaving_nothing(), running(managed(smollm2_path)) as engine:
            before = (await until_ready(engine)).work_done
            assert before is not None
            async with engine.forward(chat_call(max_tokens=3, temperature=0)) as reply:
                await read(reply.body)
            assert ((await engine.observe()).work_done or 0) > before
            os.kill(engine.pid or 0, signal.SIGABRT)
            gone = await until(engine, lambda seen: "SIGABRT" in seen.detail)
            assert dict(gone.deaths) == {"signal": 1}

    asyncio.run(go())

"""Engine processes: started, heard, restarted, ended. The processes are real, and stand in for the engine."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from engine_support import LogList, leaving_nothing, until_dead
from neurogate.engines.engine import EngineFatalError
from neurogate.engines.llamacpp.contract import (
    EXIT_ENGINE_MISSING,
    EXIT_MODEL_UNUSABLE,
    EXIT_ORPHANED,
    EXIT_PORT_TAKEN,
    ChildConfig,
    announced_url,
    write_config,
)
from neurogate.engines.llamacpp.process import LINE_CHARS_MAX, ChildProcess, Launch, LineSplitter
from neurogate.engines.llamacpp.supervisor import Supervisor

ANNOUNCE = """print('{"listening":"http://127.0.0.1:1"}', flush=True)\n"""
WAIT = "sys.stdin.read()\n"
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"


def launch(script: str, *, config: bytes = b"{}\n", url: str = "") -> Launch:
    return Launch((sys.executable, "-I", "-S", "-c", f"import os, signal, sys\n{script}"), config, url)


async def lived(script: str, *, log: LogList | None = None, config: bytes = b"{}\n") -> tuple[int, str]:
    """The exit status and the last words of a process that ends by itself."""
    async with leaving_nothing():
        child = await ChildProcess.spawn(launch(script, config=config), log=log or LogList())
        return await child.run(), child.last_words()


# --- one life -------------------------------------------------------------------------------------------------------


def test_a_process_is_told_its_config_and_keeps_the_pipe() -> None:
    script = "line = sys.stdin.readline(); sys.exit(7 if line == '{\"a\":1}\\n' and not sys.stdin.isatty() else 1)"

    assert asyncio.run(lived(script, config=b'{"a":1}\n')) == (7, "")


def test_a_process_that_dies_before_it_reads_its_config_just_died() -> None:
    assert asyncio.run(lived("os._exit(3)", config=b"x" * (4 << 20)))[0] == 3


def test_a_signal_is_a_negative_status() -> None:
    assert asyncio.run(lived("os.kill(os.getpid(), signal.SIGKILL)"))[0] == -signal.SIGKILL


def test_what_a_process_says_is_logged_and_its_errors_and_its_end_are_its_last_words() -> None:
    log = LogList()
    script = """
print("0.00.001 I srv init: loading", flush=True)
sys.stdout.close()
print("0.00.002 E load: tensor is missing", file=sys.stderr)
print("0.00.003 I cleaning up", file=sys.stderr)
print("no end", end="", file=sys.stderr)
sys.exit(65)
"""
    status, last_words = asyncio.run(lived(script, log=log))

    assert (status, last_words) == (65, "0.00.002 E load: tensor is missing; no end")
    assert log.said("error") == ["0.00.002 E load: tensor is missing"]
    assert set(log.said("debug")) == {"0.00.001 I srv init: loading", "0.00.003 I cleaning up", "no end"}


def test_without_errors_the_last_line_is_the_last_word() -> None:
    assert asyncio.run(lived("print('a'); print('b')"))[1] == "b"


def test_endless_output_without_a_line_break_stays_bounded() -> None:
    log = LogList()

    asyncio.run(lived("sys.stdout.write('x' * 10_000_000)", log=log))

    assert [len(str(line)) for line in log.said("debug")] == [LINE_CHARS_MAX]


def test_an_announcement_tells_the_url_and_is_not_logged() -> None:
    async def go() -> None:
        log = LogList()
        async with leaving_nothing(), asyncio.TaskGroup() as tasks:
            child = await ChildProcess.spawn(launch(ANNOUNCE + WAIT), log=log)
            life = tasks.create_task(child.run())
            assert await child.url() == "http://127.0.0.1:1"
            assert "running" in repr(child)
            await child.end()
            await child.end()
            assert await life == -signal.SIGTERM
            assert "ended" in repr(child)
        assert log.lines == []

    asyncio.run(go())


def test_a_known_url_needs_no_announcement() -> None:
    async def go() -> None:
        child = await ChildProcess.spawn(launch("", url="http://127.0.0.1:9"), log=LogList())
        assert await child.url() == "http://127.0.0.1:9"
        await child.run()

    asyncio.run(go())


@pytest.mark.parametrize("line", ["", "text", '{"listening"', '{"listening": 5}', '{"other":"http://x"}'])
def test_other_lines_announce_nothing(line: str) -> None:
    assert announced_url(line) == ""


def test_cancelled_a_process_is_asked_to_end() -> None:
    async def go() -> None:
        async with leaving_nothing(), asyncio.TaskGroup() as tasks:
            child = await ChildProcess.spawn(launch(ANNOUNCE + WAIT), log=LogList())
            life = tasks.create_task(child.run())
            await child.url()
            life.cancel()
        with pytest.raises(ProcessLookupError):
            os.kill(child.pid, 0)

    asyncio.run(go())


def test_a_process_that_does_not_listen_to_sigterm_is_killed_after_the_grace() -> None:
    async def go() -> None:
        log = LogList()
        async with leaving_nothing(), asyncio.TaskGroup() as tasks:
            child = await ChildProcess.spawn(launch(DEAF + ANNOUNCE + WAIT), log=log, grace_s=0.1)
            life = tasks.create_task(child.run())
            await child.url()
            await child.end()
            assert await life == -signal.SIGKILL
        assert log.events() == ["engine did not end when asked, killing it"]

    asyncio.run(go())


def test_a_second_cancellation_kills_at_once() -> None:
    async def go() -> None:
        async with leaving_nothing(), asyncio.TaskGroup() as tasks:
            child = await ChildProcess.spawn(launch(DEAF + ANNOUNCE + WAIT), log=LogList(), grace_s=60)
            life = tasks.create_task(child.run())
            await child.url()
            life.cancel()
            await asyncio.sleep(0)
            life.cancel()

    async def bounded() -> None:
        async with asyncio.timeout(10):
            await go()

    asyncio.run(bounded())


@pytest.mark.parametrize("then", ["", 'print(\'{"listening":"x"}\', flush=True); grandchild.wait()'])
def test_what_a_process_started_ends_with_it(then: str) -> None:
    """A configured engine may be a script around the real one."""
    script = f"""
import subprocess
grandchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
print(grandchild.pid, flush=True)
{then}
"""

    async def go() -> None:
        log = LogList()
        async with asyncio.timeout(20), leaving_nothing(), asyncio.TaskGroup() as tasks:
            child = await ChildProcess.spawn(launch(script), log=log)
            life = tasks.create_task(child.run())
            if then:
                await child.url()
                await child.end()
            await life
        await until_dead(int(str(log.said("debug")[0])))

    asyncio.run(go())


def test_a_process_that_left_the_session_does_not_hold_up_the_end() -> None:
    script = """
import subprocess
print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True).pid)
"""

    async def go() -> None:
        log = LogList()
        async with asyncio.timeout(20):
            child = await ChildProcess.spawn(launch(script), log=log)
            assert await child.run() == 0
        assert log.events() == ["engine left a process that holds its output"]
        os.kill(int(str(log.said("debug")[0])), signal.SIGKILL)

    asyncio.run(go())


def test_an_interrupt_at_the_terminal_does_not_reach_the_process() -> None:
    log = LogList()

    asyncio.run(lived("print(os.getsid(0) == os.getpid())", log=log))

    assert log.said("debug") == ["True"]


def test_a_program_that_is_not_there_is_fatal() -> None:
    with pytest.raises(EngineFatalError, match="/nowhere/engine"):
        asyncio.run(ChildProcess.spawn(Launch(("/nowhere/engine",), b""), log=LogList()))


def test_lines_are_split_wherever_the_pieces_end() -> None:
    lines = LineSplitter()

    assert lines.feed(b"a\nb") == ["a"]
    assert lines.feed(b"c\r\n\n\xff") == ["bc", ""]
    assert lines.end() == ["�"]
    assert lines.end() == []


# --- many lives -----------------------------------------------------------------------------------------------------


class Guest:
    """A tenant that notes what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.moved = asyncio.Event()
        self.healthy = asyncio.Event()
        self.healthy.set()

    async def move_in(self, url: str) -> None:
        self.notes.append(f"in {url}")
        await self.healthy.wait()
        self.moved.set()

    async def move_out(self) -> None:
        self.notes.append("out")


def supervisor(*scripts: str, guest: Guest, log: LogList | None = None) -> Supervisor:
    """A supervisor whose processes run these scripts, the last of them from then on."""
    rest = list(scripts)
    return Supervisor(lambda: launch(rest.pop(0) if len(rest) > 1 else rest[0]), guest, log=log or LogList())


def test_a_process_that_dies_is_followed_by_another() -> None:
    async def go() -> None:
        guest, log = Guest(), LogList()
        watched = supervisor(ANNOUNCE + WAIT, guest=guest, log=log)
        async with leaving_nothing(), asyncio.TaskGroup() as tasks:
            tasks.create_task(watched.run())
            await guest.moved.wait()
            guest.moved.clear()
            first = watched.pid
            assert first is not None
            os.kill(first, signal.SIGKILL)
            await guest.moved.wait()
            assert watched.pid != first
            assert watched.restarts == 1
            assert "1 restarts" in repr(watched)
            await watched.stop()
            await watched.stop()
        assert guest.notes == ["in http://127.0.0.1:1", "out"] * 2
        assert (watched.pid, watched.detail) == (None, "the engine is stopped")
        assert log.events() == ["engine ready", "engine died", "engine ready"]

    asyncio.run(go())


def test_between_two_lives_the_reason_and_the_delay_are_told() -> None:
    async def go() -> None:
        guest = Guest()
        waiting = asyncio.Event()

        class Watch(LogList):
            def warning(self, event: str, **fields: object) -> None:
                waiting.set()

        watched = supervisor(ANNOUNCE + WAIT, guest=guest, log=Watch())
        async with leaving_nothing(), asyncio.TaskGroup() as tasks:
            tasks.create_task(watched.run())
            await guest.moved.wait()
            assert watched.detail == ""
            os.kill(watched.pid or 0, signal.SIGTERM)
            await waiting.wait()
            assert watched.detail == "the engine is restarted in 0.5 s because it was killed by SIGTERM"
            await watched.stop()

    asyncio.run(go())


def test_an_engine_that_can_never_start_is_fatal() -> None:
    async def go() -> None:
        guest = Guest()
        async with leaving_nothing():
            with pytest.raises(EngineFatalError, match="no such model"):
                await supervisor("print('no such model'); sys.exit(65)", guest=guest).run()
        assert guest.notes == ["out"]

    asyncio.run(go())


def test_a_start_that_fails_twice_may_work_the_third_time() -> None:
    async def go() -> None:
        guest = Guest()
        watched = supervisor("sys.exit(75)", "sys.exit(75)", ANNOUNCE + WAIT, guest=guest)
        async with leaving_nothing(), asyncio.TaskGroup() as tasks:
            tasks.create_task(watched.run())
            await guest.moved.wait()
            assert watched.restarts == 2
            await watched.stop()

    asyncio.run(go())


def test_a_process_that_dies_while_its_tenant_waits_for_health_never_was_ready() -> None:
    async def go() -> None:
        guest = Guest()
        guest.healthy.clear()
        async with leaving_nothing():
            with pytest.raises(EngineFatalError, match="boom"):
                await supervisor(ANNOUNCE + "print('boom'); sys.exit(65)", guest=guest).run()
        assert not guest.moved.is_set()

    asyncio.run(go())


@pytest.mark.parametrize("cancel", [True, False])
def test_ended_while_it_loads_no_process_is_left(cancel: bool) -> None:
    async def go() -> None:
        guest = Guest()
        watched = supervisor(WAIT, guest=guest)
        async with leaving_nothing(), asyncio.TaskGroup() as tasks:
            run = tasks.create_task(watched.run())
            while watched.pid is None:
                await asyncio.sleep(0)
            if cancel:
                run.cancel()
            else:
                await watched.stop()
                assert run.done()

    asyncio.run(go())


def test_stopped_while_the_process_is_being_created_it_ends() -> None:
    async def go() -> None:
        watched = supervisor(WAIT, guest=Guest())
        async with asyncio.timeout(20), leaving_nothing(), asyncio.TaskGroup() as tasks:
            tasks.create_task(watched.run())
            await asyncio.sleep(0)
            await watched.stop()

    asyncio.run(go())


def test_stopped_before_it_began_it_never_begins() -> None:
    async def go() -> None:
        guest = Guest()
        watched = supervisor(WAIT, guest=guest)
        await watched.stop()
        await watched.run()
        assert guest.notes == []

    asyncio.run(go())


# --- the process's side ---------------------------------------------------------------------------------------------


def config(**changes: object) -> ChildConfig:
    fields = {
        "parent_pid": os.getpid(),
        "model_path": "/models/x.gguf",
        "model_name": "x",
        "port": 0,
        "slots": 2,
        "context_length": 512,
        "threads": 3,
        "gpu_layers": -1,
        "api_key": "key-1",
    }
    return ChildConfig(**{**fields, **changes})  # type: ignore[arg-type]


def ran(module: str, told: bytes, *, path: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """The module run as a process that is told this and then let go of."""
    environment = {**os.environ, "PYTHONPATH": str(path or "")}
    command = [sys.executable, "-P", "-m", f"neurogate.engines.llamacpp.{module}"]
    return subprocess.run(command, input=told, capture_output=True, env=environment, timeout=60, check=False)


@pytest.mark.parametrize("module", ["child", "launch"])
@pytest.mark.parametrize("told", [b"", write_config(config(parent_pid=1))])
def test_a_process_whose_worker_is_gone_ends(module: str, told: bytes) -> None:
    assert ran(module, told).returncode == EXIT_ORPHANED


FAKE_LIBRARY = """
import json
from types import SimpleNamespace

class CommonParams(SimpleNamespace):
    def __init__(self):
        super().__init__(model=SimpleNamespace(), cpuparams=SimpleNamespace(), cpuparams_batch=SimpleNamespace())

class ggml_backend_dev_type:
    GGML_BACKEND_DEVICE_TYPE_CPU = "CPU"

class ggml_type:
    GGML_TYPE_BF16 = "BF16"

def get_device_info():
    return [{"type": "CPU"}]

class Server:
    listening_address = "http://127.0.0.1:5"

    def __init__(self, params):
        print(json.dumps(vars(params), default=lambda value: sorted(value) if isinstance(value, set) else vars(value)))
"""


def with_library(directory: Path, code: str) -> Path:
    (directory / "xllamacpp.py").write_text(code, encoding="utf-8")
    return directory


def test_the_bundled_engine_is_configured_and_announced(tmp_path: Path) -> None:
    result = ran("child", write_config(config()), path=with_library(tmp_path, FAKE_LIBRARY))

    assert result.returncode == 0
    params, announcement = result.stdout.decode().splitlines()
    assert announced_url(announcement) == "http://127.0.0.1:5"
    assert json.loads(params) == {
        "model": {"path": "/models/x.gguf"},
        "model_alias": ["x"],
        "hostnames": ["127.0.0.1"],
        "port": 0,
        "api_keys": ["key-1"],
        "n_parallel": 2,
        "n_ctx": 1024,
        "cpuparams": {"n_threads": 3},
        "cpuparams_batch": {"n_threads": 3},
        "n_gpu_layers": -1,
        "n_ubatch": 512,
        "n_batch": 2048,
        "cache_type_v": "BF16",
        "cache_ram_mib": 1024,
        "endpoint_metrics": True,
        "endpoint_slots": True,
        "ui": False,
    }


@pytest.mark.parametrize(
    ("library", "reproducible"),
    [(FAKE_LIBRARY, False), (FAKE_LIBRARY.replace('[{"type": "CPU"}]', '[{"type": "CPU"}, {"type": "GPU"}]'), True)],
)
def test_the_arithmetic_is_left_as_it_is_on_a_gpu_and_where_that_is_wanted(
    tmp_path: Path, library: str, reproducible: bool
) -> None:
    result = ran("child", write_config(config(reproducible=reproducible)), path=with_library(tmp_path, library))
    assert "cache_type_v" not in json.loads(result.stdout.decode().splitlines()[0])


def test_the_bundled_engine_is_told_of_embeddings_and_images(tmp_path: Path) -> None:
    library = (
        FAKE_LIBRARY
        + """
class llama_pooling_type:
    def __class_getitem__(cls, name):
        return name
"""
    )
    library = library.replace("cpuparams=SimpleNamespace(),", "cpuparams=SimpleNamespace(), mmproj=SimpleNamespace(),")
    told = write_config(config(pooling="rank", ubatch=4096, mmproj="/models/eyes.gguf"))
    result = ran("child", told, path=with_library(tmp_path, library))

    params = json.loads(result.stdout.decode().splitlines()[0])
    assert (params["embedding"], params["pooling_type"]) == (True, "LLAMA_POOLING_TYPE_RANK")
    assert (params["n_ubatch"], params["n_batch"], params["mmproj"]) == (4096, 4096, {"path": "/models/eyes.gguf"})


def test_without_the_library_the_process_says_so(tmp_path: Path) -> None:
    result = ran("child", write_config(config()), path=with_library(tmp_path, "raise ImportError('no libgomp')"))

    assert result.returncode == EXIT_ENGINE_MISSING
    assert b"no libgomp" in result.stderr


FAILING_LIBRARY = FAKE_LIBRARY + "        raise RuntimeError('Failed to init server')\n"


def test_a_model_that_cannot_be_loaded_has_a_status_of_its_own(tmp_path: Path) -> None:
    result = ran("child", write_config(config()), path=with_library(tmp_path, FAILING_LIBRARY))

    assert result.returncode == EXIT_MODEL_UNUSABLE
    assert b"/models/x.gguf" in result.stderr


def test_a_taken_port_has_a_status_of_its_own(tmp_path: Path) -> None:
    library = with_library(tmp_path, FAILING_LIBRARY)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = ran("child", write_config(config(port=port)), path=library)
        assert result.returncode == EXIT_PORT_TAKEN
        assert f"port {port} is taken".encode() in result.stderr

    assert ran("child", write_config(config(port=port)), path=library).returncode == EXIT_MODEL_UNUSABLE


def program(path: Path, code: str) -> str:
    path.write_text(f"#!{sys.executable}\n{code}", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(("gpu_layers", "flags"), [(-1, []), (0, ["--n-gpu-layers", "0"])])
def test_a_configured_binary_gets_its_flags_and_its_key_where_nobody_else_sees_it(
    tmp_path: Path, gpu_layers: int, flags: list[str]
) -> None:
    binary = program(
        tmp_path / "llama-server", "import json, os, sys; print(json.dumps([sys.argv, os.environ['LLAMA_API_KEY']]))"
    )

    result = ran("launch", write_config(config(binary=binary, port=8099, gpu_layers=gpu_layers)))

    arguments, key = json.loads(result.stdout)
    assert arguments == [
        binary,
        *("--model", "/models/x.gguf", "--alias", "x", "--host", "127.0.0.1", "--port", "8099"),
        *("--parallel", "2", "--ctx-size", "1024", "--threads", "3", *flags, "--metrics", "--slots"),
    ]
    assert key == "key-1"


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({"pooling": "mean"}, ["--pooling", "mean", "--ubatch-size", "512", "--embeddings"]),
        ({"pooling": "rank", "ubatch": 64}, ["--pooling", "rank", "--ubatch-size", "64", "--reranking"]),
        ({"mmproj": "/models/eyes.gguf"}, ["--mmproj", "/models/eyes.gguf"]),
        ({"chat_template": "/models/chat.jinja"}, ["--chat-template-file", "/models/chat.jinja"]),
    ],
)
def test_a_configured_binary_is_told_of_embeddings_and_images(
    tmp_path: Path, changes: dict[str, object], flags: list[str]
) -> None:
    binary = program(tmp_path / "llama-server", "import json, sys; print(json.dumps(sys.argv))")

    arguments = json.loads(ran("launch", write_config(config(binary=binary, port=8099, **changes))).stdout)

    assert arguments[-len(flags) - 2 :] == [*flags, "--metrics", "--slots"]


def test_a_binary_that_cannot_be_run_is_named() -> None:
    result = ran("launch", write_config(config(binary="/nowhere/llama-server")))

    assert result.returncode == EXIT_ENGINE_MISSING
    assert b"/nowhere/llama-server cannot be run" in result.stderr

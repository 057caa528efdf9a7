"""Running a service as a process: signals, exit codes, last words."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

PRELUDE = """
import asyncio, sys
from neurogate.errors import ConfigError
from neurogate.process import run

def tell(word):
    print(word, flush=True)
"""

SERVICE = """
async def service(stopping):
    tell("ready")
    await stopping.wait()
    tell("stopping")
    {then}
    tell("stopped")

sys.exit(run(service))
"""


@contextmanager
def process(body: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process that is gone afterwards."""
    script = PRELUDE + textwrap.dedent(body)
    popen = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with popen:
        try:
            yield popen
        finally:
            popen.kill()


def ended(popen: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, what it told, and what it said on standard error."""
    out, err = popen.communicate(timeout=30)
    return popen.returncode, out, err


def read_line(popen: subprocess.Popen[str]) -> str:
    assert popen.stdout is not None
    return popen.stdout.readline().strip()


def test_a_service_that_ends_is_a_success() -> None:
    with process("""
        async def service(stopping):
            tell(type(asyncio.get_running_loop()).__module__)

        sys.exit(run(service))
    """) as popen:
        assert ended(popen) == (0, "uvloop\n", "")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_the_service_to_stop(signum: signal.Signals) -> None:
    with process(SERVICE.format(then="await asyncio.sleep(0)")) as popen:
        assert read_line(popen) == "ready"
        popen.send_signal(signum)
        assert ended(popen) == (0, "stopping\nstopped\n", "")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(signum: signal.Signals) -> None:
    with process(SERVICE.format(then="await asyncio.Event().wait()")) as popen:
        assert read_line(popen) == "ready"
        popen.send_signal(signal.SIGTERM)
        assert read_line(popen) == "stopping"
        popen.send_signal(signum)
        code, out, err = ended(popen)
    assert (code, err) == (1, "")
    assert "stopped" not in out
    assert "second signal: stopping at once" in out
    assert signum.name in out


def test_a_process_that_does_not_end_at_once_is_ended() -> None:
    then = """
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            tell("no")
    """
    with process(SERVICE.format(then=textwrap.indent(textwrap.dedent(then), "    "))) as popen:
        assert read_line(popen) == "ready"
        for told in ("stopping", ""):
            popen.send_signal(signal.SIGTERM)
            assert told in read_line(popen)
        assert ended(popen)[0] == 1


@pytest.mark.parametrize(("signum", "told"), [(signal.SIGTERM, "True"), (signal.SIGINT, "False")])
def test_a_service_is_told_whether_it_was_terminated(signum: signal.Signals, told: str) -> None:
    with process(
        SERVICE.format(then="from neurogate.process import was_terminated; tell(was_terminated(stopping))")
    ) as popen:
        assert read_line(popen) == "ready"
        popen.send_signal(signum)
        assert ended(popen) == (0, f"stopping\n{told}\nstopped\n", "")


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        ('ConfigError("HTTP_PORT: must be a number")', 78, "neurogate: HTTP_PORT: must be a number\n"),
        ('OSError("cannot listen on 127.0.0.1:1")', 1, "neurogate: cannot listen on 127.0.0.1:1\n"),
        (
            'ExceptionGroup("g", [OSError("first"), ExceptionGroup("h", [ConfigError("second")])])',
            78,
            "neurogate: second\nneurogate: first\n",
        ),
    ],
)
def test_an_error_that_its_owner_can_mend_is_told_in_a_line(raised: str, code: int, told: str) -> None:
    with process(f"""
        async def service(stopping):
            raise {raised}

        sys.exit(run(service))
    """) as popen:
        assert ended(popen) == (code, "", told)


def test_an_error_in_a_task_of_the_service_is_told_too() -> None:
    with process("""
        async def fail():
            raise ConfigError("MODEL: no such file")

        async def service(stopping):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(fail())
                await stopping.wait()

        sys.exit(run(service))
    """) as popen:
        assert ended(popen) == (78, "", "neurogate: MODEL: no such file\n")


def test_a_bug_is_a_traceback() -> None:
    with process("""
        async def service(stopping):
            raise ZeroDivisionError("a bug")

        sys.exit(run(service))
    """) as popen:
        code, out, err = ended(popen)
    assert (code, out) == (1, "")
    assert "Traceback" in err
    assert "ZeroDivisionError: a bug" in err


def test_start_up_garbage_is_never_looked_at_again() -> None:
    """The hot path makes no cycles, so collections are rare and small."""
    with process("""
        import gc

        async def service(stopping):
            tell((gc.get_freeze_count() > 1000, gc.get_threshold()[0]))

        sys.exit(run(service))
    """) as popen:
        assert ended(popen) == (0, "(True, 10000)\n", "")

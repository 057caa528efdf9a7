"""Structured logging: one line a record, in text or JSON, on standard error."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def logged(script: str, *, level: str = "info", form: str = "json", close: bool = False) -> list[str]:
    """What a process with this logging writes, where every warning of Python is an error."""
    lines = [
        "import logging, sys, structlog",
        "from neurogate.telemetry.logging import configure",
        "sys.stderr.close()" if close else "",
        f"configure(level={level!r}, form={form!r}, process='gateway')",
        "log = structlog.get_logger('test')",
        script,
    ]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(lines)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return done.stderr.splitlines()


def test_json_is_for_machines() -> None:
    [line] = logged("log.info('worker listens', grpc_port=50051, path=__import__('pathlib').Path('/x'))")
    record = json.loads(line)
    assert record.pop("timestamp").endswith("Z")
    assert record == {
        "event": "worker listens",
        "grpc_port": 50051,
        "path": "/x",
        "level": "info",
        "process": "gateway",
    }


def test_text_is_for_people() -> None:
    [line] = logged("log.warning('slow client', request_id='r-1')", form="text")
    assert "[warning" in line
    assert "slow client" in line
    assert "request_id=r-1" in line
    assert "\x1b" not in line


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warn", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_only_what_is_severe_enough_is_logged(level: str, heard: list[str]) -> None:
    lines = logged("log.debug('a')\nlog.info('a')\nlog.warning('a')\nlog.error('a')", level=level)
    assert [json.loads(line)["level"] for line in lines] == heard


@pytest.mark.parametrize(("level", "heard"), [("debug", ["careful", "broken"]), ("error", ["broken"])])
def test_libraries_are_heard_from_warnings_up(level: str, heard: list[str]) -> None:
    script = "library = logging.getLogger('uvicorn.error')\n" + "\n".join(
        f"library.{how}({said!r})" for how, said in [("info", "hello"), ("warning", "careful"), ("error", "broken")]
    )
    records = [json.loads(line) for line in logged(script, level=level)]
    assert [record["event"] for record in records] == heard
    assert all(record["process"] == "gateway" for record in records)


def test_every_line_is_copied_whole_and_without_colours() -> None:
    """Ours, a library's, and one that standard error could not take."""
    script = (
        "copied = []\n"
        "configure(level='info', form='text', process='gateway', copy=copied.append)\n"
        "log.info('one')\nlog.debug('unheard')\nlogging.getLogger('grpc').error('two')\n"
        "sys.stderr.close()\nlog.info('three')\n"
        "assert [text.count('\\n') for text in copied] == [1, 1, 1], copied\n"
        "assert [word in text for word, text in zip(['one', 'two', 'three'], copied)] == [True] * 3, copied\n"
        "assert '\\x1b' not in ''.join(copied)"
    )
    assert len(logged(script)) == 2


FAILING = "try:\n    1 / 0\nexcept ZeroDivisionError:\n    {how}('request failed')"


@pytest.mark.parametrize("how", ["log.exception", "logging.getLogger('grpc').exception"])
def test_an_exception_is_one_json_record(how: str) -> None:
    [line] = logged(FAILING.format(how=how))
    record = json.loads(line)
    assert record["event"] == "request failed"
    assert record["exception"].startswith("Traceback")
    assert record["exception"].endswith("ZeroDivisionError: division by zero")


@pytest.mark.parametrize("how", ["log.exception", "logging.getLogger('grpc').exception"])
def test_an_exception_is_a_plain_traceback_in_text(how: str) -> None:
    lines = logged(FAILING.format(how=how), form="text")
    assert "request failed" in lines[0]
    assert lines[-1] == "ZeroDivisionError: division by zero"


def test_a_log_that_cannot_be_written_costs_lines_and_not_the_process() -> None:
    assert logged("log.info('a')\nlogging.getLogger('grpc').error('b')", close=True) == []

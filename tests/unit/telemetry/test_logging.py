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


# Whom lines are about


ABOUT = (
    "from neurogate.telemetry.concern import about\nwith about('r-7', '00-' + 'a' * 32 + '-' + 'b' * 16 + '-00'):\n    "
)


@pytest.mark.parametrize("how", ["log.info('x')", "logging.getLogger('aiohttp').error('x')"])
def test_a_line_names_the_request_that_it_is_about(how: str) -> None:
    [record] = [json.loads(line) for line in logged(ABOUT + how)]
    assert (record["request_id"], record["trace_id"]) == ("r-7", "a" * 32)


def test_what_a_line_says_itself_stays() -> None:
    [record] = [json.loads(line) for line in logged(ABOUT + "log.info('x', request_id='r-8')")]
    assert (record["request_id"], record["trace_id"]) == ("r-8", "a" * 32)


# Secrets


SECRET = "correct-horse-battery"

WAYS = {
    "the event": f"log.info('key {SECRET}')",
    "a field": f"log.info('x', said='{SECRET}')",
    "a nested field": f"log.info('x', said={{'headers': [('k', '{SECRET}')]}})",
    "an object": f"log.info('x', error=ValueError('{SECRET}'))",
    "an exception's text": f"try:\n    raise ValueError('{SECRET}')\nexcept ValueError:\n    log.exception('x')",
    "an exception's cause": (
        f"try:\n    try:\n        raise ValueError('{SECRET}')\n    except ValueError as error:\n"
        "        raise OSError('o') from error\nexcept OSError:\n    log.exception('x')"
    ),
    "a library's line": f"logging.getLogger('grpc').error('key %s', '{SECRET}')",
    "a library's exception": (
        f"try:\n    raise ValueError('{SECRET}')\nexcept ValueError:\n    logging.getLogger('x').exception('x')"
    ),
    "a warning": f"import warnings\nwarnings.simplefilter('default')\nwarnings.warn('key {SECRET}')",
    "a thread's death": (
        f"import threading\ndef die(): raise ValueError('{SECRET}')\n"
        "thread = threading.Thread(target=die, name='t')\nthread.start()\nthread.join()"
    ),
    "a bound field": f"log = log.bind(said='{SECRET}')\nlog.info('x')",
}


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("way", WAYS)
def test_a_secret_never_reaches_the_log(way: str, form: str) -> None:
    script = f"configure(level='info', form='{form}', process='gateway', secrets=['{SECRET}'])\n{WAYS[way]}"
    lines = logged(script, form=form)
    assert lines
    assert SECRET not in "\n".join(lines)
    assert "********" in "\n".join(lines)


def test_secrets_may_change_while_the_process_runs() -> None:
    script = (
        "from neurogate.telemetry.logging import know_secrets\n"
        f"log.info('{SECRET}')\nknow_secrets(['{SECRET}'])\nlog.info('{SECRET}')\n"
        f"logging.getLogger('x').error('{SECRET}')"
    )
    assert [json.loads(line)["event"] for line in logged(script)] == [SECRET, "********", "********"]


# What nobody caught


def test_an_exception_that_nobody_caught_is_a_line_like_any_other() -> None:
    script = (
        f"configure(level='info', form='json', process='worker', secrets=['{SECRET}'])\n"
        f"import atexit, os\natexit.register(lambda: os._exit(0))\nraise ValueError('{SECRET}')"
    )
    [line] = logged(script)
    record = json.loads(line)
    assert (record["event"], record["level"], record["process"]) == ("uncaught exception", "critical", "worker")
    assert record["exception"].endswith("ValueError: ********")


def test_an_interrupt_is_told_as_python_tells_it() -> None:
    script = "import atexit, os\natexit.register(lambda: os._exit(0))\nraise KeyboardInterrupt"
    assert logged(script)[-1] == "KeyboardInterrupt"

"""The access log: what a line says, and what no line can be made to say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurogate.errors import ConfigError
from neurogate.telemetry.access_log import AccessLog, Entry, clean, json_line, text_line

AT = 1_795_000_000.25
ENTRY = Entry(
    at=AT,
    key_id="alice",
    method="POST",
    path="/v1/chat/completions",
    status=200,
    request_id="req-42",
    model="tiny",
    prompt_tokens=3,
    completion_tokens=5,
    ttft_s=0.0101234,
    duration_s=1.5,
    worker="worker-0",
    attempts=2,
    bytes=512,
    outcome="completed",
    client="10.0.0.1",
    prompt="Why?\n",
)


def with_(**changes: Any) -> Entry:
    return msgspec.structs.replace(ENTRY, **changes)


def log(path: Path | str, **settings: Any) -> AccessLog:
    known = {"form": "json", "max_bytes": 0, "keep": 0, "max_waiting": 100, "on_loss": lambda _: None}
    return AccessLog(str(path), **(known | settings))


def test_text_is_four_columns() -> None:
    assert text_line(ENTRY) == b"2026-11-18T11:06:40.250Z | alice | POST /v1/chat/completions | 200\n"
    assert b" | - | GET /ping | 401\n" in text_line(Entry(at=0, method="GET", path="/ping", status=401))


def test_json_is_everything_but_the_prompt() -> None:
    assert json.loads(json_line(ENTRY)) == {
        "ts": "2026-11-18T11:06:40.250Z",
        "key_id": "alice",
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "request_id": "req-42",
        "trace_id": "",
        "model": "tiny",
        "prompt_tokens": 3,
        "completion_tokens": 5,
        "ttft_ms": 10.123,
        "duration_ms": 1500.0,
        "worker": "worker-0",
        "attempts": 2,
        "bytes": 512,
        "outcome": "completed",
        "client": "10.0.0.1",
    }
    nothing = json.loads(json_line(Entry(at=0, method="GET", path="/", status=404)))
    assert (nothing["key_id"], nothing["ttft_ms"], nothing["prompt_tokens"]) == ("-", None, None)


def test_a_prompt_is_logged_only_where_that_was_asked_for() -> None:
    assert b"Why" not in text_line(ENTRY) + json_line(ENTRY)
    assert json.loads(json_line(ENTRY, prompts=True))["prompt"] == r"Why?\n"
    assert len(json.loads(json_line(with_(prompt="x" * 10**6), prompts=True))["prompt"]) == 8192
    assert "prompt" not in json.loads(json_line(with_(prompt=""), prompts=True))


INJECTIONS = [
    "\n2026-11-18 | root | GET / | 200",
    "\r\x1b[2J",
    "a | b",
    "\x00",
    "\u2028",
    "\u202e",
    "\x9b31m",
    "\udc80",
]


@pytest.mark.parametrize("bad", INJECTIONS)
@pytest.mark.parametrize("field", ["path", "method", "key_id", "request_id", "model", "worker", "outcome", "client"])
def test_no_field_starts_a_line_steers_a_terminal_or_fakes_a_column(field: str, bad: str) -> None:
    entry = with_(**{field: f"/{bad}"})
    text, as_json = text_line(entry), json_line(entry)
    for line in (text, as_json):
        assert line.count(b"\n") == 1
        assert line.decode()[:-1].isprintable()
    assert text.count(b" | ") == 3
    assert json.loads(as_json)["status"] == 200


@given(st.text(st.characters()), st.text(st.characters()))
def test_no_text_breaks_a_line(path: str, other: str) -> None:
    entry = with_(path=path, model=other, key_id=other, method=other, prompt=other)
    for line in (text_line(entry), json_line(entry, prompts=True)):
        assert line.count(b"\n") == 1
        assert line.decode()[:-1].isprintable()
    assert re.fullmatch(rb"[^|]+ \| [^|]+ \| [^|]* \| 200\n", text_line(entry))


def test_what_a_client_chose_is_bounded() -> None:
    entry = with_(path="/" + "ä" * 10**6, model="m" * 10**6)
    assert len(text_line(entry)) < 2048 * 6 + 100
    assert len(json_line(entry)) < 2048 * 6 + 1000


def test_a_path_is_as_it_was_on_the_wire() -> None:
    assert b" GET /a%20b/%C3%A4%25?" not in text_line(with_(method="GET", path="/a b/ä%?"))
    assert b" GET /a%20b/%C3%A4%25%3F |" in text_line(with_(method="GET", path="/a b/ä%?"))


def test_what_can_be_printed_is_left_alone() -> None:
    assert clean("grün 🌱 x") == "grün 🌱 x"
    assert clean("a\tb\x7f") == r"a\tb\x7f"


@pytest.mark.parametrize(("form", "first"), [("text", b"2026-"), ("json", b'{"ts"')])
def test_entries_reach_the_file(tmp_path: Path, form: str, first: bytes) -> None:
    path = tmp_path / "logs" / "api_access.log"
    made = log(path, form=form)
    made.start()
    made.write(ENTRY)
    made.close()
    assert path.read_bytes().startswith(first)
    assert path.read_bytes().count(b"\n") == 1
    assert made.lost == 0
    assert "access log" in repr(made)


def test_prompts_are_written_by_a_log_that_takes_them(tmp_path: Path) -> None:
    for prompts in (False, True):
        made = log(tmp_path / str(prompts), prompts=prompts)
        assert made.prompts is prompts
        made.start()
        made.write(ENTRY)
        made.close()
        assert ("prompt" in json.loads((tmp_path / str(prompts)).read_text())) is prompts


def test_the_file_rotates(tmp_path: Path) -> None:
    made = log(tmp_path / "log", form="text", max_bytes=100, keep=1)
    made.start()
    for status in (200, 201, 202):
        made.write(with_(status=status))
    made.close()
    assert [(tmp_path / name).read_text().split()[-1] for name in ("log.1", "log")] == ["201", "202"]


def test_lines_without_room_are_counted(tmp_path: Path) -> None:
    losses: list[int] = []
    made = log(tmp_path / "log", max_waiting=2, on_loss=losses.append)
    for _ in range(5):
        made.write(ENTRY)
    assert losses == [1, 1, 1]
    made.start()
    made.close()
    assert (tmp_path / "log").read_text().count("\n") == 2
    assert made.lost == 3


def test_a_moved_file_is_left_alone_after_a_reopening(tmp_path: Path) -> None:
    made = log(tmp_path / "log")
    (tmp_path / "log").rename(tmp_path / "moved")
    made.reopen()
    made.start()
    made.write(ENTRY)
    made.close()
    assert (tmp_path / "moved").read_text() == ""
    assert (tmp_path / "log").read_text().count("\n") == 1


def test_a_file_that_cannot_be_opened_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^NEUROGATE_ACCESS_LOG: .*/file/log cannot be opened"):
        log(tmp_path / "file" / "log")

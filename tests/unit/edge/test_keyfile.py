"""The key file: what a line says, and what is wrong with it."""

from __future__ import annotations

import contextlib
import hashlib
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurogate.edge.caller import Caller, Quota
from neurogate.edge.keyfile import UNBOUNDED, Key, LineError, digest, hashed, parse, parse_line, stored_digest

KEY = "sk-alice-xyz789"
IN_2027 = datetime(2027, 1, 1, tzinfo=UTC).timestamp()


def key_of(line: str) -> Key:
    found = parse_line(line, 1)
    assert found is not None
    return found.key


def warned(text: str) -> str:
    found = parse(text)
    assert not found.lines
    (warning,) = found.warnings
    return warning


@pytest.mark.parametrize(
    ("line", "rate", "expires_at"),
    [
        (f"alice:{KEY}", 0, None),
        (f"  alice:{KEY}  \r", 0, None),
        (f"alice:{KEY}:", 0, None),
        (f"alice:{KEY}::", 0, None),
        (f"alice:{KEY}:100", 100, None),
        (f"alice:{KEY}:0", UNBOUNDED, None),
        (f"alice:{KEY}:100:", 100, None),
        (f"alice:{KEY}:100:2027-01-01T00:00:00Z", 100, IN_2027),
        (f"alice:{KEY}:100:2027-01-01T00:00:00", 100, IN_2027),
        (f"alice:{KEY}:100:2027-01-01", 100, IN_2027),
        (f"alice:{KEY}:100:2027-01-01T01:30:00+01:30", 100, IN_2027),
        (f"alice:{KEY}::2027-01-01T00:00:00.000Z", 0, IN_2027),
    ],
)
def test_a_line_is_an_id_a_key_a_rate_and_an_expiry(line: str, rate: int, expires_at: float | None) -> None:
    """Nothing, for the rate, leaves the default; 0 is no bound at all."""
    assert key_of(line) == Key(digest(KEY.encode()), Caller("alice", Quota(rate)), expires_at)


@pytest.mark.parametrize("tail", [" {}; {};{}", "\t{}  {}\t{} # said by Bob", " {};{};{};"])
def test_words_after_the_line_of_old_say_the_rest(tail: str) -> None:
    words = tail.format("tpm=20000 concurrent=4", "monthly=1000000 models=llama3.2:1b|b", "routes=/v1/* priority=batch")
    assert key_of(f"alice:{KEY}:100:2027-01-01T00:00:00Z{words}") == Key(
        digest(KEY.encode()),
        Caller(
            "alice",
            Quota(requests_per_minute=100, tokens_per_minute=20000, concurrent=4, tokens_per_month=1000000),
            models=frozenset({"llama3.2:1b", "b"}),
            routes=frozenset({"/v1/*"}),
            priority="batch",
        ),
        IN_2027,
    )


def test_a_digest_stands_for_its_key() -> None:
    line = parse_line(f"alice:{hashed(KEY)}:100", 1)
    assert line is not None
    assert line.hashed
    assert line.key == key_of(f"alice:{KEY}:100")
    assert hashed(KEY) == "sha256$" + hashlib.sha256(KEY.encode()).hexdigest()
    assert stored_digest(hashed(KEY).upper().replace("SHA", "sha")) == digest(KEY.encode())


@pytest.mark.parametrize("line", ["", "   ", "# alice:secret", "  #", "\r"])
def test_comments_and_nothing_say_nothing(line: str) -> None:
    assert parse_line(line, 1) is None


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("sesame-open-up", "a line is key_id:api_key"),
        (":sesame-open-up", "a key id is"),
        ("al ice:sesame-open-up", "a line is key_id:api_key"),
        ("alice\x1b[2J:sesame-open-up", "a key id is"),
        (f"{'a' * 65}:sesame-open-up", "a key id is"),
        ("sk-sesame-open-up:alice-alice", "the id comes first"),
        ("0123456789abcdef0123456789ABCDEF:sesame-open-up", "the id comes first"),
        ("alice:", "shorter than 8"),
        ("alice:sesame:100", "shorter than 8"),
        ("alice:sesame\x7fopen", "header cannot carry"),
        ("alice:sha256$sesame-open-up", "64 hexadecimal"),
        ("alice:sesame-open-up:many", "the rate limit"),
        ("alice:sesame-open-up:-1", "the rate limit"),
        ("alice:sesame-open-up:٣", "the rate limit"),
        ("alice:sesame-open-up:" + "9" * 5000, "the rate limit"),
        ("alice:sesame-open-up:1:tomorrow", "ISO time"),
        ("alice:sesame-open-up:1:0001-01-01T00:00:00+23:00", "ISO time"),
        ("alice:sesame-open-up tmp=3", "after the key come words"),
        ("alice:sesame-open-up up", "after the key come words"),
        ("alice:sesame-open-up tpm=", "tpm= is not"),
        ("alice:sesame-open-up tpm=1 tpm=2", "tpm= is there twice"),
        ("alice:sesame-open-up models=", "models= has an empty name"),
        ("alice:sesame-open-up models=a||b", "models= has an empty name"),
        ("alice:sesame-open-up routes=v1/chat", "begin with /"),
        ("alice:sesame-open-up priority=first", "priority= is one of interactive, batch"),
    ],
)
def test_a_bad_line_is_skipped_and_told_by_its_number_without_its_text(line: str, wrong: str) -> None:
    warning = warned(f"\n{line}")
    assert warning.startswith("line 2: ")
    assert wrong in warning
    assert "sesame" not in warning


def test_a_second_line_of_an_id_or_a_key_is_skipped() -> None:
    found = parse(f"alice:{KEY}\nbob:sesame-open\nalice:sesame-open-up\ncarol:{hashed(KEY)}:5\n")
    assert [line.key.caller.key_id for line in found.lines] == ["alice", "bob"]
    assert found.warnings == (
        "line 3: its key id is already in line 1; the line is skipped",
        "line 4: its key is already in line 1; the line is skipped",
    )


def test_the_examples_of_the_documentation_are_valid() -> None:
    page = (Path(__file__).parents[3] / "docs" / "keys.md").read_text()
    examples = [line.strip() for line in page.splitlines() if re.match(r"    \w+:(sk-|sha256)", line)]
    found = parse("\n".join(examples))
    assert (len(found.lines), found.warnings) == (5, ())


@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    found = parse(text)
    assert len(found.lines) + len(found.warnings) <= text.count("\n") + 1


@given(st.text())
def test_no_line_breaks_the_reader(rest: str) -> None:
    with contextlib.suppress(LineError):
        parse_line(f"alice:{KEY}{rest}", 1)

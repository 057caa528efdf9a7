"""`neurogate keys`: what it prints where, and how it exits."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from neurogate.cli.main import main
from neurogate.edge.caller import Caller, Quota
from neurogate.edge.key_source import KeySource
from neurogate.edge.keyfile import hashed, parse
from neurogate.edge.settings import KeySettings

FURTHER_TITLES = ("expires", "stored", "models", "routes", "priority")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "api_keys.txt"
    monkeypatch.setenv("AUTH_KEYS_FILE", str(path))
    return path


@pytest.fixture
def keys(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `neurogate keys` in this process. Returns exit code, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exited:
            main(["keys", *arguments])
        return (exited.value.code or 0, *capsys.readouterr())  # type: ignore[return-value]

    return run


def caller_of(file: Path, key: str) -> Caller:
    source = KeySource(KeySettings(keys_file=str(file)), now=time.time)
    assert not source.loaded.warnings
    return source.ring.authenticate(f"Bearer {key.strip()}".encode())


def expiry_in_s(file: Path) -> float:
    (line,) = parse(file.read_text()).lines
    assert line.key.expires_at is not None
    return line.key.expires_at - time.time()


def test_a_new_key_is_printed_once_and_works(keys: Run, file: Path) -> None:
    code, key, said = keys("generate", "--name", "alice")
    assert code == 0
    assert re.fullmatch(r"sk-[A-Za-z0-9_-]{43}\n", key)
    assert said == f"added alice to {file}; this is the only time that its key is shown\n"
    assert caller_of(file, key) == Caller("alice")
    assert key.strip() in file.read_text()
    assert keys("generate", "--name", "bob", "-q")[2] == ""
    assert keys("generate", "--name", "carol", "--quiet")[1] != key


def test_a_key_is_made_with_all_that_a_line_can_say(keys: Run, file: Path) -> None:
    limits = "--rate-limit 100 --tpm 0 --concurrent 4 --monthly 1000 --models a,b --routes /v1/* --priority batch"
    _, key, _ = keys("generate", "--name", "team", *limits.split(), "--expires", "30d", "--hashed")
    assert key.strip() not in file.read_text()
    assert caller_of(file, key) == Caller(
        "team", Quota(100, -1, 4, 1000), frozenset({"a", "b"}), frozenset({"/v1/*"}), "batch"
    )
    assert expiry_in_s(file) == pytest.approx(30 * 86400, abs=60)


@pytest.mark.parametrize(
    ("expires", "after_s"), [("60m", 3600), ("24h", 86400), ("2w", 14 * 86400), ("9999-01-01T00:00:00Z", None)]
)
def test_an_expiry_is_a_time_from_now_or_a_date(keys: Run, file: Path, expires: str, after_s: float | None) -> None:
    assert keys("generate", "--name", "guest", "--expires", expires)[0] == 0
    if after_s is None:
        after_s = datetime.fromisoformat(expires).timestamp() - time.time()
    assert expiry_in_s(file) == pytest.approx(after_s, abs=60)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (("--expires", "soon"), "60m, 24h, 30d"),
        (("--expires", "2020-01-01"), "over already"),
        (("--name", "al:ice"), "a key id is"),
        (("--name", "sk-alice"), "the id comes first"),
        (("--rate-limit", "-1"), "greater than or equal to 0"),
        (("--routes", "v1"), "begin with /"),
        (("--models", "a,,b"), "empty name"),
        (("--models", "a b"), "after the key come words"),
        (("--models", "a\nbob:sk-prod-abc123"), "no line breaks"),
        (("--priority", "first"), "interactive, batch"),
    ],
)
def test_what_no_line_can_say_is_refused_and_makes_no_file(keys: Run, file: Path, wrong: tuple[str], told: str) -> None:
    code, shown, said = keys("generate", "--name", "alice", *wrong)
    assert (code, shown) == (2, "")
    assert told in said
    assert not file.exists()


def test_an_id_is_given_once(keys: Run, file: Path) -> None:
    keys("generate", "--name", "alice")
    before = file.read_text()
    code, shown, said = keys("generate", "--name", "alice")
    assert (code, shown) == (1, "")
    assert said.startswith("neurogate: there is a key with the id 'alice' already")
    assert file.read_text() == before


def test_keys_are_listed_without_the_keys(keys: Run, file: Path) -> None:
    file.write_text(
        "alice:sk-alice-xyz789:100:2020-01-01 models=a|b\n"
        f"bob:{hashed('sk-prod-abc123')}:0\nsk-a-lonely-key-without-an-id\n"
    )
    file.chmod(0o600)
    code, shown, said = keys("list")
    assert code == 0
    assert [re.split(r"\s{2,}", line) for line in shown.splitlines()] == [
        ["id", "requests/min", "tokens/min", "at once", "tokens/month", *FURTHER_TITLES],
        ["alice", "100", *["default"] * 3, "2020-01-01T00:00:00Z (over)", "key", "a,b", "all", "interactive"],
        ["bob", "unlimited", *["default"] * 3, "never", "hash", "all", "all", "interactive"],
    ]
    assert said == f"{file}: line 3: a line is key_id:api_key[:rate_limit][:expiry]; the line is skipped\n"
    _, as_json, _ = keys("list", "--json")
    assert [row["id"] for row in json.loads(as_json)] == ["alice", "bob"]
    assert json.loads(as_json)[0]["expired"] is True
    for secret in ("xyz789", "abc123", hashed("sk-prod-abc123"), "lonely"):
        assert secret not in shown + said + as_json


def test_a_removed_key_is_gone(keys: Run, file: Path) -> None:
    keys("generate", "--name", "alice")
    keys("generate", "--name", "bob")
    code, shown, said = keys("remove", "--name", "alice")
    assert (code, shown) == (0, "")
    assert said.startswith(f"removed alice from {file}")
    assert "alice" not in file.read_text()
    assert keys("remove", "--name", "alice") == (
        1,
        "",
        "neurogate: there is no key with the id 'alice'; there are: bob\n",
    )
    assert keys("remove", "--name", "bob", "--quiet") == (0, "", "")


def test_a_rotated_key_keeps_its_limits_and_its_form(keys: Run, file: Path) -> None:
    keys("generate", "--name", "plain", "--rate-limit", "5", "--expires", "30d")
    _, old, _ = keys("generate", "--name", "hashed", "--hashed", "--tpm", "9")
    code, new, said = keys("rotate", "--name", "hashed")
    assert code == 0
    assert said.startswith("hashed has a new key")
    assert caller_of(file, new) == Caller("hashed", Quota(tokens_per_minute=9))
    with pytest.raises(Exception, match="not known"):
        caller_of(file, old)
    _, new, said = keys("rotate", "--name", "plain", "-q")
    assert said == ""
    assert new.strip() in file.read_text()
    _, new, _ = keys("rotate", "--name", "plain", "--hashed", "--expires", "60m")
    assert new.strip() not in file.read_text()
    assert caller_of(file, new).quota == Quota(5)


def test_an_expired_key_is_rotated_only_with_another_end(keys: Run, file: Path) -> None:
    file.write_text("old:sk-alice-xyz789::2020-01-01\n")
    file.chmod(0o600)
    code, shown, said = keys("rotate", "--name", "old")
    assert (code, shown) == (1, "")
    assert "has expired: give it another end with --expires" in said
    _, key, _ = keys("rotate", "--name", "old", "--expires", "24h")
    assert caller_of(file, key).key_id == "old"


def test_a_key_is_hashed_from_standard_input(keys: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("sk-alice-xyz789\n"))
    assert keys("hash") == (0, hashed("sk-alice-xyz789") + "\n", "")
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    assert keys("hash") == (1, "", "neurogate: the key is shorter than 8 characters\n")


def test_a_key_is_asked_for_at_a_terminal(keys: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda _: "sk-alice-xyz789")
    assert keys("hash")[1] == hashed("sk-alice-xyz789") + "\n"


def test_a_key_in_the_file_is_hashed_in_its_place(keys: Run, file: Path) -> None:
    file.write_text("alice:sk-alice-xyz789:100 tpm=5\n")
    file.chmod(0o600)
    assert keys("hash", "--name", "alice") == (
        0,
        "",
        f"{file} has the hash of alice's key now, no longer the key\n",
    )
    assert file.read_text() == f"alice:{hashed('sk-alice-xyz789')}:100 tpm=5\n"
    assert keys("hash", "--name", "alice", "-q") == (0, "", "")
    assert file.read_text() == f"alice:{hashed('sk-alice-xyz789')}:100 tpm=5\n"


@pytest.mark.parametrize("command", ["list", "remove", "rotate", "hash"])
def test_a_file_that_is_not_there_is_said_and_not_made(keys: Run, file: Path, command: str) -> None:
    code, shown, said = keys(command, *(() if command == "list" else ("--name", "alice")))
    assert (code, shown) == (1, "")
    assert re.fullmatch(rf"neurogate: {file} cannot be (read|changed): No such file or directory\n", said)
    assert not file.exists()


def test_without_a_file_the_setting_is_named(keys: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTH_KEYS_FILE", raising=False)
    code, _, said = keys("generate", "--name", "alice")
    assert code == 78
    assert said.startswith("neurogate: AUTH_KEYS_FILE: names no key file; set it, or give --file")


def test_the_flag_wins_over_the_setting(keys: Run, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    keys("generate", "--name", "alice", "--file", str(other))
    assert other.exists()
    assert not file.exists()


def test_a_file_open_to_others_is_told(keys: Run, file: Path) -> None:
    file.write_text("alice:sk-alice-xyz789\n")
    file.chmod(0o644)
    assert keys("list")[2] == f"neurogate: warning: {file} is open to every user of this machine: chmod 600 {file}\n"


@pytest.mark.parametrize(
    "command", [("generate", "--name", "b"), ("rotate", "--name", "alice"), ("remove", "--name", "alice"),
                ("hash", "--name", "alice")]
)  # fmt: skip
def test_a_file_that_was_open_to_others_is_closed_and_said_so_even_quietly(
    keys: Run, file: Path, command: tuple[str, ...]
) -> None:
    file.write_text("alice:sk-alice-xyz789\n")
    file.chmod(0o644)
    told = f"neurogate: warning: others than its owner could read or write {file}; its mode is 0600 now\n"
    code, _, said = keys(*command, "--quiet")
    assert (code, said) == (0, told)
    assert file.stat().st_mode & 0o777 == 0o600
    assert keys("generate", "--name", "c", "--quiet")[2] == ""

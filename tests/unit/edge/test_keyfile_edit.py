"""Changing the key file: only the line in question, all or nothing, one at a time."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from neurogate.edge import keyfile_edit
from neurogate.edge.keyfile import hashed, line_of, parse, with_hash, with_key
from neurogate.edge.keyfile_edit import Draft, KeyFileError, editing, open_to_others

TEXT = "# ours\n\nalice:sk-alice-xyz789:100\nnonsense\nbob:sk-prod-abc123  tpm=5 # Bob\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "api_keys.txt"
    made.write_text(TEXT)
    made.chmod(0o640)
    return made


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def change(path: Path) -> None:
    with editing(path) as draft:
        line, text = draft.find("alice")
        draft.put(line.number, with_key(text, "sk-another-key"))


def ids(path: Path) -> list[str]:
    return [line.key.caller.key_id for line in parse(path.read_text()).lines]


def test_only_the_line_in_question_changes(file: Path) -> None:
    change(file)
    assert file.read_text() == TEXT.replace("sk-alice-xyz789", "sk-another-key")
    assert list(file.parent.iterdir()) == [file]


def test_a_new_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    before = os.umask(0)
    try:
        with editing(path, create=True) as draft:
            draft.add("alice", "alice:sk-alice-xyz789")
    finally:
        os.umask(before)
    assert mode_of(path) == 0o600
    assert path.read_text().startswith("# key_id:api_key")
    assert ids(path) == ["alice"]
    assert not open_to_others(path)


def test_the_last_line_needs_no_end(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("alice:sk-alice-xyz789")
    with editing(path) as draft:
        draft.add("bob", "bob:sk-prod-abc123")
    assert ids(path) == ["alice", "bob"]


def test_the_last_key_leaves_a_comment_which_says_that_it_is_meant(tmp_path: Path) -> None:
    draft = Draft("alice:sk-alice-xyz789\n\n")
    draft.remove(draft.find("alice")[0].number)
    assert draft.text.startswith("# key_id")


def test_an_id_is_there_once_and_must_be_there_to_be_found() -> None:
    draft = Draft(TEXT)
    with pytest.raises(KeyFileError, match="there is a key with the id 'alice' already"):
        draft.add("alice", "alice:sk-other-key")
    with pytest.raises(KeyFileError, match="no key with the id 'carol'; there are: alice, bob"):
        draft.find("carol")
    with pytest.raises(KeyFileError, match="there are: none"):
        Draft("").find("carol")


@pytest.mark.parametrize("mode", [0o640, 0o644, 0o666, 0o755, 0o600])
def test_a_file_that_is_changed_is_for_its_owner_alone_from_then_on(file: Path, mode: int) -> None:
    file.chmod(mode)
    with editing(file) as draft:
        assert draft.tightened == (mode != 0o600)
        draft.remove(3)
    assert mode_of(file) == 0o600
    with editing(file) as draft:
        assert not draft.tightened


def test_a_failed_edit_changes_nothing(file: Path) -> None:
    def half_an_edit() -> None:
        with editing(file) as draft:
            draft.remove(3)
            draft.find("carol")

    with pytest.raises(KeyFileError, match="carol"):
        half_an_edit()
    assert file.read_text() == TEXT
    assert list(file.parent.iterdir()) == [file]


def test_a_write_that_fails_leaves_the_file_of_before(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keyfile_edit.os, "fsync", full)
    with pytest.raises(KeyFileError, match="cannot be changed: No space left on device"):
        change(file)
    assert file.read_text() == TEXT
    assert list(file.parent.iterdir()) == [file]


def test_a_link_is_followed_and_stays(file: Path) -> None:
    link = file.parent / "link"
    link.symlink_to(file.name)
    change(link)
    assert link.is_symlink()
    assert "sk-another-key" in file.read_text()


def test_a_file_that_is_not_there_is_not_made_by_a_change(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="keys cannot be changed: No such file"):
        change(tmp_path / "keys")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_not_changed(tmp_path: Path, make: object) -> None:
    make(tmp_path / "keys")  # type: ignore[operator]
    with pytest.raises(KeyFileError, match=r"is not a file|Is a directory"):
        change(tmp_path / "keys")


def test_what_is_no_text_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(b"\xff\xff")
    with pytest.raises(KeyFileError, match="cannot be read: it is not UTF-8 text"):
        change(tmp_path / "keys")


def test_edits_at_the_same_time_all_count(file: Path) -> None:
    count = 16
    start = threading.Barrier(count)

    def add(number: int) -> None:
        start.wait()
        with editing(file) as draft:
            draft.add(f"k{number}", f"k{number}:sk-number-{number:04}")

    threads = [threading.Thread(target=add, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ids(file)) == sorted(["alice", "bob", *(f"k{number}" for number in range(count))])


def test_a_file_that_is_swapped_for_ever_is_given_up(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyfile_edit.os.path, "samestat", lambda *_: False)
    with pytest.raises(KeyFileError, match="changed by others all the time"):
        change(file)


def test_a_file_open_to_others_is_noticed(file: Path) -> None:
    assert not open_to_others(file)
    file.chmod(0o644)
    assert open_to_others(file)


def test_a_line_is_written_with_what_is_given() -> None:
    words = {"tpm": "5", "models": "a|b", "routes": ""}
    assert line_of("a", "k", rate_limit="", expiry="", words={}) == "a:k"
    assert line_of("a", "k", rate_limit="3", expiry="", words=words) == "a:k:3 tpm=5 models=a|b"
    assert line_of("a", "k", rate_limit="", expiry="2027-01-01", words={}) == "a:k::2027-01-01"


@pytest.mark.parametrize(
    ("line", "expiry", "after"),
    [
        ("a:old", "", "a:new"),
        ("a:old:", "", "a:new:"),
        ("a:old:5:2027-01-01T00:00:00Z  x=1  # y", "", "a:new:5:2027-01-01T00:00:00Z x=1  # y"),
        ("a:old x=1", "E", "a:new::E x=1"),
        ("a:old:5", "E", "a:new:5:E"),
        ("a:old:5:2027-01-01T00:00:00Z", "E", "a:new:5:E"),
    ],
)
def test_a_new_key_leaves_the_rest_of_its_line(line: str, expiry: str, after: str) -> None:
    assert with_key(line, "new", expiry=expiry) == after


@pytest.mark.parametrize("rest", ["", ":5", " tpm=1"])
def test_a_key_gives_way_to_its_hash(rest: str) -> None:
    assert with_hash(f"a:sk-alice-xyz789{rest}") == f"a:{hashed('sk-alice-xyz789')}{rest}"

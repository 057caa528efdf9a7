"""A log file that rotates, on disks that fail."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from neurogate.telemetry.rotating_file import Output, RotatingFile, open_append


class Disk:
    """Files in memory that take as much as there is room for."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.written = b""
        self.opened = 0
        self.would_block = False

    def open(self, _: Path) -> tuple[Output, int]:
        self.opened += 1
        return self, len(self.written)

    def write(self, data: bytes, /) -> int | None:
        if self.would_block:
            return None
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        part = bytes(data[: self.room])
        self.room -= len(part)
        self.written += part
        return len(part)

    def close(self) -> None:
        raise OSError(errno.EIO, "Input/output error")


def lines(*texts: str) -> list[bytes]:
    return [f"{text}\n".encode() for text in texts]


def contents(path: Path) -> list[str]:
    """What the file and its old ones hold, the newest first."""
    files = [path, *sorted(path.parent.glob(f"{path.name}.*"))]
    return [file.read_text().replace("\n", " ").strip() for file in files]


def test_lines_are_appended_and_directories_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "access.log"
    for text in ("one", "two"):
        file = RotatingFile(path, max_bytes=0, keep=0)
        file.append(lines(text))
        file.close()
    assert path.read_text() == "one\ntwo\n"
    assert not stat.S_IMODE(path.stat().st_mode) & 0o007
    assert repr(file) == f"<RotatingFile {path} 8 bytes>"


def test_a_file_makes_room_before_the_line_that_would_be_too_much(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "log", max_bytes=8, keep=2)
    file.append(lines("a1", "a2", "b1", "b2", "c1"))
    file.append(lines("c2", "d1"))
    file.close()
    assert contents(file.path) == ["d1", "c1 c2", "b1 b2"]


def test_a_file_that_is_there_already_counts(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("old old\n")
    file = RotatingFile(tmp_path / "log", max_bytes=8, keep=2)
    file.append(lines("new"))
    file.close()
    assert contents(file.path) == ["new", "old old"]


def test_a_line_larger_than_a_file_is_written_whole(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "log", max_bytes=3, keep=2)
    file.append(lines("12345", "67890"))
    file.close()
    assert contents(file.path) == ["67890", "12345"]


def test_without_old_files_the_full_one_goes(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "log", max_bytes=3, keep=0)
    file.append(lines("a", "b", "c"))
    file.close()
    assert contents(file.path) == ["c"]


def test_a_file_that_was_moved_away_is_followed_by_another(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "log", max_bytes=0, keep=0)
    file.append(lines("a"))
    file.path.rename(tmp_path / "moved")
    file.append(lines("b"))
    file.reopen()
    file.append(lines("c"))
    file.close()
    assert (contents(tmp_path / "moved"), contents(file.path)) == (["a b"], ["c"])


def test_a_file_that_cannot_be_renamed_grows_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the renaming is tried again only when it has grown by as much."""
    tried = []

    def denied(path: Path, _: Path) -> Path:
        tried.append(path)
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "replace", denied)
    file = RotatingFile(tmp_path / "log", max_bytes=4, keep=1)
    file.append(lines("a", "b", "c", "d", "e"))
    file.close()
    assert contents(file.path) == ["a b c d e"]
    assert len(tried) == 2


def test_a_full_disk_is_said_and_the_line_that_was_cut_ends_there() -> None:
    disk = Disk(room=6)
    file = RotatingFile(Path("log"), max_bytes=0, keep=0, opener=disk.open)
    with pytest.raises(OSError, match="No space left"):
        file.append(lines("one", "two"))
    with pytest.raises(OSError, match="No space left"):
        file.append(lines("lost"))
    disk.room = 100
    file.append(lines("three"))
    file.append(lines("four"))
    file.close()
    assert disk.written == b"one\ntw\nthree\nfour\n"
    assert disk.opened == 3, "after a failure the file is opened again"


def test_a_fresh_file_does_not_begin_with_the_end_of_a_cut_line(tmp_path: Path) -> None:
    disk = Disk(room=2)
    places = iter([disk.open, disk.open, open_append])

    def opener(path: Path) -> tuple[Output, int]:
        return next(places)(path)

    file = RotatingFile(tmp_path / "log", max_bytes=0, keep=0, opener=opener)
    with pytest.raises(OSError, match="No space left"):
        file.append(lines("one"))
    with pytest.raises(OSError, match="No space left"):
        file.append(lines("two"))
    file.append(lines("three"))
    file.close()
    assert file.path.read_text() == "three\n"


def test_a_pipe_that_takes_nothing_is_a_failure_and_no_endless_loop() -> None:
    disk = Disk(room=100)
    disk.would_block = True
    file = RotatingFile(Path("log"), max_bytes=0, keep=0, opener=disk.open)
    with pytest.raises(BlockingIOError):
        file.append(lines("a"))


def test_nothing_to_write_writes_nothing() -> None:
    disk = Disk(room=0)
    RotatingFile(Path("log"), max_bytes=0, keep=0, opener=disk.open).append([])
    assert disk.written == b""


def test_a_file_that_cannot_be_opened_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        RotatingFile(tmp_path / "file" / "log", max_bytes=0, keep=0)


def test_a_dash_is_standard_output_and_never_rotates() -> None:
    script = (
        "from pathlib import Path\nfrom neurogate.telemetry.rotating_file import RotatingFile\n"
        "file = RotatingFile(Path('-'), max_bytes=1, keep=3)\n"
        "file.append([b'a\\n', b'b\\n'])\nfile.reopen()\nfile.append([b'c\\n'])\nfile.close()\nprint('open still')"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"a{os.linesep}b\nc\nopen still\n", "")

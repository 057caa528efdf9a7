"""Whether a file could be written is found out without making one."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from neurogate.telemetry.writable import check_directory, check_file


def test_a_file_that_is_there_or_could_be_made_passes_and_none_is_made(tmp_path: Path) -> None:
    there = tmp_path / "there.log"
    there.touch()

    check_file(there)
    check_file(tmp_path / "a" / "b" / "new.log")
    check_file(Path(os.devnull))
    check_directory(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["there.log"]


def test_a_directory_is_no_file_and_a_file_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(IsADirectoryError):
        check_file(tmp_path)
    with pytest.raises(NotADirectoryError):
        check_directory(tmp_path / "file" / "logs")


def test_what_may_not_be_written_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root everything may be: the question that permissions answer is asked of a fake."""
    (tmp_path / "there.log").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)

    with pytest.raises(PermissionError):
        check_file(tmp_path / "there.log")
    with pytest.raises(PermissionError):
        check_directory(tmp_path)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc")
def test_a_file_system_of_the_kernel_takes_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: True)

    with pytest.raises(OSError, match="Read-only file system"):
        check_directory(Path("/proc/logs"))


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL])
def test_a_file_system_without_nameless_files_is_believed(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)

    check_directory(tmp_path)


def test_a_full_disk_fails_and_a_system_without_the_question_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match="No space left"):
        check_directory(tmp_path)
    monkeypatch.delattr(os, "O_TMPFILE")
    check_directory(tmp_path)

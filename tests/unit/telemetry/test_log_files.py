"""Log files of a process and of its engine, in one directory."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest
import structlog

from neurogate.errors import ConfigError
from neurogate.telemetry.log_files import Copy, _open_locked, boot_log, engine_log, point_to, prune
from neurogate.telemetry.rotating_file import RotatingFile
from neurogate.telemetry.settings import LogFileSettings

AT = 1_795_000_000.0
STAMP = "20261118_110640"


@pytest.fixture
def files() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def settings(directory: Path, **others: int) -> LogFileSettings:
    return LogFileSettings(directory=str(directory), **others)


def boot(directory: Path, host: str = "host", at: float = AT, **others: int) -> AbstractContextManager[Copy | None]:
    return boot_log(settings(directory, **others), host=host, now=lambda: at)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_process_has_a_file_of_its_own_and_latest_leads_to_it(tmp_path: Path) -> None:
    with boot(tmp_path / "logs") as copy:
        assert copy is not None
        copy("one\n")
        copy("grün\udc80\n")
    directory = tmp_path / "logs" / "_boot"
    assert names(directory) == [f"{STAMP}_boot_host.log", "latest.txt"]
    assert (directory / "latest.txt").readlink() == Path(f"{STAMP}_boot_host.log")
    assert (directory / "latest.txt").read_bytes() == "one\ngrün?\n".encode()


def test_without_a_directory_there_are_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with boot_log(LogFileSettings(), host="host", now=lambda: AT) as copy:
        assert copy is None
    with engine_log(LogFileSettings(), kind="tiny", host="host", now=lambda: AT) as log:
        assert log is None
    assert names(tmp_path) == []


def test_an_engines_lines_are_kept_as_it_wrote_them_with_what_became_of_it(tmp_path: Path) -> None:
    with (
        structlog.testing.capture_logs() as logged,
        engine_log(settings(tmp_path), kind="tiny", host="host", now=lambda: AT) as log,
    ):
        assert log is not None
        log.debug("engine", line="0.01 I loading", pid=7)
        log.error("engine", line="0.02 E broken", pid=7)
        log.warning("engine died", why="signal 9")
        log.info("engine ready", url="http://x", pid=8)
    assert (tmp_path / "llama-tiny" / "latest.txt").read_text().splitlines() == [
        "0.01 I loading",
        "0.02 E broken",
        "neurogate: engine died why=signal 9",
        "neurogate: engine ready url=http://x pid=8",
    ]
    assert names(tmp_path / "llama-tiny")[0] == f"{STAMP}_server_host.log"
    assert [entry["log_level"] for entry in logged] == ["debug", "error", "warning", "info"]


@pytest.mark.parametrize(
    ("kind", "directory"),
    [
        ("Chat 7B", "llama-Chat-7B"),
        ("../../etc", "llama-etc"),
        ("llama3.2:1b", "llama-llama3.2-1b"),
        ("/", "llama-unknown"),
    ],
)
def test_no_name_leaves_the_directory(tmp_path: Path, kind: str, directory: str) -> None:
    with engine_log(settings(tmp_path / "logs"), kind=kind, host="../host", now=lambda: AT):
        assert names(tmp_path) == ["logs"]
        assert names(tmp_path / "logs") == [directory]
    assert names(tmp_path / "logs" / directory) == [f"{STAMP}_server_host.log", "latest.txt"]


def test_processes_that_start_together_have_files_of_their_own(tmp_path: Path, files: ExitStack) -> None:
    for number in range(3):
        copy = files.enter_context(boot(tmp_path))
        assert copy is not None
        copy(f"{number}\n")
    files.close()
    texts = {path.name: path.read_text() for path in (tmp_path / "_boot").glob("2*")}
    assert texts == {
        f"{STAMP}_boot_host.log": "0\n",
        f"{STAMP}_boot_host-2.log": "1\n",
        f"{STAMP}_boot_host-3.log": "2\n",
    }
    assert (tmp_path / "_boot" / "latest.txt").read_text() == "2\n"


def test_old_files_go_and_those_of_running_processes_stay(tmp_path: Path, files: ExitStack) -> None:
    directory = tmp_path / "_boot"
    with boot(tmp_path, at=AT), boot(tmp_path, at=AT + 1):
        pass
    (directory / f"{STAMP}_boot_host.log.1").touch()
    (directory / "notes.txt").touch()
    running = files.enter_context(boot(tmp_path, at=AT + 2))
    with boot(tmp_path, at=AT + 3), boot(tmp_path, at=AT + 4, keep=1):
        assert names(directory) == [
            "20261118_110642_boot_host.log",
            "20261118_110643_boot_host.log",
            "20261118_110644_boot_host.log",
            "latest.txt",
            "notes.txt",
        ]
    assert running is not None
    running("still here\n")
    files.close()
    assert (directory / "20261118_110642_boot_host.log").read_text() == "still here\n"


def test_a_rotated_file_is_still_taken_for_one_of_a_running_process(tmp_path: Path) -> None:
    path = tmp_path / f"{STAMP}_boot_a.log"
    (tmp_path / "20270101_000000_boot_a.log").touch()
    file = RotatingFile(path, max_bytes=3, keep=1, opener=_open_locked)
    file.append([b"a\n", b"b\n"])
    prune(tmp_path, "boot", keep=1)
    assert len(names(tmp_path)) == 3
    file.close()
    prune(tmp_path, "boot", keep=1)
    assert names(tmp_path) == ["20270101_000000_boot_a.log"]


def test_latest_is_a_text_where_there_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    point_to(tmp_path / "x.log")
    assert (tmp_path / "latest.txt").read_text() == f"{tmp_path / 'x.log'}\n"
    assert names(tmp_path) == ["latest.txt"]


def test_latest_changes_all_at_once(tmp_path: Path) -> None:
    point_to(tmp_path / "one.log")
    point_to(tmp_path / "two.log")
    assert (tmp_path / "latest.txt").readlink() == Path("two.log")
    assert names(tmp_path) == ["latest.txt"]


def test_what_cannot_be_removed_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{STAMP}_boot_a.log").touch()
    (tmp_path / f"{STAMP}_boot_b.log").touch()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "unlink", refuse)
    prune(tmp_path, "boot", keep=1)
    assert len(names(tmp_path)) == 2


def test_a_file_system_without_locks_is_good_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with boot(tmp_path, at=AT), boot(tmp_path, at=AT + 1, keep=1) as copy:
        assert copy is not None
        copy("a\n")
    assert (tmp_path / "_boot" / "latest.txt").read_text() == "a\n"


def test_a_directory_that_cannot_be_written_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match=r"^NEUROGATE_LOG_DIR: .*/file/_boot cannot be written"),
        boot(tmp_path / "file"),
    ):
        pass


def test_names_in_one_second_have_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neurogate.telemetry.log_files._NAMES_MAX", 1)
    with boot(tmp_path), pytest.raises(ConfigError, match="too many processes"), boot(tmp_path):
        pass


def open_files() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_nothing_stays_open(tmp_path: Path) -> None:
    before = open_files()
    with boot(tmp_path):
        pass
    assert open_files() == before

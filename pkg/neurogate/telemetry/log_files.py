"""Log files in one directory: what a process itself logs, and what its engine writes.

    LOG_DIR/_boot/YYYYMMDD_HHMMSS_boot_HOST.log
    LOG_DIR/llama-TYPE/YYYYMMDD_HHMMSS_server_HOST.log

Every process begins a file of its own, named by its start in UTC; `latest.txt` beside it leads to the newest. A file is
locked while its process lives: of old files only those without a lock are removed.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import structlog

from neurogate.errors import ConfigError
from neurogate.telemetry.line_writer import LineWriter
from neurogate.telemetry.rotating_file import Output, RotatingFile, open_append
from neurogate.telemetry.settings import LogFileSettings
from neurogate.telemetry.writable import check_directory

LATEST = "latest.txt"
_NAMES_MAX = 1000
"""Processes of one host that may begin a file within the same second."""
_WAITING_MAX = 10_000

Copy = Callable[[str], None]
"""Takes a text with its line end. Never blocks, never fails."""


class EngineLog:
    """An engine's log whose lines go to a file, too: as the engine wrote them, and between them what became of it."""

    def __init__(self, log: structlog.typing.FilteringBoundLogger, copy: Copy) -> None:
        self._log = log
        self._copy = copy

    def debug(self, event: str, **fields: object) -> None:
        """Log and copy."""
        self._write(event, fields)
        self._log.debug(event, **fields)

    def info(self, event: str, **fields: object) -> None:
        """Log and copy."""
        self._write(event, fields)
        self._log.info(event, **fields)

    def warning(self, event: str, **fields: object) -> None:
        """Log and copy."""
        self._write(event, fields)
        self._log.warning(event, **fields)

    def error(self, event: str, **fields: object) -> None:
        """Log and copy."""
        self._write(event, fields)
        self._log.error(event, **fields)

    def _write(self, event: str, fields: dict[str, object]) -> None:
        line = fields.get("line")
        if line is None:
            line = " ".join([f"neurogate: {event}", *(f"{name}={value}" for name, value in fields.items())])
        self._copy(f"{line}\n")


def check(settings: LogFileSettings) -> None:
    """Raise ConfigError when the files could not be made; nothing is written."""
    if settings.directory:
        directory = Path(settings.directory).expanduser() / "_boot"
        try:
            check_directory(directory)
        except OSError as error:
            raise _unwritable(directory, error) from error


@contextmanager
def boot_log(settings: LogFileSettings, *, host: str, now: Callable[[], float]) -> Iterator[Copy | None]:
    """This process's own log file while the block runs; None where no files are wanted. Blocks a while at the end.

    Raises ConfigError when the file cannot be made.
    """
    with _log_file(settings, "_boot", "boot", host=host, now=now) as copy:
        yield copy


@contextmanager
def engine_log(
    settings: LogFileSettings, *, kind: str, host: str, now: Callable[[], float]
) -> Iterator[EngineLog | None]:
    """The log to give to a managed engine while the block runs; None where no files are wanted. Blocks at the end.

    `kind` is the TYPE in the directory's name. Raises ConfigError when the file cannot be made.
    """
    with _log_file(settings, f"llama-{_plain(kind)}", "server", host=host, now=now) as copy:
        yield None if copy is None else EngineLog(structlog.get_logger("neurogate.engine"), copy)


@contextmanager
def _log_file(
    settings: LogFileSettings, name: str, label: str, *, host: str, now: Callable[[], float]
) -> Iterator[Copy | None]:
    if not settings.directory:
        yield None
        return
    directory = Path(settings.directory).expanduser() / name
    try:
        path = _new_file(directory, f"{_stamp(now())}_{label}_{_plain(host)}")
        file = RotatingFile(path, max_bytes=settings.max_bytes, keep=1, opener=_open_locked)
        point_to(path)
        prune(directory, label, settings.keep)
    except OSError as error:
        raise _unwritable(directory, error) from error
    writer = LineWriter(file, _encoded, name=str(path), max_waiting=_WAITING_MAX)
    writer.start()
    try:
        yield writer.write
    finally:
        writer.close()


def _unwritable(directory: Path, error: OSError) -> ConfigError:
    return ConfigError(f"NEUROGATE_LOG_DIR: {directory} cannot be written: {error.strerror}")


def point_to(path: Path) -> None:
    """Make `latest.txt` lead to a file beside it, all at once: a link, or a text where there are no links."""
    latest = path.with_name(LATEST)
    draft = path.with_name(f".{path.name}.latest")
    try:
        draft.symlink_to(path.name)
    except OSError:
        draft.write_text(f"{path}\n")
    draft.replace(latest)


def prune(directory: Path, label: str, keep: int) -> None:
    """Remove all but the newest `keep` log files of a directory, and none that a process has open."""
    pattern = re.compile(rf"\d{{8}}_\d{{6}}_{label}_.*\.log")
    names = sorted((path.name for path in directory.iterdir() if pattern.fullmatch(path.name)), reverse=True)
    for name in names[keep:]:
        with suppress(OSError):  # another process is at it, or it is not ours
            if _is_free(directory / name):
                (directory / name).unlink()
                (directory / f"{name}.1").unlink(missing_ok=True)


def _new_file(directory: Path, stem: str) -> Path:
    """A file that did not exist before, in a directory that does now."""
    directory.mkdir(parents=True, exist_ok=True)
    for number in range(1, _NAMES_MAX + 1):
        path = directory / (f"{stem}.log" if number == 1 else f"{stem}-{number}.log")
        with suppress(FileExistsError):
            path.touch(mode=0o640, exist_ok=False)
            return path
    raise FileExistsError(17, "too many processes began a log file in the same second")


def _open_locked(path: Path) -> tuple[Output, int]:
    file, size = open_append(path)
    with suppress(OSError):  # a file system without locks
        fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    return file, size


def _is_free(path: Path) -> bool:
    number = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(number)
    return True


def _stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y%m%d_%H%M%S")


def _plain(name: str) -> str:
    """A name that is good for a file's, wherever it comes from."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "unknown"


def _encoded(text: str) -> bytes:
    return text.encode(errors="replace")

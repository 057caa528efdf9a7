"""Changing the key file: one locked edit at a time, written all or nothing.

Only the line in question changes; the rest of the file, comments and bad lines too, stays as it is. A gateway that
reads meanwhile sees the file of before or the file of after.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from neurogate.edge.keyfile import KeyLine, parse
from neurogate.errors import NeuroGateError

_HEADER = "# key_id:api_key[:rate_limit][:expiry] [tpm= concurrent= monthly= models= routes= priority=]"
MODE = 0o600
"""Of the file, once it is written."""
_SWAPS_MAX = 100
"""How often the file may be replaced by others while its lock is waited for."""


class KeyFileError(NeuroGateError):
    """The file cannot be read or changed as asked. The message has no key in it."""


class Draft:
    """The lines of a file that is being changed; `mode` is what it has so far."""

    def __init__(self, text: str, *, mode: int = MODE) -> None:
        self.tightened = bool(mode & ~MODE & 0o777)
        """Whether others than its owner could read or write the file until now."""
        self._lines = text.split("\n")
        if self._lines[-1] == "":
            self._lines.pop()
        self._found = {line.key.caller.key_id: line for line in parse(text).lines}

    @property
    def text(self) -> str:
        """The file as it is to be; a file that loses its last key keeps a comment, which says that this is meant."""
        lines = self._lines if any(line.strip() for line in self._lines) else [_HEADER]
        return "\n".join(lines) + "\n"

    def find(self, key_id: str) -> tuple[KeyLine, str]:
        """A key's line, read and as it is written. Raises KeyFileError when there is none."""
        line = self._found.get(key_id)
        if line is None:
            there = ", ".join(self._found) or "none"
            raise KeyFileError(f"there is no key with the id {key_id!r}; there are: {there}")
        return line, self._lines[line.number - 1]

    def add(self, key_id: str, line: str) -> None:
        """Append a line. Raises KeyFileError when the id is taken."""
        if key_id in self._found:
            raise KeyFileError(
                f"there is a key with the id {key_id!r} already: rotate or remove it, or take another id"
            )
        self._lines += [line] if self._lines else [_HEADER, line]

    def put(self, number: int, line: str) -> None:
        """Write another line in the place of this one."""
        self._lines[number - 1] = line

    def remove(self, number: int) -> None:
        """Take a line out."""
        del self._lines[number - 1]


def read(path: Path) -> str:
    """The file's text. Raises KeyFileError."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _failure(path, error, "read") from error


@contextmanager
def editing(path: Path, *, create: bool = False) -> Iterator[Draft]:
    """Change a file: what the draft is when the block ends without an exception is what the file will be.

    Waits while another edit is under way. A link is followed, and stays. The file, which `create` allows to be a new
    one, is for its owner alone from then on, whatever mode it had; its owner stays. Raises KeyFileError.
    """
    path = path.resolve()
    try:
        locked = _lock(path, create=create)
        try:
            before = os.fstat(locked)
            draft = Draft(read(path), mode=stat.S_IMODE(before.st_mode))
            yield draft
            _replace(path, draft.text.encode(), before)
        finally:
            os.close(locked)
    except OSError as error:
        raise _failure(path, error, "changed") from error


def open_to_others(path: Path) -> bool:
    """Whether any user of this machine may read or write the file."""
    return bool(path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH))


def _lock(path: Path, *, create: bool) -> int:
    """The open, locked file that has this path now: while it is waited for, the path may be given to another file."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_CREAT if create else 0)
    for _ in range(_SWAPS_MAX):
        locked = os.open(path, flags, 0o600)
        try:
            if _locks(locked, path):
                return locked
        except BaseException:
            os.close(locked)
            raise
        os.close(locked)
    raise KeyFileError(f"{path} is changed by others all the time")


def _locks(number: int, path: Path) -> bool:
    if not stat.S_ISREG(os.fstat(number).st_mode):
        raise KeyFileError(f"{path} is not a file")
    fcntl.flock(number, fcntl.LOCK_EX)
    return os.path.samestat(os.fstat(number), path.stat())


def _replace(path: Path, data: bytes, before: os.stat_result) -> None:
    number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data)
            file.flush()
            with suppress(PermissionError):  # whoever may not give a file away keeps it
                os.fchown(number, before.st_uid, before.st_gid)
            os.fchmod(number, MODE)
            os.fsync(number)
        Path(name).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _failure(path: Path, error: OSError | UnicodeDecodeError, what: str) -> KeyFileError:
    why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
    return KeyFileError(f"{path} cannot be {what}: {why}")

"""A file that grows to a size, then becomes the first of a bounded row of old ones.

It is written by one thread, and whole lines at a time. A write that fails loses its lines and may leave part of one;
the next write that works begins on a line of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, cast

STANDARD_OUTPUT = Path("-")
_STDOUT = 1


class Output(Protocol):
    """What is used of an unbuffered binary file."""

    def write(self, data: bytes, /) -> int | None:
        """Take some of the data and say how much; None when none can be taken now. Raises OSError."""
        ...

    def close(self) -> None:
        """Raises OSError."""
        ...


Opener = Callable[[Path], tuple[Output, int]]
"""Gives a file, positioned at its end, and its size. Raises OSError."""


class FileOutput(Output, Protocol):
    """One that the system knows by a number."""

    def fileno(self) -> int:
        """That number."""
        ...


def open_append(path: Path) -> tuple[FileOutput, int]:
    """The file, made with its directories when it is not there; `-` is standard output."""
    if path == STANDARD_OUTPUT:
        return open(_STDOUT, "ab", buffering=0, closefd=False), 0
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "ab", buffering=0, opener=_for_owner_and_group)  # noqa: SIM115 - the caller closes it
    return file, os.fstat(file.fileno()).st_size


class RotatingFile:
    """Lines in `path`; `path.1` is the newest of at most `keep` old files. `max_bytes` 0 never rotates."""

    def __init__(self, path: Path, *, max_bytes: int, keep: int, opener: Opener = open_append) -> None:
        """Opens the file. Raises OSError."""
        self.path = path
        self._max_bytes = 0 if path == STANDARD_OUTPUT else max_bytes
        self._keep = keep
        self._opener = opener
        self._torn = False
        self._output: Output | None = None
        self._size = 0
        self._rotate_at = self._max_bytes
        self._open()

    def __repr__(self) -> str:
        return f"<RotatingFile {self.path} {self._size} bytes>"

    def append(self, lines: Sequence[bytes]) -> None:
        """Write lines, each with its end, and rotate before the one that would make the file too large.

        May block. Raises OSError, and then any number of the lines is lost.
        """
        self._open()
        whole = b"".join(lines)
        if not self._max_bytes or self._size + len(whole) <= self._rotate_at:
            self._write(whole)
            return
        batch: list[bytes] = []
        size = self._size
        for line in lines:
            if size and size + len(line) > self._rotate_at:
                self._write(b"".join(batch))
                self._rotate()
                batch, size = [], self._size
            batch.append(line)
            size += len(line)
        self._write(b"".join(batch))

    def reopen(self) -> None:
        """Go on in the file that has the name now: another program has moved the old one away. Raises OSError."""
        self.close()
        self._open()

    def close(self) -> None:
        """Let go of the file; the next write opens it again."""
        output, self._output = self._output, None
        if output is not None:
            with suppress(OSError):  # what could not be written cannot be saved now
                output.close()

    def _open(self) -> Output:
        if self._output is None:
            self._output, self._size = self._opener(self.path)
            self._torn = self._torn and self._size > 0
            self._rotate_at = self._max_bytes
        return self._output

    def _write(self, data: bytes) -> None:
        if not data:
            return
        output = self._open()
        left = memoryview(b"\n" + data if self._torn else data)
        try:
            while left:
                written = output.write(cast("bytes", left))
                if written is None:
                    raise BlockingIOError(f"{self.path} takes nothing now")
                left = left[written:]
                self._size += written
                self._torn = bool(left)
        except OSError:
            self.close()  # the next write tries a fresh one: this may be a mount that is gone
            raise

    def _rotate(self) -> None:
        """Make room. Where files cannot be renamed this one goes on to grow: lines are worth more than its size."""
        self.close()
        with suppress(OSError):
            for number in range(self._keep, 0, -1):
                older = self._numbered(number - 1)
                if older.exists():
                    older.replace(self._numbered(number))
            if not self._keep:
                self.path.unlink()
        self._open()
        self._rotate_at = self._max_bytes + self._size

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}") if number else self.path


def _for_owner_and_group(path: str, flags: int) -> int:
    return os.open(path, flags, 0o640)

"""Whether a file could be written, found out without making one.

A file without a name (`O_TMPFILE`) is the honest question where a file system has it: permissions are not all that can
forbid a file, and nothing is left behind. Elsewhere permissions are all that is asked.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

_UNKNOWN = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL})
"""What a file system says that has no files without names."""


def check_file(path: Path) -> None:
    """Raise OSError when the file could not be appended to, or made with its directories."""
    if path.is_dir():
        raise _error(errno.EISDIR, path)
    if path.exists():
        if not os.access(path, os.W_OK):
            raise _error(errno.EACCES, path)
        return
    check_directory(path.parent)


def check_directory(path: Path) -> None:
    """Raise OSError when no file could be made in the directory, which may have to be made itself."""
    nearest = next((part for part in (path, *path.parents) if part.exists()), Path())
    if not nearest.is_dir():
        raise _error(errno.ENOTDIR, nearest)
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise _error(errno.EACCES, nearest)
    nameless = getattr(os, "O_TMPFILE", None)  # Linux
    if nameless is None:
        return
    try:
        os.close(os.open(nearest, os.O_WRONLY | nameless, 0o600))
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
        if _holds_nothing(nearest):
            raise _error(errno.EROFS, nearest) from error


def _holds_nothing(directory: Path) -> bool:
    """Whether it is of a file system of the kernel's own, such as /proc: those have no room at all."""
    with suppress(OSError):
        found = os.statvfs(directory)
        return found.f_blocks == 0 and found.f_files == 0
    return False


def _error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))

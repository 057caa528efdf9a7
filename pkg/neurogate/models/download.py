"""A download that goes on where it broke off.

Bytes are appended to a partial file that survives the process; the next attempt asks for the rest. What arrived is
only believed when its SHA-256 is right.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from neurogate.models.errors import ModelError, SourceError
from neurogate.models.progress import Watch

if TYPE_CHECKING:
    import httpx

_ATTEMPTS = 5
_PAUSE_S = 1.0


@contextmanager
def disk_errors(directory: Path) -> Iterator[None]:
    """Says in words what an OSError means for the person who owns the disk."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise ModelError(
                f"the disk of {directory} is full: free some space, or set NEUROGATE_MODEL_DIR to another disk"
            ) from error
        raise ModelError(
            f"{directory} cannot be used ({error}): set NEUROGATE_MODEL_DIR to another directory"
        ) from error


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(
    client: httpx.Client,
    url: str,
    target: Path,
    *,
    sha256: str,
    watch: Watch,
    pause_s: float = _PAUSE_S,
) -> None:
    """Get `url` into `target`, going on from what `target` already holds.

    Attempts that bring nothing are limited; one that brought bytes starts the count again. An empty `sha256` is not
    checked. Raises SourceError when it cannot be had or is not what it should be, ModelError when the disk is full or
    the watch stops it; whatever arrived stays in `target` for the next call, unless it is wrong.
    """
    resumed = _size(target) > 0
    _complete(client, url, target, watch, pause_s)
    if sha256 and sha256_of(target) != sha256:
        target.unlink()
        if not resumed:
            raise SourceError(f"{target.name} arrived damaged: its SHA-256 is not {sha256}")
        download(client, url, target, sha256=sha256, watch=watch, pause_s=pause_s)


class _InterruptedError(SourceError):
    """Another attempt may get further."""


def _complete(client: httpx.Client, url: str, target: Path, watch: Watch, pause_s: float) -> None:
    failures = 0
    while True:
        watch.check()
        before = _size(target)
        try:
            _attempt(client, url, target, watch)
        except _InterruptedError:
            failures = 1 if _size(target) > before else failures + 1
            if failures >= _ATTEMPTS:
                raise
            watch.stop.wait(pause_s * failures)
        else:
            return


def _attempt(client: httpx.Client, url: str, target: Path, watch: Watch) -> None:
    import httpx

    have = _size(target)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with client.stream("GET", url, headers=headers, follow_redirects=True) as answer:
            if answer.status_code not in {200, 206, 416}:
                permanent = answer.status_code < 500 and answer.status_code not in {408, 429}
                error_type = SourceError if permanent else _InterruptedError
                raise error_type(f"{answer.url.host} answered {answer.status_code}")
            begin, total = _extent(answer)
            if answer.status_code == 416 and total == have:
                return  # nothing is missing
            if begin not in {0, have}:
                target.unlink(missing_ok=True)
                raise _InterruptedError(f"{answer.url.host} cannot go on from byte {have}")
            _save(answer, target, begin, total, watch)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _InterruptedError(f"the download broke off: {str(error) or type(error).__name__}") from error


def _save(answer: httpx.Response, target: Path, begin: int, total: int, watch: Watch) -> None:
    done = begin
    with disk_errors(target.parent), target.open("ab" if begin else "wb") as file:
        for chunk in answer.iter_raw():
            watch.check()
            file.write(chunk)
            done += len(chunk)
            watch.progress("downloading", done, total)
    if total and done != total:
        raise _InterruptedError(f"the download broke off after {done} of {total} bytes")


def _extent(answer: httpx.Response) -> tuple[int, int]:
    """The first byte of the body and the size of the whole file; -1 and 0 when unknown."""
    if answer.status_code == 200:
        return 0, int(answer.headers.get("content-length", "0"))
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", answer.headers.get("content-range", ""))
    if found is None:
        return -1, 0
    return int(found[1] or -1), 0 if found[2] == "*" else int(found[2])


def _size(target: Path) -> int:
    try:
        return target.stat().st_size
    except FileNotFoundError:
        return 0

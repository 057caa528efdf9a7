"""How a download is shown: a bar on a terminal, a line per quarter in a log."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from neurogate.models.errors import ModelError

if TYPE_CHECKING:
    from rich.console import Console


class Progress(Protocol):
    """Called with what is being done, the bytes done so far and the bytes in all (0 when unknown)."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Must be quick: it is called for every chunk, from the fetching thread."""
        ...


def silent(what: str, done: int, total: int) -> None:
    """Shows nothing."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Who watches a fetch, and may end it."""

    progress: Progress = silent
    stop: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raises ModelError once nobody wants the file any more."""
        if self.stop.is_set():
            raise ModelError("fetching was stopped")


@contextmanager
def shown(console: Console) -> Iterator[Progress]:
    """Shows progress on `console` until the block ends."""
    if console.is_interactive:  # a terminal, and no dumb one
        with _bars(console) as progress:
            yield progress
    else:
        yield _Lines(console)


@contextmanager
def _bars(console: Console) -> Iterator[Progress]:
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        tasks = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what)
            bars.update(tasks[what], completed=done, total=total or None)

        yield progress


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: tuple[str, int] | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        quarter = done * 4 // total if total else 0
        if (what, quarter) != self._last:
            self._last = (what, quarter)
            share = f" {quarter * 25:3d}%" if total else ""
            self._console.print(f"{what}{share}", highlight=False)

"""Writing lines to a disk that may be slow, full or gone, without ever waiting for it.

What is to be written goes into a bounded queue; a thread of its own makes it text and writes it. When the queue is full
or the disk refuses, lines are lost and counted, and that is said once, until all is well again. The thread sleeps a
moment before it takes what has gathered: the writing side wakes it once for all of that, not once a line.
"""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import structlog

GATHER_S = 0.1
_BATCH = 256
"""Lines made and written at once, so that a hanging disk holds few beside the queue."""

ItemT = TypeVar("ItemT")

_log = structlog.get_logger("neurogate.telemetry")


class LineFile(Protocol):
    """Where lines go; used by one thread."""

    def append(self, lines: Sequence[bytes]) -> None:
        """Write lines, each with its end. May block. Raises OSError, and then any number of them is lost."""
        ...

    def reopen(self) -> None:
        """Go on in the file that has the name now. Raises OSError."""
        ...

    def close(self) -> None:
        """Let go of the file; raises nothing."""
        ...


def _ignore(_: int) -> None:
    """For who does not count."""


class LineWriter(Generic[ItemT]):
    """One file's queue and thread. `render` makes an item a line with its end, in that thread; it must not raise.

    `on_loss` hears how many lines were lost, from any thread.
    """

    def __init__(
        self,
        file: LineFile,
        render: Callable[[ItemT], bytes],
        *,
        name: str,
        max_waiting: int,
        on_loss: Callable[[int], None] = _ignore,
        gather_s: float = GATHER_S,
    ) -> None:
        self._file = file
        self._render = render
        self._name = name
        self._max_waiting = max_waiting
        self._on_loss = on_loss
        self._gather_s = gather_s
        self._waiting: deque[ItemT] = deque()
        self._wake = threading.Event()
        self._awake = False
        self._stop = threading.Event()
        self._reopen = False
        self._full = False
        self._failing = False
        self._refused = 0
        self._lost = 0
        context = contextvars.copy_context()  # for the fields that every line of the process's log has
        self._thread = threading.Thread(target=context.run, args=(self._run,), name=f"log {name}", daemon=True)

    def __repr__(self) -> str:
        return f"<LineWriter {self._name} [{len(self._waiting)} waiting, {self.lost} lost]>"

    @property
    def lost(self) -> int:
        """Lines lost so far, for want of room or disk."""
        return self._refused + self._lost

    def start(self) -> None:
        """Start the thread, once."""
        self._thread.start()

    def write(self, item: ItemT) -> None:
        """Take an item; never blocks. Several threads may, at the price of an inexact count of losses."""
        if len(self._waiting) >= self._max_waiting:
            self._refuse()
            return
        self._waiting.append(item)
        if not self._awake:
            self._awake = True
            self._wake.set()

    def reopen(self) -> None:
        """Before the next line, go on in the file that has the name now."""
        self._reopen = True
        self._wake.set()

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what waits and end the thread. Blocks while that takes, at most `timeout_s`: nothing for an event loop.

        A disk that hangs is left behind with its thread, and the lines that wait for it are lost.
        """
        self._stop.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        left = len(self._waiting)
        if left:
            self._refused += left
            self._on_loss(left)
            _log.warning("log lines are lost: the disk hangs", log=self._name, lost_in_all=self.lost)

    def _refuse(self) -> None:
        self._refused += 1
        self._on_loss(1)
        if not self._full:
            self._full = True
            _log.warning("log lines are lost: the disk does not keep up", log=self._name, waiting=self._max_waiting)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            self._stop.wait(self._gather_s)
            self._wake.clear()
            self._awake = False  # before looking: what comes from now on wakes again
            self._write_all()
        self._write_all()
        self._file.close()

    def _write_all(self) -> None:
        if self._reopen:
            self._reopen = False
            self._try(self._file.reopen, lines=0)
        while self._waiting:
            lines = [self._render(self._waiting.popleft()) for _ in range(min(_BATCH, len(self._waiting)))]
            self._try(lambda lines=lines: self._file.append(lines), lines=len(lines))  # type: ignore[misc]
        if self._full:
            self._full = False
            _log.warning("log lines were lost", log=self._name, lost_in_all=self.lost)

    def _try(self, act: Callable[[], None], *, lines: int) -> None:
        try:
            act()
        except OSError as error:
            self._lost += lines
            self._on_loss(lines)
            if not self._failing:
                self._failing = True
                _log.error("log lines are lost: the file cannot be written", log=self._name, reason=str(error))
            return
        if self._failing:
            self._failing = False
            _log.warning("the file can be written again", log=self._name, lost_in_all=self.lost)

"""Handing spans to a receiver that may be slow or gone, without anybody waiting for it.

Spans go into a bounded queue; a thread of its own takes what has gathered and exports it. What finds the queue full,
and what the receiver does not take, is lost and counted, and that is said once, until all is well again.
"""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from neurogate.telemetry.spans import Span

GATHER_S = 1.0
_BATCH = 512
_WAITING_MAX = 8192
"""Spans: a few MiB, and some seconds of a busy gateway that samples a tenth of its requests."""

CLOSE_S = 3.0
"""What a process may be held up at its end."""

_GRACE_S = 0.5
"""Of those, for an export to notice that it is to stop."""

_log = structlog.get_logger("neurogate.telemetry")


class SpanExporter(Protocol):
    """Where spans go; used by one thread, but for `close`."""

    def export(self, spans: Sequence[Span]) -> str:
        """Hand spans on. May block. Gives why they are lost; empty when they arrived. An exception is a reason too."""
        ...

    def close(self) -> None:
        """Let go of everything, from any thread: an export that goes on gives up soon."""
        ...


class SpanWriter:
    """One exporter's queue and thread. `on_loss` hears how many spans were lost, from any thread."""

    def __init__(
        self,
        exporter: SpanExporter,
        *,
        on_loss: Callable[[int], None],
        waiting_max: int = _WAITING_MAX,
        gather_s: float = GATHER_S,
    ) -> None:
        self._exporter = exporter
        self._on_loss = on_loss
        self._waiting_max = waiting_max
        self._gather_s = gather_s
        self._waiting: deque[Span] = deque()
        self._under_way = 0
        self._work = threading.Event()
        self._hurry = threading.Event()
        self._stopping = False
        self._full = False
        self._failing = False
        self._refused = 0
        self._lost = 0
        context = contextvars.copy_context()  # for the fields that every line of the process's log has
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="spans", daemon=True)

    def __repr__(self) -> str:
        return f"<SpanWriter [{len(self._waiting)} waiting, {self.lost} lost]>"

    @property
    def lost(self) -> int:
        """Spans lost so far."""
        return self._refused + self._lost

    def start(self) -> None:
        """Start the thread, once."""
        self._thread.start()

    def put(self, spans: Sequence[Span]) -> None:
        """Take spans, from one thread; never blocks."""
        if len(self._waiting) + len(spans) > self._waiting_max:
            self._refuse(len(spans))
            return
        self._waiting.extend(spans)
        if not self._work.is_set():
            self._work.set()
        if len(self._waiting) >= _BATCH and not self._hurry.is_set():
            self._hurry.set()

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Export what waits and end the thread. Blocks while that takes, at most `timeout_s`.

        A receiver that hangs is left behind with its thread, and the spans that wait for it are lost.
        """
        self._stopping = True
        self._hurry.set()
        self._work.set()
        if self._thread.ident is not None:
            self._thread.join(max(0.0, timeout_s - _GRACE_S))
        self._exporter.close()
        if self._thread.ident is not None:
            self._thread.join(min(_GRACE_S, timeout_s))
        left = len(self._waiting) + self._under_way
        if left:
            self._waiting.clear()
            self._refused += left
            self._on_loss(left)
            _log.warning("spans are lost: there was no time to export them", spans=left, lost_in_all=self.lost)

    def _refuse(self, count: int) -> None:
        self._refused += count
        self._on_loss(count)
        if not self._full:
            self._full = True
            _log.warning("spans are lost: the receiver does not keep up", waiting=self._waiting_max)

    def _run(self) -> None:
        while not self._stopping:
            self._work.wait()
            self._hurry.wait(self._gather_s)
            self._work.clear()  # before looking: what comes from now on sets them again
            self._hurry.clear()
            self._export_all()
        self._export_all()

    def _export_all(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            self._under_way = len(batch)
            self._told(self._export(batch), len(batch))
            self._under_way = 0
        if self._full:
            self._full = False
            _log.warning("spans were lost", lost_in_all=self.lost)

    def _export(self, batch: Sequence[Span]) -> str:
        try:
            return self._exporter.export(batch)
        except Exception as error:  # noqa: BLE001 - a bug costs this batch; without the thread all that follow were lost
            return f"{type(error).__name__}: {error}"

    def _told(self, why: str, count: int) -> None:
        if why:
            self._lost += count
            self._on_loss(count)
            if not self._failing:
                self._failing = True
                _log.error("spans are lost: the receiver does not take them", reason=why)
        elif self._failing:
            self._failing = False
            _log.warning("the receiver takes spans again", lost_in_all=self.lost)

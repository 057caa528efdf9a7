"""When a dead engine is started again, and when that is pointless. Pure: no process and no clock.

| it died                        | what follows                                                        |
|--------------------------------|---------------------------------------------------------------------|
| saying it can never work       | fatal, unless it has worked before                                  |
| before it ever was ready       | again after the backoff; fatal at the third time in a row           |
| because it hung                | the same as if it had died by itself                                |
| after it had been ready once   | again after the backoff, for ever                                   |

The backoff doubles from 0.5 s to 30 s and begins anew after a minute of health.
"""

from __future__ import annotations

import enum
import signal
from dataclasses import dataclass

from neurogate.engines.engine import EngineFatalError
from neurogate.engines.llamacpp import oom
from neurogate.engines.llamacpp.contract import EXIT_ENGINE_MISSING, EXIT_MODEL_UNUSABLE

BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0
HEALTHY_S = 60.0
STARTS_MAX = 3

_POINTLESS = frozenset({EXIT_MODEL_UNUSABLE, EXIT_ENGINE_MISSING})


class Cause(enum.Enum):
    """Why a process died, in a word."""

    EXIT = "exit"
    SIGNAL = "signal"
    MEMORY = "out of memory"
    HUNG = "hung"
    LOADING = "loading"
    """It did not become ready in time."""


@dataclass(frozen=True, slots=True)
class Death:
    """How one life ended."""

    status: int
    """The exit status; negative for the signal that killed it."""
    ready_s: float | None
    """Seconds it was ready; None when it never was."""
    last_words: str
    out_of_memory: bool = False
    """The kernel or the engine itself says so."""
    killed_for: str = ""
    """Why the worker killed it; empty when it died by itself."""
    overdue: bool = False
    """It was killed because it did not become ready in time."""

    @property
    def cause(self) -> Cause:
        """For whoever counts."""
        if self.killed_for:
            return Cause.LOADING if self.overdue else Cause.HUNG
        if self.out_of_memory:
            return Cause.MEMORY
        return Cause.EXIT if self.status >= 0 else Cause.SIGNAL

    def __str__(self) -> str:
        if self.killed_for:
            return f"it hung: {self.killed_for}"
        if self.out_of_memory:
            return oom.ADVICE
        if self.status >= 0:
            return f"it exited with status {self.status}"
        hint = ", which often means that memory ran out" if self.status == -signal.SIGKILL else ""
        return f"it was killed by {_signal_name(-self.status)}{hint}"


_SILENT = "it said nothing (is it a llama-server?)"


class RestartPolicy:
    """Counts deaths and decides what follows."""

    def __init__(self) -> None:
        self._worked = False
        self._failed_starts = 0
        self._delay_s = 0.0

    def after(self, death: Death) -> float:
        """Seconds to wait before the next start. Raises EngineFatalError when there should be none."""
        if death.ready_s is not None:
            self._worked = True
        if not self._worked:
            self._failed_starts += 1
            if death.status in _POINTLESS:
                why = f"{oom.ADVICE}: " if death.out_of_memory else ""
                raise EngineFatalError(f"the engine cannot start: {why}{death.last_words or _SILENT}")
            if self._failed_starts >= STARTS_MAX:
                words = death.last_words or _SILENT
                raise EngineFatalError(
                    f"the engine died {STARTS_MAX} times before it was ready; last, {death}: {words}"
                )
        if death.ready_s is not None and death.ready_s >= HEALTHY_S:
            self._delay_s = 0.0
        self._delay_s = min(BACKOFF_MAX_S, self._delay_s * 2 or BACKOFF_FIRST_S)
        return self._delay_s


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

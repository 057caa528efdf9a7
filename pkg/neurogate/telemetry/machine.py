"""How busy the machine is, as Linux tells it; where nobody tells, nothing is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

WINDOW_S = 1.0
"""Shortest time that CPU usage is taken over, however often somebody looks."""

_CPU_FIELDS = 8
"""user, nice, system, idle, iowait, irq, softirq, steal; guests are counted within user already."""


class Machine:
    """CPU and memory of the machine, for vitals."""

    def __init__(self, *, now: Callable[[], float], proc: Path = Path("/proc")) -> None:
        """`now` is any clock that only goes forward, in seconds."""
        self._now = now
        self._proc = proc
        self._since = now()
        self._before = self._times()
        self._cpu: float | None = None

    def vitals(self) -> dict[str, float]:
        """`cpu_usage`, busy time of all cores since the last look, and `memory_usage`: both in percent.

        What the machine does not tell is left out. Reads two small files of /proc.
        """
        told = {"cpu_usage": self._cpu_usage(), "memory_usage": self._memory_usage()}
        return {name: round(value, 1) for name, value in told.items() if value is not None}

    def _cpu_usage(self) -> float | None:
        """The share of the window that is over, or of the first one as far as it has come."""
        now = self._now()
        if now - self._since < WINDOW_S and self._cpu is not None:
            return self._cpu
        times, before = self._times(), self._before
        if times is None or before is None or times[1] <= before[1]:
            return self._cpu
        self._cpu = 100 * min(1.0, max(0.0, (times[0] - before[0]) / (times[1] - before[1])))
        self._since, self._before = now, times
        return self._cpu

    def _times(self) -> tuple[int, int] | None:
        """(busy, all) time of all cores since the machine began."""
        try:
            words = (self._proc / "stat").read_text().split(maxsplit=_CPU_FIELDS + 1)[: _CPU_FIELDS + 1]
            times = [int(word) for word in words[1:]]
            idle = times[3] + times[4]
        except (OSError, ValueError, IndexError):
            return None
        return sum(times) - idle, sum(times)

    def _memory_usage(self) -> float | None:
        try:
            lines = (self._proc / "meminfo").read_text().splitlines()
            kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
            return 100 * (1 - kilobytes["MemAvailable"] / kilobytes["MemTotal"])
        except (OSError, ValueError, LookupError, ZeroDivisionError):
            return None

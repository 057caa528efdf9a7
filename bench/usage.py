"""What processes have used, from /proc: steadier than latency or rate on a shared machine.

A *family* is a process with all its descendants. CPU time is the scheduler's own account of each thread in nanoseconds
(`schedstat`); ticks of 10 ms, which also hold threads that have ended, are believed where the two differ.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")
_GONE = (FileNotFoundError, ProcessLookupError)
"""Of a process that has ended meanwhile."""


@dataclass(frozen=True)
class Cpu:
    """CPU time of a family up to a moment."""

    threads: Mapping[int, int]
    """Nanoseconds of each thread that lives."""
    ticks: int


@dataclass(frozen=True)
class Memory:
    """Memory of a family; shared pages count for each process in `rss_mib`, and once in `pss_mib`."""

    rss_mib: float
    peak_mib: float
    """The most that was resident since `forget_peaks`."""
    pss_mib: float


def family(roots: Iterable[int]) -> list[int]:
    """The processes of these roots and their descendants that are alive."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, ahead = [], list(roots)
    while ahead:
        found.append(ahead.pop())
        ahead += children.get(found[-1], [])
    return [pid for pid in found if (_PROC / str(pid)).exists()]


def cpu_of(pids: Iterable[int]) -> Cpu:
    """What these processes have used so far."""
    threads: dict[int, int] = {}
    ticks = 0
    for pid in pids:
        if fields := _stat(pid):
            ticks += int(fields[11]) + int(fields[12])
        with suppress(*_GONE):
            for task in (_PROC / str(pid) / "task").iterdir():
                with suppress(*_GONE):
                    threads[int(task.name)] = int((task / "schedstat").read_text().split()[0])
    return Cpu(threads, ticks)


def seconds_between(before: Cpu, after: Cpu) -> float:
    """CPU seconds used between two readings of the same processes."""
    exact = sum(spent - before.threads.get(thread, 0) for thread, spent in after.threads.items()) / 1e9
    coarse = (after.ticks - before.ticks) * _TICK_S
    return coarse if coarse - exact > 0.05 + 0.02 * coarse else exact


def memory_of(pids: Iterable[int]) -> Memory:
    """What these processes hold now."""
    rss = peak = pss = 0
    for pid in pids:
        with suppress(*_GONE):
            status = _sizes(_PROC / str(pid) / "status")
            rss += status.get("VmRSS", 0)
            peak += status.get("VmHWM", 0)
            pss += _sizes(_PROC / str(pid) / "smaps_rollup").get("Pss", 0)
    return Memory(rss / 1024, peak / 1024, pss / 1024)


def forget_peaks(pids: Iterable[int]) -> None:
    """Let `Memory.peak_mib` begin anew."""
    for pid in pids:
        with suppress(*_GONE):
            (_PROC / str(pid) / "clear_refs").write_text("5")


def machine_busy() -> tuple[float, float]:
    """CPU seconds the machine spent so far: on all cores together and not idle, and stolen by its host."""
    fields = [int(field) for field in (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _, _, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) * _TICK_S, steal * _TICK_S


def _stat(pid: int) -> list[str]:
    with suppress(*_GONE):
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return []


def _sizes(path: Path) -> dict[str, int]:
    """The lines `Name: 123 kB` of a file."""
    lines = (line.split() for line in path.read_text().splitlines() if line.endswith(" kB"))
    return {words[0].rstrip(":"): int(words[1]) for words in lines}

"""Whether anything is left behind: counted from outside, against a baseline of the same fleet when it was warm."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos_support.fleet import Fleet
from cluster import Process, eventually

_SPARE_FILES = 2
"""Connections that a poll of the audit itself may have under way."""
_SPARE_TASKS = 2
RSS_GROWTH_MAX_MIB = 96.0
"""In one short scenario: buffers that the allocator keeps. The soak looks closer."""


@dataclass(frozen=True, slots=True)
class Held:
    """What one process holds."""

    files: Counter[str]
    tasks: int
    rss_mib: float

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.files.items()))
        return f"{kinds}, {self.tasks} tasks, {self.rss_mib:.0f} MiB"


def open_files(process: Process) -> Counter[str]:
    """How many of each kind a process has open."""
    kinds: Counter[str] = Counter()
    for entry in Path(f"/proc/{process.pid}/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue
        kinds[target.split(":", maxsplit=1)[0] if ":" in target else "file"] += 1
    return kinds


class Audit:
    """Takes the baseline, and later what is more than that."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._before: dict[int, Held] = {}

    async def begin(self) -> None:
        """Remember what is held now; the fleet is idle."""
        await eventually(self._idle, 20)
        for process in self._fleet.processes:
            if (held := await self._held(process)) is not None:
                self._before[process.pid] = held

    async def leaks(self, *, explained: Collection[str] = (), timeout: float = 30) -> list[str]:
        """What did not come back in that time, in words. `explained` are log events that were meant to happen."""
        left: list[str] = []

        async def clean() -> bool:
            left[:] = await self._left()
            return not left

        with contextlib.suppress(TimeoutError):
            await eventually(clean, timeout)
        return [*left, *unexplained(self._fleet, explained)]

    async def _idle(self) -> bool:
        return not await self._busy()

    async def _left(self) -> list[str]:
        left = await self._busy()
        for process in self._fleet.processes:
            before = self._before.get(process.pid)
            if before is None or process.popen.poll() is not None:
                continue  # it was started anew: nothing can be left from before
            now = await self._held(process)
            if now is None:
                left.append(f"{process.pid} does not answer")
                continue
            more = {kind: count - before.files[kind] for kind, count in now.files.items()}
            if sum(now.files.values()) > sum(before.files.values()) + _SPARE_FILES:
                left.append(f"{process.name} has more open files: {more}")
            if now.tasks > before.tasks + _SPARE_TASKS:
                left.append(f"{process.name} has {now.tasks} tasks, had {before.tasks}")
            if now.rss_mib > before.rss_mib + RSS_GROWTH_MAX_MIB:
                left.append(f"{process.name} grew from {before.rss_mib:.0f} to {now.rss_mib:.0f} MiB")
        return left

    async def _busy(self) -> list[str]:
        """What is under way anywhere that somebody tells of."""
        busy = []
        try:
            states = await self._fleet.states()
        except (OSError, ValueError, asyncio.IncompleteReadError):
            return ["the gateway does not answer"]
        for state in states:
            told: dict[str, Any] = {"in_flight": state["in_flight"]}
            if state["healthy"]:
                told |= {**state["requests"], "busy": (state["slots"] or {}).get("busy", 0)}
            if any(told.values()):
                busy.append(f"{state['id']}: {told}")
        vitals = await self._fleet.vitals(self._fleet.gateway)
        if vitals is None:
            return [*busy, "the gateway tells no vitals"]
        waits = {name: vitals["gateway"][name] for name in ("requests_active", "queue_depth")}
        return [*busy, *([f"gateway: {waits}"] if any(waits.values()) else [])]

    async def _held(self, process: Process) -> Held | None:
        vitals = await self._fleet.vitals(process)
        try:
            return Held(open_files(process), vitals["tasks"] if vitals else 0, process.rss_mib())
        except (OSError, AssertionError):
            return None


def unexplained(fleet: Fleet, explained: Collection[str]) -> list[str]:
    """Lines of the logs that tell of an error nobody meant to cause, or that are no records."""
    found: Counter[str] = Counter()
    for process in [*fleet.processes, *fleet.ended]:
        for line in list(process.lines):
            if (told := _error(line, explained)) is not None:
                found[f"{process.name}: {told}"] += 1
    return [f"{line} ({count} times)" if count > 1 else line for line, count in found.most_common(20)]


def _error(line: str, explained: Collection[str]) -> str | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None if line.startswith("listening on") or not line.strip() else line.rstrip()[:200]
    if record.get("level") not in {"error", "critical"} or record.get("event") in explained:
        return None
    kept = {key: value for key, value in record.items() if key not in {"timestamp", "request_id", "process"}}
    return json.dumps(kept)[:300]

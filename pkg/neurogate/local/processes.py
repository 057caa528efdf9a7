"""Finds every process of a fleet, whoever started it.

All of them inherit a mark in their environment, so an engine is found even after the worker that started it is gone.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

MARK = "NEUROGATE_FLEET"
"""The variable that holds a fleet's own name in each of its processes."""

_PROC = Path("/proc")


def marked(fleet: str) -> dict[int, str]:
    """The command lines of the fleet's living processes by process id; none where there is no /proc."""
    mark = f"{MARK}={fleet}".encode()
    found = {}
    for directory in _PROC.glob("[0-9]*"):
        try:
            if mark in (directory / "environ").read_bytes().split(b"\0"):
                command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                found[int(directory.name)] = command.strip()
        except OSError:  # it ended meanwhile, or is not ours
            continue
    return found


def kill(pid: int) -> None:
    """SIGKILL, which is fine for one that ended meanwhile."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return

"""How many CPU cores an engine on this machine may count on.

A container may have less CPU time than cores (`--cpus`, a limit of its pod). An engine with a thread for each core
would be throttled then, all of its threads at once. The kernel tells it in control groups' files, version 2 or 1.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

_CONTROL_GROUPS = Path("/sys/fs/cgroup")


def usable_cores(control_groups: Path = _CONTROL_GROUPS) -> int:
    """Cores that this process may use, at least one; where the system does not tell, all there are."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, math.ceil(_cpus(control_groups))))


def _cpus(control_groups: Path) -> float:
    """CPU time a second that a container has, in seconds; more than any machine's where there is no limit."""
    try:
        quota, period = (control_groups / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (control_groups / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (control_groups / "cpu" / "cpu.cfs_period_us").read_text()
        except OSError:
            return 1e6
    try:
        allowed = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max"
        return 1e6
    return allowed if allowed > 0 else 1e6

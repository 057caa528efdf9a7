"""Whether a process died because memory ran out: what the kernel counts, and what llama.cpp says.

The kernel kills with SIGKILL and tells nobody why, but it counts. The count of this process' own control group is taken
where there is one (version 2, then version 1), else that of the whole machine. Elsewhere than on Linux there is none.
"""

from __future__ import annotations

import re
from pathlib import Path

ADVICE = "it ran out of memory: lower NEUROGATE_ENGINE_CONTEXT or NEUROGATE_ENGINE_SLOTS, or take a smaller model"

_SAID = re.compile(
    r"out of memory|bad_alloc|failed to (?:re)?allocate|alloc(?:ation)? failed|cannot allocate memory"
    r"|unable to allocate|failed to fit|ErrorOutOfDeviceMemory|cudaMalloc failed",
    re.IGNORECASE,
)
_COUNT = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def says_so(line: str) -> bool:
    """Whether a line of llama.cpp's log is about memory that it did not get."""
    return _SAID.search(line) is not None


def kills(root: Path = Path("/")) -> int:
    """Processes that the kernel has killed for memory, in this process' control group or on its machine."""
    for file in (*_of_group(root), root / "proc/vmstat"):
        try:
            found = _COUNT.search(file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
        if found:
            return int(found.group(1))
    return 0


def _of_group(root: Path) -> list[Path]:
    """Where this process' control group keeps its count; in a container the group's own path may not be visible."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    files = []
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        mount, file = root / "sys/fs/cgroup", "memory.events"
        if "memory" in controllers.split(","):
            mount, file = mount / "memory", "memory.oom_control"
        elif controllers:
            continue
        files += [mount / path.lstrip("/") / file, mount / file]
    return files

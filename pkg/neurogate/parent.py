"""Life bound to the parent's: a process that must not outlive the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL at the parent's death.

    Linux only, and bound to the thread that created this process: whoever starts one does so from its main thread.
    """
    if sys.platform == "linux":  # pragma: no branch
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def is_orphan(parent_pid: int) -> bool:
    """Whether the parent is gone already, perhaps before the kernel was told whom to watch."""
    return os.getppid() != parent_pid

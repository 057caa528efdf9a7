"""Runs one neurogate command that dies with the process that started it.

`python -m neurogate.local.child PARENT COMMAND...` asks the kernel for SIGKILL at the parent's death, and becomes
`neurogate COMMAND...`. So nothing outlives a fleet, even when the fleet itself is killed without a chance to clean up.
"""

from __future__ import annotations

import os
import sys

from neurogate.parent import die_with_parent, is_orphan


def main(arguments: list[str]) -> None:
    """Never returns."""
    parent, command = int(arguments[0]), arguments[1:]
    die_with_parent()
    if is_orphan(parent):
        sys.exit(1)
    os.execv(sys.executable, [sys.executable, "-m", "neurogate", *command])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])

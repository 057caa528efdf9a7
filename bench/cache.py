"""Where what the benches need is kept: outside the clone, so that it survives `make clean` and is set up once."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

_HERE = Path(__file__).parent


class NotMeasuredError(Exception):
    """Something cannot be measured on this machine; says why."""


def directory() -> Path:
    """The benches' directory in the user's cache, made when it is missing."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(home, "neurogate", "bench")
    path.mkdir(parents=True, exist_ok=True)
    return path


def program(source: str) -> Path:
    """The program made of a C file of ours, `load/load.c` for example, compiled when it has changed.

    Raises NotMeasuredError without a compiler.
    """
    path = _HERE / source
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    made = directory() / "programs" / f"{path.stem}-{digest}"
    if not made.exists():
        made.parent.mkdir(exist_ok=True)
        being_made = made.with_suffix(f".{os.getpid()}")
        try:
            subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-o", str(being_made), str(path), "-lm"], check=True)
        except FileNotFoundError:
            raise NotMeasuredError("there is no C compiler (Debian: apt-get install gcc libc6-dev)") from None
        being_made.rename(made)
    return made

"""Where a fleet writes its logs."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import msgspec

from neurogate.config import env

_KEPT = 10
"""Runs whose logs are kept."""


class StateSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where this user's programs keep what they may want later."""

    state_home: Annotated[
        str, env("XDG_STATE_HOME", "Directory of the logs of `neurogate up`; empty takes ~/.local/state.")
    ] = ""


def new_run_directory(settings: StateSettings) -> Path:
    """A new directory for one run, removing those of long ago; a temporary one when there is no home to write to."""
    try:
        state = Path(settings.state_home) if settings.state_home else Path.home() / ".local" / "state"
        runs = state / "neurogate" / "runs"
        runs.mkdir(parents=True, exist_ok=True)
        created = Path(tempfile.mkdtemp(prefix="run-", dir=runs))
    except (OSError, RuntimeError):
        return Path(tempfile.mkdtemp(prefix="neurogate-"))
    old = sorted(runs.glob("run-*"), key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT:]
    for path in old:
        shutil.rmtree(path, ignore_errors=True)
    return created


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, indented; a note when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 64 * 1024))
            last = file.read().decode("utf-8", "replace").splitlines()[-lines:]
    except FileNotFoundError:
        last = []
    return "\n".join(f"    {line}" for line in last) or "    (its log is empty)"

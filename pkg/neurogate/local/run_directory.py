"""Where a fleet writes its logs, and where it can be spoken to."""

from __future__ import annotations

import shutil
import socket
import tempfile
from pathlib import Path
from typing import Annotated

import msgspec

from neurogate.config import env
from neurogate.gateway.handover import address_of

CONTROL = "up.sock"
"""The Unix socket in a run's directory by which its `neurogate up` is told what to do."""

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
        runs = _runs(settings)
        runs.mkdir(parents=True, exist_ok=True)
        created = Path(tempfile.mkdtemp(prefix="run-", dir=runs))
    except (OSError, RuntimeError):
        return Path(tempfile.mkdtemp(prefix="neurogate-"))
    for path in _newest_first(runs)[_KEPT:]:
        if not is_live(path):
            shutil.rmtree(path, ignore_errors=True)
    return created


def live_directories(settings: StateSettings) -> list[Path]:
    """Those whose fleets run, the newest first."""
    try:
        return [path for path in _newest_first(_runs(settings)) if is_live(path)]
    except (OSError, RuntimeError):
        return []


def is_live(directory: Path) -> bool:
    """Whether the fleet of that directory runs."""
    path = directory / CONTROL
    if not path.is_socket():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking, address_of(path) as address:
        return asking.connect_ex(address) == 0


def _runs(settings: StateSettings) -> Path:
    state = Path(settings.state_home) if settings.state_home else Path.home() / ".local" / "state"
    return state / "neurogate" / "runs"


def _newest_first(runs: Path) -> list[Path]:
    return sorted(runs.glob("run-*"), key=lambda path: path.stat().st_mtime, reverse=True)


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, indented; a note when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 64 * 1024))
            last = file.read().decode("utf-8", "replace").splitlines()[-lines:]
    except FileNotFoundError:
        last = []
    return "\n".join(f"    {line}" for line in last) or "    (its log is empty)"

"""What a gateway must be able to do to be measured: be set up once, and be started in front of an engine.

How to add one: a module with a class that has `name`, `capacity`, `set_up` and `start`, and its place in `peers.all`.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cache import NotMeasuredError
from usage import family

_STOP_S = 10


@dataclass(frozen=True)
class Capacity:
    """The most a peer is asked for: a queue that only grows would measure nothing."""

    connections: int
    rate: float


@dataclass(frozen=True)
class Stage:
    """Where a peer is started."""

    directory: Path
    """Its own, empty; for generated files and logs."""
    engine_port: int


@dataclass
class Running:
    """A started gateway."""

    port: int
    processes: dict[str, subprocess.Popen[bytes]]
    """By role: `gateway`, and `worker` where there is one."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """What a request needs besides."""
    directory: Path | None = None
    """Where its logs are."""

    def families(self) -> dict[str, list[int]]:
        """The processes of each role, children included."""
        return {role: family([process.pid]) for role, process in self.processes.items()}

    def check(self) -> None:
        """Raise NotMeasuredError when one of them has ended."""
        for role, process in self.processes.items():
            if process.poll() is not None:
                raise NotMeasuredError(f"its {role} ended with {process.returncode}: {self._last_words(role)}")

    def _last_words(self, role: str) -> str:
        log = None if self.directory is None else self.directory / f"{role}.log"
        lines = log.read_text(errors="replace").split("\n") if log is not None and log.exists() else []
        return " / ".join([line.strip() for line in lines if line.strip()][-3:])[-400:]

    def stop(self) -> None:
        """End its processes and wait for them; those that do not listen are killed."""
        pids = [pid for role in self.families().values() for pid in role]
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pid in set(pids) & set(family(pids)) - {process.pid for process in self.processes.values()}:
            os.kill(pid, 9)


class Peer(Protocol):
    """A gateway as it is set up and started."""

    @property
    def name(self) -> str:
        """What it is called in results."""
        ...

    @property
    def capacity(self) -> Capacity | None:
        """The most it is asked for, or None for whatever a workload wants."""
        ...

    def set_up(self) -> str:
        """Install it when it is not, and give its version. Raises NotMeasuredError."""
        ...

    def start(self, stage: Stage) -> Running:
        """Start it in front of the engine, without waiting until it answers. Raises NotMeasuredError."""
        ...


def spawn(stage: Stage, role: str, command: Sequence[str | Path], **environment: str) -> subprocess.Popen[bytes]:
    """A process whose output goes into a file of the stage, with little of our environment."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    with (stage.directory / f"{role}.log").open("wb") as log:
        return subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=stage.directory,
            env={**kept, **environment},
        )


def free_port() -> int:
    """A port that nobody has, for programs that cannot tell which one they took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

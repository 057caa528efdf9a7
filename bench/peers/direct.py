"""No gateway at all: the engine itself, which latencies are compared with."""

from __future__ import annotations

import platform

from peers.peer import Capacity, Running, Stage


class Direct:
    """The baseline."""

    name = "direct"
    capacity: Capacity | None = None

    def set_up(self) -> str:
        """The engine is compiled for every run."""
        return platform.libc_ver()[1]

    def start(self, stage: Stage) -> Running:
        """The engine is there already."""
        return Running(stage.engine_port, {})

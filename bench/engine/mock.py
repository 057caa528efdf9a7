"""The mock engine as a process: what every gateway is measured in front of."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cache import program


@dataclass(frozen=True)
class MockEngine:
    """One that runs."""

    pid: int
    port: int

    def stats(self) -> dict[str, float]:
        """What it served since this was asked last; see engine.c."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/bench/stats", timeout=10) as answer:
            told: dict[str, float] = json.load(answer)
            return told


@contextmanager
def running() -> Iterator[MockEngine]:
    """A mock engine on a free port. Raises NotMeasuredError when it cannot be made."""
    with subprocess.Popen([program("engine/engine.c")], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield MockEngine(process.pid, int(process.stdout.readline()))
        finally:
            process.terminate()

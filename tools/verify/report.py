"""One line for each thing a rung of the ladder looked at: `ok`, `failed` with what to see, or `skipped` with why.

    report = Report("docker")
    report.ok("gateway image", "143 MB")
    report.failed("worker image", "runs as root")
    report.skipped("CUDA image", "there is no GPU")
    sys.exit(report.finish())

A rung that could not even begin says `report.skipped("everything", why)` and finishes: nothing is passed in silence.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""


class Report:
    """Prints as it goes, and counts."""

    def __init__(self, rung: str) -> None:
        self._rung = rung
        self._counts = {"ok": 0, "failed": 0, "skipped": 0}

    def ok(self, what: str, seen: str = "") -> None:
        """It is as it should be."""
        self._say("ok", what, seen)

    def failed(self, what: str, seen: str) -> None:
        """It is not."""
        self._say("failed", what, seen)

    def skipped(self, what: str, why: str) -> None:
        """It was not looked at."""
        self._say("skipped", what, why)

    def expect(self, what: str, right: bool, seen: str = "") -> bool:  # noqa: FBT001 - reads as a sentence
        """Either of the first two; gives `right`."""
        (self.ok if right else self.failed)(what, seen)
        return right

    def command(self, what: str, command: Sequence[str], *, timeout_s: float = 300, cwd: Path = ROOT) -> bool:
        """Run a command; it is right when it exits with 0, otherwise the end of what it says is shown."""
        try:
            done = subprocess.run(
                command, cwd=cwd, timeout=timeout_s, capture_output=True, text=True, errors="replace", check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            self.failed(what, str(error))
            return False
        said = (done.stdout + done.stderr).strip()
        return self.expect(what, done.returncode == 0, "" if done.returncode == 0 else said[-4000:])

    def finish(self) -> int:
        """Print the counts; the exit code."""
        print(f"{self._rung}: " + ", ".join(f"{count} {word}" for word, count in self._counts.items()), flush=True)
        return 1 if self._counts["failed"] else 0

    def _say(self, word: str, what: str, detail: str) -> None:
        self._counts[word] += 1
        print(f"{word:8} {self._rung}: {what}" + (f": {detail}" if detail else ""), flush=True)

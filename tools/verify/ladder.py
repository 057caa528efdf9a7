"""Climb the ladder of deployment checks, from linters to a real Kubernetes node, and say what came of each rung.

    python tools/verify/ladder.py [--to RUNG] [--only RUNG]

Every rung is a script of its own that prints a line for each thing it looked at and fails when one failed. What a
machine cannot do is skipped with the reason, never in silence; `summary` lines at the end have it all in one place.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from report import ROOT


class Rung(NamedTuple):
    """One step of the ladder."""

    name: str
    script: str
    timeout_s: int


RUNGS = (
    Rung("static", "static.py", 300),
    Rung("terraform", "terraform.py", 120),
    Rung("prometheus", "prometheus.py", 240),
    Rung("docker", "docker.py", 1800),
    Rung("kubernetes", "kubernetes.py", 2400),
)


class Outcome(NamedTuple):
    """What came of a rung."""

    rung: Rung
    words: list[str]
    """The first word of each of its lines: ok, failed, skipped."""
    skipped: list[str]
    code: int
    seconds: float


def climb(rung: Rung) -> Outcome:
    """Run a rung's script, showing what it prints."""
    began = time.monotonic()
    script = Path(__file__).with_name(rung.script)
    words: list[str] = []
    skipped: list[str] = []
    with subprocess.Popen(
        ["timeout", "--signal=TERM", "--kill-after=60", str(rung.timeout_s), sys.executable, str(script)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(f"  {line}", end="", flush=True)
            word = line.split(" ", 1)[0]
            if word in {"ok", "failed", "skipped"}:
                words.append(word)
            if word == "skipped":
                skipped.append(line.strip())
    return Outcome(rung, words, skipped, process.returncode, time.monotonic() - began)


def told(outcome: Outcome) -> str:
    """The outcome in one line."""
    word = "failed" if outcome.code else "ok" if "ok" in outcome.words else "skipped"
    counts = ", ".join(f"{outcome.words.count(each)} {each}" for each in ("ok", "failed", "skipped"))
    late = f", stopped after {outcome.rung.timeout_s} s" if outcome.code == 124 else ""
    return f"{word:8} {outcome.rung.name:11} {counts} in {outcome.seconds:.0f} s{late}"


def main() -> int:
    """Climb, and print the summary; 1 when a rung failed."""
    names = [rung.name for rung in RUNGS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", choices=names, default=names[-1], help="the last rung to climb")
    parser.add_argument("--only", choices=names, help="this rung alone")
    arguments = parser.parse_args()
    rungs = RUNGS[: names.index(arguments.to) + 1]
    if arguments.only:
        rungs = (RUNGS[names.index(arguments.only)],)
    outcomes = []
    for rung in rungs:
        print(f"{rung.name}:", flush=True)
        outcomes.append(climb(rung))
    print("summary:")
    for outcome in outcomes:
        print(f"  {told(outcome)}")
        for line in outcome.skipped:
            print(f"             {line}")
    for rung in RUNGS[len(rungs) :] if not arguments.only else ():
        print(f"  {'not run':8} {rung.name}")
    return 1 if any(outcome.code for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())

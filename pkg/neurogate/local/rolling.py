"""`neurogate up --rolling`: has a fleet that runs restart itself, and shows how that goes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

from neurogate.config import load
from neurogate.errors import NeuroGateError
from neurogate.gateway import handover
from neurogate.local.control import ask_to_roll
from neurogate.local.run_directory import CONTROL, StateSettings, is_live, live_directories
from neurogate.process import EXIT_FAILURE


def main(directory: str, *, lacking: Callable[[], str] = handover.lacking) -> int:
    """Restart the fleet of the directory; without one, the only fleet there is. Returns the exit code.

    Raises NeuroGateError when there is none, or several, and where the platform lacks what it takes.
    """
    if lack := lacking():
        raise NeuroGateError(f"a fleet that runs can be restarted on Linux only: {lack}")
    return asyncio.run(_roll(_chosen(directory)))


def _chosen(directory: str) -> Path:
    if directory:
        if not is_live(Path(directory)):
            raise NeuroGateError(f"no fleet runs in {directory}; `neurogate up` shows its directory as `logs`")
        return Path(directory)
    found = live_directories(load(StateSettings))
    if not found:
        raise NeuroGateError("no fleet runs: start one with `neurogate up`, or name its directory with --run")
    if len(found) > 1:
        raise NeuroGateError(f"several fleets run, choose one with --run: {', '.join(map(str, found))}")
    return found[0]


async def _roll(directory: Path) -> int:
    well = False
    async with aclosing(ask_to_roll(directory, CONTROL)) as told:
        async for line in told:
            if line.say:
                print(line.say, flush=True)
            if line.ok is not None:
                well = line.ok
                print("all of it was restarted" if well else "the restart stopped there", flush=True)
                return 0 if well else EXIT_FAILURE
    print("neurogate: the fleet stopped before its restart was done", file=sys.stderr)
    return EXIT_FAILURE

"""Long scenarios run when CHAOS=1 says so, the soak when SOAK_MINUTES is set; a table of what was seen ends the run."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos_support.oracle import Oracle, oracle
from chaos_support.report import table
from chaos_support.stage import Theatre

_THEATRE = pytest.StashKey[Theatre]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = {"chaos": os.environ.get("CHAOS") == "1", "soak": bool(os.environ.get("SOAK_MINUTES"))}
    left_out = [marker for marker, runs in wanted.items() if not runs]
    long = [item for item in items if any(item.get_closest_marker(marker) for marker in left_out)]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.fixture(scope="session")
def engine_oracle() -> Iterator[Oracle]:
    with oracle() as asked:
        yield asked


@pytest.fixture(scope="session")
def theatre(engine_oracle: Oracle, pytestconfig: pytest.Config) -> Theatre:
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(1 << 20))
    report = os.environ.get("CHAOS_REPORT")
    made = Theatre(engine_oracle, seed=seed, report=Path(report) if report else None)
    pytestconfig.stash[_THEATRE] = made
    return made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    made = config.stash.get(_THEATRE, None)
    if made is None or not made.rows:
        return
    terminalreporter.section(f"faults, CHAOS_SEED={made.seed}")
    terminalreporter.write_line(table(made.rows))

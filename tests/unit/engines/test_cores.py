"""How many cores an engine counts on, by affinity and by a container's share of CPU time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from neurogate.engines.llamacpp.cores import usable_cores


@pytest.fixture(autouse=True)
def sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))


@pytest.mark.parametrize(
    ("told", "cores"),
    [
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("max 100000", 16),
        ("6400000 100000", 16),
        ("?", 16),
    ],
)
def test_a_share_of_cpu_time_bounds_the_cores(tmp_path: Path, told: str, cores: int) -> None:
    (tmp_path / "cpu.max").write_text(told + "\n")

    assert usable_cores(tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [("300000", 3), ("-1", 16), ("50000", 1)])
def test_the_first_version_of_control_groups_tells_it_elsewhere(tmp_path: Path, quota: str, cores: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")

    assert usable_cores(tmp_path) == cores


def test_where_nothing_is_told_all_cores_count(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == 16

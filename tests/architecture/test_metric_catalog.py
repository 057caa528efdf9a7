"""Every metric is declared once, told by some process, and documented."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from neurogate.cli import metrics_page
from neurogate.telemetry import catalog
from neurogate.telemetry.metric import CounterOf, HistogramOf, Metric

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pkg" / "neurogate"
CATALOG = PACKAGE / "telemetry" / "catalog.py"
NAMES = {value.name: constant for constant, value in vars(catalog).items() if isinstance(value, Metric)}


def used_constants() -> set[str]:
    """Constants of the catalogue that other modules name."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        if path == CATALOG:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "catalog":
                found.add(node.attr)
            elif isinstance(node, ast.ImportFrom) and node.module == "neurogate.telemetry.catalog":
                found.update(alias.name for alias in node.names)
    return found


def test_every_declared_metric_is_told_by_some_process():
    assert set(NAMES.values()) - used_constants() == set()


def test_no_metric_has_its_name_anywhere_else():
    """A name in a string is allowed where what is written is for people."""
    written = re.compile(
        r"[\"'](neurogate|ollama)_[a-z_]+_(total|seconds|bytes|ratio|info|state|up|linked|workers)[\"']"
    )
    others = [path for path in PACKAGE.rglob("*.py") if path != CATALOG and written.search(path.read_text())]
    assert others == []


def test_metrics_page_is_fresh():
    assert (ROOT / "docs" / "metrics.md").read_text() == metrics_page.markdown(), "run: make docs"


def test_the_terminals_list_has_every_metric():
    shown = metrics_page.text()
    assert [name for name in NAMES if name not in shown] == []


def test_every_metric_is_under_a_heading():
    assert [metric for metrics in catalog.sections().values() for metric in metrics] == list(catalog.every())


@pytest.mark.parametrize("metric", catalog.every(), ids=lambda metric: metric.name)
def test_a_metric_is_named_as_prometheus_wants(metric: Metric):
    assert re.fullmatch(r"(neurogate|ollama)_[a-z0-9_]+", metric.name)
    assert metric.name.endswith("_total") == isinstance(metric, CounterOf)
    assert metric.help.endswith("."), metric.name
    assert "|" not in metric.help
    if metric.unit in {"seconds", "bytes", "watts", "celsius"}:
        assert metric.name.removesuffix("_total").endswith(metric.unit)
    if isinstance(metric, HistogramOf):
        assert list(metric.buckets) == sorted(metric.buckets)
    assert list(NAMES).count(metric.name) == 1

"""What queries of dashboards and rules name, and what there is to name."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import promql_parser
import yaml

from neurogate.telemetry import catalog
from neurogate.telemetry.metric import HistogramOf

PROMETHEUS = Path(__file__).parents[1] / "deploy/prometheus"
KNOWN_ELSEWHERE = {"up", "ALERTS"}
"""What Prometheus has of itself."""


def told() -> set[str]:
    """Every series that processes tell, by the catalogue."""
    names = set()
    for metric in catalog.every():
        if isinstance(metric, HistogramOf):
            names |= {f"{metric.name}_{part}" for part in ("bucket", "count", "sum")}
        else:
            names.add(metric.name)
    return names


@functools.cache
def rules(file: str) -> list[dict[str, Any]]:
    """The rules of a file of rules."""
    groups = yaml.safe_load((PROMETHEUS / "rules" / file).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def recorded() -> set[str]:
    """Every series that recording rules make."""
    return {rule["record"] for rule in rules("recording.yml")}


def metrics_in(expr: str) -> set[str]:
    """The names in a query, of Grafana's language too. Raises ValueError when it is none."""
    for variable, value in (("$__rate_interval", "1m"), ("$__range", "30m"), ("$__interval", "15s")):
        expr = expr.replace(variable, value)
    found: set[str] = set()
    _gather(promql_parser.parse(expr), found)
    return found


def _gather(node: Any, found: set[str]) -> None:
    name = getattr(node, "name", None)
    if isinstance(node, promql_parser.VectorSelector) and name:
        found.add(name)
    for part in ("lhs", "rhs", "expr", "vector_selector", "vs", "param"):
        child = getattr(node, part, None)
        if child is not None and not isinstance(child, str):
            _gather(child, found)
    for child in getattr(node, "args", None) or ():
        _gather(child, found)

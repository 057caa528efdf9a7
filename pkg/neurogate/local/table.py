"""The workers of a gateway as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

_STYLES = {"closed": "green", "yes": "green", "half-open": "yellow", "half_open": "yellow", "draining": "yellow"}


def states(answer: Mapping[str, Any] | None) -> list[tuple[str, str, str, str]]:
    """What the table shows, to tell whether it changed."""
    return [_row(worker) for worker in (answer or {}).get("workers", [])]


def workers_table(answer: Mapping[str, Any]) -> Table:
    """The answer of GET /workers for a narrow terminal."""
    table = Table(box=None, pad_edge=False)
    for column in ("worker", "address", "healthy", "breaker"):
        table.add_column(column, no_wrap=True)
    for name, address, healthy, breaker in states(answer):
        table.add_row(name, address, _coloured(healthy), _coloured(breaker))
    return table


def _row(worker: Mapping[str, Any]) -> tuple[str, str, str, str]:
    healthy = "yes" if worker.get("healthy") else "no"
    name, address, breaker = (str(worker.get(key, "")) for key in ("id", "address", "circuit_breaker_state"))
    return name, address, healthy, breaker


def _coloured(word: str) -> Text:
    return Text(word, style=_STYLES.get(word, "red"))

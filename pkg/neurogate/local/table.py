"""The workers of a gateway as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

_STYLES = {
    "closed": "green",
    "ready": "green",
    **dict.fromkeys(("half-open", "half_open", "draining", "cordoned", "not_ready", "resting"), "yellow"),
}


class Row(NamedTuple):
    """What there is to know of a worker at one glance."""

    worker: str
    address: str
    state: str
    """As the gateway calls it."""
    breaker: str


def workers_table(answer: Mapping[str, Any]) -> Table:
    """The answer of GET /workers, shortened to a table."""
    return table_of(_row(worker) for worker in answer.get("workers", []))


def table_of(rows: Iterable[Row]) -> Table:
    """The rows as a table for a narrow terminal."""
    table = Table(box=None, pad_edge=False)
    for column in Row._fields:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(row.worker, row.address, _coloured(row.state), _coloured(row.breaker))
    return table


def _row(worker: Mapping[str, Any]) -> Row:
    state = str(worker.get("state") or _state_by_flags(worker))
    name, address, breaker = (str(worker.get(key, "")) for key in ("id", "address", "circuit_breaker_state"))
    return Row(name, address, state, breaker)


def _state_by_flags(worker: Mapping[str, Any]) -> str:
    """For a gateway that does not name states."""
    if not worker.get("healthy"):
        return "unreachable"
    if worker.get("draining"):
        return "draining"
    return "ready" if worker.get("ready") else "not_ready"


def _coloured(word: str) -> Text:
    return Text(word, style=_STYLES.get(word, "red"))

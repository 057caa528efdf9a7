"""What the fault suite saw, as a table for people and JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from chaos_support.traffic import Asked


@dataclass
class Row:
    """One scenario."""

    scenario: str
    requests: int = 0
    whole: int = 0
    honest: int = 0
    lies: int = 0
    leaks: int = 0
    longest_gap_s: float = 0.0
    took_s: float = 0.0
    notes: list[str] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list, repr=False)
    """Each request, for who looks closer; no part of the report."""


_COLUMNS = ("scenario", "requests", "whole", "honest", "lies", "leaks", "longest_gap_s", "took_s")


def table(rows: Sequence[Row]) -> str:
    """Markdown, with a last row of sums."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|---" * len(_COLUMNS) + "|"]
    for row in rows:
        lines.append("| " + " | ".join(_shown(getattr(row, column)) for column in _COLUMNS) + " |")
        lines += [f"  - {note}" for note in row.notes]
    sums = {name: sum(getattr(row, name) for row in rows) for name in _COLUMNS[1:-2]}
    lines.append("| all | " + " | ".join(str(value) for value in sums.values()) + " | | |")
    return "\n".join(lines)


def as_json(rows: Sequence[Row], *, seed: int) -> str:
    told = [{name: getattr(row, name) for name in (*_COLUMNS, "notes")} for row in rows]
    return json.dumps({"seed": seed, "scenarios": told}, indent=1)


def _shown(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)

"""What the fault suite saw: a table of Markdown for people, JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
    """Markdown, with a last row of sums, and behind it what there is to say of single scenarios."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|---" * len(_COLUMNS) + "|"]
    lines += ["| " + " | ".join(_shown(getattr(row, column)) for column in _COLUMNS) + " |" for row in rows]
    sums = {name: sum(getattr(row, name) for row in rows) for name in (*_COLUMNS[1:-2], _COLUMNS[-1])}
    sums["took_s"] = round(sums["took_s"])
    *counts, took_s = map(str, sums.values())
    lines.append("| " + " | ".join(["all", *counts, "", took_s]) + " |")
    notes = [f"- {row.scenario}: {note}" for row in rows for note in row.notes]
    return "\n".join([*lines, "", *notes] if notes else lines)


def write(path: Path, rows: Sequence[Row], *, seed: int) -> None:
    """The table into a file that ends in .md, else JSON."""
    told = f"CHAOS_SEED={seed}\n\n{table(rows)}\n" if path.suffix == ".md" else as_json(rows, seed=seed)
    path.write_text(told)


def as_json(rows: Sequence[Row], *, seed: int) -> str:
    told = [{name: getattr(row, name) for name in (*_COLUMNS, "notes")} for row in rows]
    return json.dumps({"seed": seed, "scenarios": told}, indent=1)


def _shown(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)

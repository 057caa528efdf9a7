"""Plots of a run as SVG, written by hand: bars with whiskers, and lines over a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from report.book import Book, Spread
from report.goals import OWN
from workloads import CLOSED, CROWD, MANY, SOME

_WIDTH, _LEFT, _RIGHT, _BAR, _GAP = 760, 130, 120, 22, 10
_OWN, _OTHER, _WORKER, _INK, _GRID = "#2563eb", "#94a3b8", "#bfdbfe", "#1e293b", "#e2e8f0"
_COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706")


@dataclass(frozen=True)
class _Bar:
    label: str
    spread: Spread
    behind: float = 0.0
    """What a lighter bar adds: the worker's part."""


def plots(results: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """File names and their content, of what was measured."""
    book = Book(results)
    drawn = (
        ("cpu-per-token", f"µs of CPU a streamed token, {results_title(results, MANY.name)}", MANY.name, "gateway_us"),
        ("cpu-per-request", f"µs of CPU a request, {results_title(results, CLOSED.name)}", CLOSED.name, "gateway_us"),
        (
            "first-token",
            f"time to first token p50, µs, {results_title(results, SOME.name)}",
            SOME.name,
            "first_token_p50_us",
        ),
        (
            "added-gap",
            f"added to a gap between tokens p99, µs, {results_title(results, MANY.name)}",
            MANY.name,
            "gap_added_p99_us",
        ),
        ("memory", f"peak memory, MiB, {results_title(results, CROWD.name)}", CROWD.name, "gateway_peak_mib"),
    )
    for name, title, workload, field in drawn:
        bars = []
        for peer in book.peers(workload):
            spread = book.spread(workload, peer, field)
            reduced = any("only" in flag for flag in book.flags(workload, peer))
            if spread is not None and (field == "gateway_us" or not reduced):
                worker = book.spread(workload, peer, field.replace("gateway", "worker")) if "gateway" in field else None
                bars.append(_Bar(peer, spread, worker.median if worker else 0.0))
        if bars:
            yield f"{name}.svg", _bars(title, bars)
    if picks := results.get("picks"):
        lines = {name: [cost["median"] for cost in costs] for name, costs in picks["us"].items()}
        yield "picks.svg", _lines("µs a pick, by the number of workers", picks["sizes"], lines)


def results_title(results: Mapping[str, Any], workload: str) -> str:
    """What a workload of the run is called."""
    return str(results["workloads"].get(workload, {}).get("title", workload))


def _bars(title: str, bars: Sequence[_Bar]) -> str:
    """Horizontal, the longest cut where one is far longer than all others."""
    lengths = sorted(max(bar.spread.high, bar.spread.median + bar.behind) for bar in bars)
    longest = lengths[-1]
    if len(lengths) > 2 and longest > 5 * lengths[-2]:
        longest = 1.3 * lengths[-2]
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    body = []
    for row, bar in enumerate(bars):
        top = 44 + row * (_BAR + _GAP)
        middle = top + _BAR / 2
        own = bar.label.startswith(OWN)
        width = min(bar.spread.median, longest) * scale
        body.append(f'<text x="{_LEFT - 8}" y="{middle + 4}" text-anchor="end">{escape(bar.label)}</text>')
        if bar.behind:
            more = min(bar.spread.median + bar.behind, longest) * scale
            body.append(f'<rect x="{_LEFT}" y="{top}" width="{more:.1f}" height="{_BAR}" fill="{_WORKER}"/>')
        body.append(
            f'<rect x="{_LEFT}" y="{top}" width="{width:.1f}" height="{_BAR}" fill="{_OWN if own else _OTHER}"/>'
        )
        if bar.spread.median > longest:
            cut = _LEFT + 0.95 * longest * scale
            body.append(f'<path d="M{cut:.1f} {top + _BAR + 3}l8 -{_BAR + 6}" stroke="#fff" stroke-width="5"/>')
        if bar.spread.high <= longest and bar.spread.rounds > 1:
            low, high = _LEFT + bar.spread.low * scale, _LEFT + bar.spread.high * scale
            body.append(f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="{_INK}" stroke-width="1.5"/>')
        end = _LEFT + min(max(bar.spread.high, bar.spread.median + bar.behind), longest) * scale
        shown = f"{bar.spread.median:.3g}" if bar.spread.median < 1000 else f"{bar.spread.median:,.0f}"
        shown += f" + {bar.behind:.3g}" if bar.behind else ""
        body.append(f'<text x="{end + 6:.1f}" y="{middle + 4}">{shown}</text>')
    height = 44 + len(bars) * (_BAR + _GAP) + 24
    note = "whiskers: least and most of the rounds; light: the worker's part" if any(b.behind for b in bars) else ""
    body.append(
        f'<text x="{_LEFT}" y="{height - 8}" font-size="11">{note or "whiskers: least and most of the rounds"}</text>'
    )
    return _svg(title, body, height)


def _lines(title: str, sizes: Sequence[int], lines: Mapping[str, Sequence[float]]) -> str:
    height, top, bottom = 300, 48, 250
    highest = 1.2 * max(max(values) for values in lines.values())
    span = math.log10(sizes[-1] / sizes[0])

    def at(size: int, value: float) -> tuple[float, float]:
        x = _LEFT + math.log10(size / sizes[0]) / span * (_WIDTH - _LEFT - _RIGHT)
        return x, bottom - value / highest * (bottom - top)

    body = []
    for size in sizes:
        x, _ = at(size, 0)
        body.append(f'<path d="M{x:.1f} {top}V{bottom}" stroke="{_GRID}"/>')
        body.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{size}</text>')
    for step in range(5):
        value = highest * step / 4
        _, y = at(sizes[0], value)
        body.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="{_GRID}"/>')
        body.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.2g}</text>')
    for colour, (name, values) in zip(_COLOURS, lines.items(), strict=False):
        points = [at(size, value) for size, value in zip(sizes, values, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        body.append(
            f'<text x="{points[-1][0] + 6:.1f}" y="{points[-1][1] + 4:.1f}" fill="{colour}">{escape(name)}</text>'
        )
    return _svg(title, body, height)


def _svg(title: str, body: Sequence[str], height: float) -> str:
    named = escape(title)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{named}"',
        f'     font-family="sans-serif" font-size="13" fill="{_INK}">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="{_LEFT}" y="24" font-size="15" font-weight="bold">{named}</text>',
        *body,
        "</svg>\n",
    ]
    return "\n".join(lines)

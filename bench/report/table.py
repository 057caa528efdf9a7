"""A run in Markdown: what was promised, what each gateway costs, and what the figures may be worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from report.book import Book, Spread
from report.goals import GOALS, OWN, PICK_BOUND

_STREAM_COLUMNS = (
    ("gateway_us", "gateway, µs CPU a token"),
    ("together_us", "with worker"),
    ("first_token_p50_us", "first token p50, µs"),
    ("first_token_p99_us", "p99"),
    ("transit_p50_us", "token's way p50, µs"),
    ("transit_p99_us", "p99"),
    ("transit_p999_us", "p99.9"),
    ("gap_added_p50_us", "added to a gap p50, µs"),
    ("gap_added_p99_us", "p99"),
    ("gateway_peak_mib", "RSS, MiB"),
)
_PLAIN_COLUMNS = (
    ("gateway_us", "gateway, µs CPU a request"),
    ("together_us", "with worker"),
    ("rate", "requests/s"),
    ("latency_p50_us", "latency p50, µs"),
    ("latency_p99_us", "p99"),
    ("latency_p999_us", "p99.9"),
    ("gateway_peak_mib", "RSS, MiB"),
)
_IDLE_COLUMNS = (("gateway_peak_mib", "RSS, MiB"), ("worker_peak_mib", "worker's"))


def markdown(results: Mapping[str, Any], compared: Sequence[str]) -> str:
    """The whole report; `compared` is what the comparison with an earlier run says."""
    book = Book(results)
    parts = [_head(results), "## Goals\n", _goals(book), "## Compared with the last committed run\n"]
    parts.append("\n".join(f"- {line}" for line in compared) + "\n")
    parts.append("## Workloads\n")
    parts.append("Medians of the rounds; in brackets the least and the most where they differ by more than a tenth.\n")
    parts += [_workload(book, name, told) for name, told in results["workloads"].items()]
    parts += ["## Memory of a stream\n", _memory(book), "## Start-up and idling\n", _lives(results)]
    parts += ["## Cost of a pick\n", _picks(results), "## Headroom of the bench\n", _headroom(results)]
    return "\n".join(parts)


def _head(results: Mapping[str, Any]) -> str:
    machine, taken = results["machine"], results["taken"]
    facts = f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, Python {machine['python']}"
    busy = f" ({taken['busy_before']:.0%} busy before)"
    lines = [
        "# What the gateways cost, side by side\n",
        f"Measured {taken['at']} in {taken['seconds']:.0f} s, {taken['rounds']} rounds, on {facts}{busy}.\n",
        "| gateway | version |",
        "|---|---|",
    ]
    for name, told in results["peers"].items():
        lines.append(f"| {name} | {told.get('version') or 'not measured: ' + told['not_measured']} |")
    return "\n".join(lines) + "\n"


def _goals(book: Book) -> str:
    lines = ["| measure | against | goal | found | |", "|---|---|---|---|---|"]
    for goal in GOALS:
        found = goal.found(book)
        lines.append(_goal_line(goal.title, goal.against, goal.bound, found))
    picks = book.results.get("picks")
    if picks:
        ratio = Spread(*(picks["ratio"][name] for name in ("min", "median", "max", "rounds")))
        lines.append(_goal_line("cost of a pick, 10 000 workers over 10", "itself", PICK_BOUND, ratio))
    return "\n".join(lines) + "\n"


def _goal_line(title: str, against: str, bound: float, found: Spread | None) -> str:
    if found is None:
        return f"| {title} | {against} | ≤ {bound:g} | not measured | |"
    verdict = "met" if found.median <= bound else f"**missed by {found.median / bound - 1:.0%}**"
    shown = f"{found.median:.3g} ({found.low:.3g} to {found.high:.3g})"
    return f"| {title} | {against} | ≤ {bound:g} | {shown} | {verdict} |"


def _workload(book: Book, name: str, told: Mapping[str, Any]) -> str:
    columns = _IDLE_COLUMNS if told["idle"] else _STREAM_COLUMNS if told["tokens"] else _PLAIN_COLUMNS
    head = ["gateway", *(title for _, title in columns), ""]
    lines = [f"### {told['title']}\n", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for peer in book.peers(name):
        cells = [_shown(book.spread(name, peer, field)) for field, _ in columns]
        label = f"**{peer}**" if peer == OWN else peer
        lines.append("| " + " | ".join([label, *cells, "; ".join(book.flags(name, peer))]) + " |")
    return "\n".join(lines) + "\n"


def _memory(book: Book) -> str:
    idle = next((name for name, told in book.results["workloads"].items() if told["idle"]), None)
    active = next(
        (n for n, told in book.results["workloads"].items() if told["connections"] >= 1000 and n != idle), None
    )
    if idle is None or active is None:
        return "Not measured.\n"
    lines = ["| gateway | before, MiB | idle stream, KiB | active stream, KiB |", "|---|---|---|---|"]
    for peer in book.peers(idle):
        before = book.spread(idle, peer, "gateway_rss_before_mib")
        if before is None:
            continue
        cells = [_shown(before)]
        for workload in (idle, active):
            peaks = book.values(workload, peer, "gateway_peak_mib")
            befores = book.values(idle, peer, "gateway_rss_before_mib")
            streams = book.values(workload, peer, "connections")
            each = [1024 * (p - b) / s for p, b, s in zip(peaks, befores, streams, strict=False)]
            cells.append(_shown(Spread.of(each)))
        lines.append(f"| {peer} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _lives(results: Mapping[str, Any]) -> str:
    lines = ["| gateway | first answer after, s | CPU when idle, ms a second |", "|---|---|---|"]
    for name, told in results["peers"].items():
        if told.get("startup_s"):
            idle = told["idle_ms_per_s"]
            by_role = " and ".join(f"{_shown(Spread.of(spent))} ({role})" for role, spent in idle.items())
            lines.append(f"| {name} | {_shown(Spread.of(told['startup_s']))} | {by_role} |")
    return "\n".join(lines) + "\n"


def _picks(results: Mapping[str, Any]) -> str:
    picks = results.get("picks")
    if not picks:
        return "Not measured.\n"
    sizes = picks["sizes"]
    lines = [
        "| µs a pick with | " + " | ".join(f"{size} workers" for size in sizes) + " |",
        "|---" * (len(sizes) + 1) + "|",
    ]
    for name, costs in picks["us"].items():
        lines.append(f"| {name} | " + " | ".join(f"{cost['median']:.2f}" for cost in costs) + " |")
    return "\n".join(lines) + "\n"


def _headroom(results: Mapping[str, Any]) -> str:
    samples = [sample for sample in results["samples"] if "error" not in sample]
    if not samples:
        return "Nothing was measured.\n"
    engine, load = (max(samples, key=lambda s, n=name: s[n]) for name in ("engine_share", "load_share"))  # type: ignore[misc]
    others = sorted(sample["others_share"] for sample in samples)
    stolen = max(sample["stolen_share"] for sample in samples)
    lines = [
        f"- The engine used at most {engine['engine_share']:.0%} of a core ({engine['workload']}, {engine['peer']}).",
        f"- The load used at most {load['load_share']:.0%} of a core ({load['workload']}, {load['peer']}).",
        f"- Whatever else ran used {others[len(others) // 2]:.2f} of a core, and at most {others[-1]:.2f}.",
        f"- The machine's host took at most {stolen:.1%} of a core away.",
    ]
    lines += [f"- Not measured: {s['peer']}, {s['workload']}: {s['error']}" for s in results["samples"] if "error" in s]
    lines += [f"- Left out for want of time: {left}" for left in results["left_out"]]
    return "\n".join(lines) + "\n"


def _shown(spread: Spread | None) -> str:
    if spread is None:
        return ""
    low, middle, high = (
        f"{value:.3g}" if value < 1000 else f"{value:.0f}" for value in (spread.low, spread.median, spread.high)
    )
    wide = spread.rounds > 1 and spread.high - spread.low > 0.1 * abs(spread.median)
    return f"{middle} ({low} to {high})" if wide else middle

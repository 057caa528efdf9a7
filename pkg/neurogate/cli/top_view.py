"""A picture of a fleet as text: what `neurogate top` draws, within whatever room the terminal has.

Clients, workers and gateways chose the words in it: none of them is markup here, nor steers the terminal.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from neurogate.gateway.in_flight import Row
from neurogate.gateway.live.picture import Happening, Picture, Points, WorkerNow
from neurogate.telemetry.access_log import clean

_BARS = "▁▂▃▄▅▆▇█"
_POINTS = 20
"""Of a history: the latest third of it."""

_STATES = {
    "ready": ("green", "●"),
    "resting": ("cyan", "◐"),
    "ejected": ("yellow", "▲"),
    "half_open": ("yellow", "◆"),
    "open": ("red", "✖"),
    "not_ready": ("yellow", "○"),
    "cordoned": ("cyan", "■"),
    "draining": ("cyan", "▼"),
    "unreachable": ("red", "✖"),
}
_BREAKERS = {"closed": "green", "half-open": "yellow", "open": "red"}
_PHASES = {"decode": "green", "queue": "yellow", "pick": "yellow", "resume": "red", "prefill": "cyan", "whole": "cyan"}
_KINDS = {"retry": "cyan", "resume": "yellow", "broken": "red", "failure": "red"}

_WORKERS_MIN = 3

_WIDE, _MIDDLING = 110, 80
"""Columns from which on all is told of workers, and all but model and reason."""


def view(picture: Picture, *, width: int, height: int, stale: str = "") -> RenderableType:
    """The picture in `width` columns and at most `height` lines; what is least wanted goes where that is little.

    `stale` is what is wrong with the connection that it came by.
    """
    room = max(0, height - 8)
    workers_max = max(_WORKERS_MIN, min(len(picture.workers), room // 2))
    rest = max(0, room - min(len(picture.workers), workers_max))
    recent_max = min(len(picture.recent), max(2, rest // 3))
    requests_max = max(0, rest - recent_max)
    parts: list[RenderableType] = [_head(picture), _totals(picture)]
    if stale:
        parts.append(Text(clean(stale), style="bold red", no_wrap=True, overflow="ellipsis"))
    parts.append(_workers(picture.workers, workers_max, picture.workers_more, width))
    if requests_max and picture.requests:
        parts.append(_requests(picture.requests, requests_max, picture.fleet.in_flight, width))
    if recent_max:
        parts.append(_recent(picture.recent[:recent_max], picture.at))
    return Group(*parts)


_LEAST_WIDTHS = {"worker": 10, "state": 13, "breaker": 9, "slots": 5}
"""What must not give way to others' long words."""
_MODEL_WIDTH_MAX = 32


def _head(picture: Picture) -> Text:
    word, style = (
        ("draining", "cyan") if picture.draining else ("ready", "green") if picture.ready else ("not ready", "red")
    )
    return Text.assemble(
        ("NeuroGate ", "bold"),
        (f"{clean(picture.gateway)} ", "dim"),
        (f"{clean(picture.version)} ", "dim"),
        (word, f"bold {style}"),
        (f"  up {seconds(picture.uptime_s)}", "dim"),
        no_wrap=True,
        overflow="ellipsis",
    )


def _totals(picture: Picture) -> Text:
    fleet = picture.fleet
    states = "  ".join(
        f"{_STATES.get(state, ('', '?'))[1]} {count} {_plain(state)}" for state, count in fleet.states.items()
    )
    ttft = f"first token {seconds(fleet.ttft_p50_s)} (p95 {seconds(fleet.ttft_p95_s)})" if fleet.ttft_p50_s else ""
    told = (
        f"{fleet.in_flight} in flight, {fleet.queued} queued",
        f"{fleet.requests_per_s:.1f} requests/s",
        f"{fleet.tokens_per_s:.0f} tokens/s",
        ttft,
        states or "no workers",
    )
    return Text("   ".join(filter(None, told)), no_wrap=True, overflow="ellipsis")


def _workers(workers: Sequence[WorkerNow], limit: int, more: int, width: int) -> Table:
    columns = ["worker", "state", "breaker", ">slots", ">held", ">queued", ">tokens/s", "last 20 s", "model", "why"]
    columns = columns[: 10 if width >= _WIDE else 8 if width >= _MIDDLING else 4]
    table = _table(*columns)
    top = max((point or 0.0 for worker in workers for point in worker.history), default=0.0)
    for worker in workers[:limit]:
        style, shape = _STATES.get(worker.state, ("", "?"))
        slots = f"{worker.slots_busy}/{worker.slots_total}" if worker.slots_total else "-"
        cells = (
            _cell(worker.id),
            _cell(f"{shape} {_plain(worker.state)}", style),
            _cell(worker.breaker, _BREAKERS.get(worker.breaker, "")),
            _cell(slots),
            _cell(str(worker.in_flight)),
            _cell(str(worker.queued)),
            _cell(f"{worker.tokens_per_s:.0f}"),
            _cell(sparkline(worker.history, top)),
            _cell(worker.models[0] if worker.models else "-"),
            _cell(worker.why),
        )
        table.add_row(*cells[: len(columns)])
    hidden = max(0, len(workers) - limit) + more
    if hidden:
        table.add_row(Text(f"and {hidden} more", style="dim"))
    return table


def _requests(requests: Sequence[Row], limit: int, total: int, width: int) -> Table:
    columns = [f"request ({total})", "phase", ">age", "worker", ">attempts", ">tokens", "model", "key"]
    columns = columns[: 8 if width >= _MIDDLING else 4]
    table = _table(*columns)
    for request in requests[:limit]:
        cells = (
            _cell(request.id),
            _cell(request.phase, _PHASES.get(request.phase, "")),
            _cell(seconds(request.age_s)),
            _cell(request.worker or "-"),
            _cell(str(request.attempts)),
            _cell(str(request.tokens) if request.stream else "-"),
            _cell(request.model or "default"),
            _cell(request.key_id or "-"),
        )
        table.add_row(*cells[: len(columns)])
    return table


def _recent(happenings: Sequence[Happening], now: float) -> Table:
    table = _table("lately", "worker", "what", "request", ">ago")
    for happening in happenings:
        times = f", {happening.count} times" if happening.count > 1 else ""
        table.add_row(
            _cell(happening.kind, _KINDS.get(happening.kind, "dim")),
            _cell(happening.worker or "-"),
            _cell(_plain(happening.reason) + times),
            _cell(happening.request_id or "-"),
            _cell(seconds(max(0.0, now - happening.at))),
        )
    return table


def _table(*columns: str) -> Table:
    """Columns by their names; `>` stands before those whose figures end at the right."""
    table = Table(box=None, pad_edge=False, expand=True, header_style="dim", title_justify="left")
    for column in columns:
        table.add_column(
            column.lstrip(">"),
            justify="right" if column.startswith(">") else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if column in {"why", "what"} else None,
            min_width=_LEAST_WIDTHS.get(column.lstrip(">")),
            max_width=_MODEL_WIDTH_MAX if column == "model" else None,
        )
    return table


def sparkline(points: Points, top: float) -> str:
    """The latest points as bars of which `top` is the highest; a blank where nobody looked."""
    shown = points[-_POINTS:]
    high = max(top, 1.0)
    bars = (" " if point is None else _BARS[min(7, int(point / high * 7.99))] for point in shown)
    return "".join(bars).rjust(_POINTS)


def seconds(value: float | None) -> str:
    """A time as people say it."""
    if value is None:
        return "-"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    minutes, left_s = divmod(int(value), 60)
    return f"{minutes} min {left_s} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _cell(words: str, style: str = "") -> Text:
    return Text(clean(words), style=style)


def _plain(word: str) -> str:
    return clean(word).replace("_", " ")

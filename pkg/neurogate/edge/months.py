"""Calendar months in UTC, from seconds since the epoch."""

from __future__ import annotations

from datetime import UTC, datetime


def month_of(wall_s: float) -> int:
    """The month as a number that grows by one a month."""
    at = datetime.fromtimestamp(wall_s, UTC)
    return at.year * 12 + at.month - 1


def name_of(month: int) -> str:
    """As 2026-11."""
    return f"{month // 12:04}-{month % 12 + 1:02}"


def until_next_s(wall_s: float) -> float:
    """Seconds until the next month begins."""
    following = month_of(wall_s) + 1
    return datetime(following // 12, following % 12 + 1, 1, tzinfo=UTC).timestamp() - wall_s

"""What was used in the last minute: a log whose entries within a second are merged (ADR 0012).

Each entry expires a whole window after its last request, so that any window holds at most what was counted in it, and
there are never more entries than seconds. Whoever charged an entry keeps it, and gives back to that very entry.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

WINDOW_S = 60.0


class Entry:
    """What was charged within one merged moment."""

    __slots__ = ("expired", "first", "last", "requests", "tokens")

    def __init__(self, now: float) -> None:
        self.first = now
        self.last = now
        self.requests = 0
        self.tokens = 0
        self.expired = False


class Window:
    """Requests and tokens charged in the last `window_s` seconds. Times must not go back."""

    __slots__ = ("_entries", "_merge_s", "_window_s", "requests", "tokens")

    def __init__(self, *, window_s: float = WINDOW_S, merge_s: float = 1.0) -> None:
        self._entries: deque[Entry] = deque()
        self._window_s = window_s
        self._merge_s = merge_s
        self.requests = 0
        """Charged now, as of the last `expire`."""
        self.tokens = 0
        """Charged now, as of the last `expire`."""

    def __repr__(self) -> str:
        return f"<Window {self.requests} requests, {self.tokens} tokens, {len(self._entries)} entries>"

    @property
    def empty(self) -> bool:
        """Whether nothing is left to expire."""
        return not self._entries

    def expire(self, now: float) -> None:
        """Forget what was charged a window ago or earlier."""
        entries = self._entries
        while entries and entries[0].last + self._window_s <= now:
            entry = entries.popleft()
            entry.expired = True
            self.requests -= entry.requests
            self.tokens -= entry.tokens

    def charge(self, now: float, requests: int, tokens: int) -> Entry:
        """Count something now; the entry takes refunds."""
        entry = self._entries[-1] if self._entries else None
        if entry is None or now - entry.first >= self._merge_s:
            entry = Entry(now)
            self._entries.append(entry)
        entry.last = now
        entry.requests += requests
        entry.tokens += tokens
        self.requests += requests
        self.tokens += tokens
        return entry

    def refund(self, entry: Entry, requests: int, tokens: int) -> None:
        """Take back what was charged to an entry; one that has expired counts no more anyway."""
        entry.requests -= requests
        entry.tokens -= tokens
        if not entry.expired:
            self.requests -= requests
            self.tokens -= tokens

    def wait_s(self, now: float, *, requests: int, tokens: int) -> float:
        """Seconds until so many requests and so many tokens have expired; negative numbers need none.

        What is charged meanwhile is not known, so it may take longer; it is never shorter, unless there is a refund.
        """
        until = now
        for entry in self._entries:
            if requests <= 0 and tokens <= 0:
                break
            requests -= entry.requests
            tokens -= entry.tokens
            until = entry.last + self._window_s
        return until - now

    def resets_s(self, now: float) -> tuple[float, float]:
        """Seconds until all requests, and until all tokens, that are charged now have expired."""
        entries = self._entries
        if entries and (last := entries[-1]).requests and last.tokens:  # the usual case
            left_s = last.last + self._window_s - now
            return left_s, left_s
        return self._reset_s(now, "requests"), self._reset_s(now, "tokens")

    def _reset_s(self, now: float, what: Literal["requests", "tokens"]) -> float:
        for entry in reversed(self._entries):
            if getattr(entry, what):
                return entry.last + self._window_s - now
        return 0.0

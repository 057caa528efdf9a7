"""The values that a label may take: so many of their own, and `other` for what comes later (ADR 0025).

A name that is gone keeps its series, which rates still need, until its place is wanted by another one.
"""

from __future__ import annotations

from collections.abc import Callable, Container

OTHER = "other"
UNKNOWN = "unknown"
"""What there is nowhere: a client must not make up labels."""


class Names:
    """The values of one label."""

    def __init__(self, limit: int, on_forgotten: Callable[[str], None] = lambda _: None) -> None:
        """At most `limit` names at a time; `on_forgotten` hears whose series are to be dropped for another's."""
        self._limit = limit
        self._on_forgotten = on_forgotten
        self._present: set[str] = set()
        self._gone: dict[str, None] = {}
        """In the order in which they went."""

    def __contains__(self, name: str) -> bool:
        return name in self._present or name in self._gone

    def __repr__(self) -> str:
        return f"<Names {len(self._present)} of {self._limit}, {len(self._gone)} gone>"

    def of(self, name: str) -> str:
        """The label for this name: itself, where there is a place."""
        if name in self._present or name in self._gone:
            return name
        if len(self._present) + len(self._gone) >= self._limit:
            if not self._gone:
                return OTHER
            longest_gone = next(iter(self._gone))
            del self._gone[longest_gone]
            self._on_forgotten(longest_gone)
        self._present.add(name)
        return name

    def only(self, present: Container[str]) -> None:
        """These are there now, and no others."""
        for name in [name for name in self._present if name not in present]:
            self._present.discard(name)
            self._gone[name] = None
        for name in [name for name in self._gone if name in present]:
            del self._gone[name]
            self._present.add(name)

"""What a worker is, in one word: for `/workers`, `/health`, the metrics, the log and the texts of errors alike.

A worker is the first of these that holds. The order is that of what an operator would have to mend first: what comes
later says nothing while something before it holds.
"""

from __future__ import annotations

import enum


class WorkerState(enum.StrEnum):
    """In the order in which they are looked for."""

    UNREACHABLE = "unreachable"
    """There is no link to it."""
    DRAINING = "draining"
    """It finishes what it holds and takes nothing new: it said so, or it was removed."""
    CORDONED = "cordoned"
    """An admin lets it have nothing new."""
    NOT_READY = "not_ready"
    """It says that it cannot serve now, for example because its engine starts."""
    OPEN = "open"
    """Its breaker is open: it failed too often, or was too slow."""
    HALF_OPEN = "half_open"
    """Its breaker has a probe out."""
    EJECTED = "ejected"
    """It is much worse than its peers, and gets nothing new while they can do without it."""
    RESTING = "resting"
    """It is well, and asked to be left alone for a moment."""
    READY = "ready"
    """It may be picked."""

    @property
    def available(self) -> bool:
        """Whether it is well: what `/health` counts."""
        return self in _AVAILABLE


_AVAILABLE = frozenset({WorkerState.READY, WorkerState.RESTING})

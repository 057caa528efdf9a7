"""Round robin: each candidate in turn."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from neurogate.balancing.picker import Candidate, CandidateT


class RoundRobin:
    """Remembers only how often it picked, so a changed fleet needs no bookkeeping."""

    def __init__(self) -> None:
        self._next = 0

    def pick(self, candidates: Sequence[CandidateT], exclude: Collection[str]) -> CandidateT | None:
        """The next candidate that is not excluded: at most one more look than there are of those."""
        count = len(candidates)
        for _ in range(count):
            candidate = candidates[self._next % count]
            self._next += 1
            if not exclude or candidate.id not in exclude:
                return candidate
        return None

    def score(self, candidate: Candidate) -> float | None:  # noqa: ARG002 - the protocol's
        """Nothing: whose turn it is does not hang on what anybody is."""
        return None

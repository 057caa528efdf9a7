"""Least requests by the power of two choices: of two random candidates, the one that holds fewer requests.

Two random choices come close to the best of all without scanning the fleet, and without the herd that a stale "least
loaded" attracts (Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, 2001).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

from neurogate.balancing.picker import Candidate, CandidateT

_DRAWS = 8
"""Draws of two until none of them is excluded, which is as likely for any two as in a list without the excluded; such a
list is made only where there are hardly any others."""


class LeastRequests:
    """Power of two choices on `Candidate.load`."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def pick(self, candidates: Sequence[CandidateT], exclude: Collection[str]) -> CandidateT | None:
        """The less loaded of two distinct random candidates; ties go to the first drawn."""
        for _ in range(_DRAWS):
            count = len(candidates)
            if count < 2:
                break
            first = int(self._rng.random() * count)
            second = int(self._rng.random() * (count - 1))
            second += second >= first
            one, other = candidates[first], candidates[second]
            if not exclude or (one.id not in exclude and other.id not in exclude):
                return other if other.load < one.load else one
        if exclude:
            candidates = [candidate for candidate in candidates if candidate.id not in exclude]
            return self.pick(candidates, ())
        return candidates[0] if candidates else None

    def score(self, candidate: Candidate) -> float | None:
        """Its load."""
        return candidate.load

"""The contract of a picker.

A picker chooses among candidates it is given: it never waits, reads no clock and does no I/O, so a pick costs the same
in the gateway, in a test and in the simulator. How to add one: a class with `pick` in a module of its own, its name in
`build`, its oracle in tests/property/test_pickers.py.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar

from neurogate.errors import ConfigError


class Candidate(Protocol):
    """What a picker may know of an endpoint."""

    @property
    def id(self) -> str:
        """The endpoint's stable name."""
        ...

    @property
    def load(self) -> int:
        """Requests it holds, this gateway's and other callers'."""
        ...


CandidateT = TypeVar("CandidateT", bound=Candidate)


class Picker(Protocol):
    """One balancing policy."""

    def pick(self, candidates: Sequence[CandidateT], exclude: Collection[str]) -> CandidateT | None:
        """Choose one candidate whose id is not excluded, or None when there is none. Synchronous, never raises."""
        ...

    def score(self, candidate: Candidate) -> float | None:
        """What `pick` compares of a candidate, the lower the better; None when it compares nothing. Changes nothing."""
        ...


def build(name: str, *, rng: random.Random) -> Picker:
    """The picker of that name.

    Raises ConfigError listing the names there are.
    """
    from neurogate.balancing.least_requests import LeastRequests
    from neurogate.balancing.round_robin import RoundRobin

    match name:
        case "round_robin":
            return RoundRobin()
        case "least_requests":
            return LeastRequests(rng)
        case _:
            raise ConfigError(f"NEUROGATE_BALANCER: no picker is named {name!r}; there are round_robin, least_requests")

"""Least requests by the power of two choices."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from neurogate.balancing.least_requests import LeastRequests


@dataclass
class Worker:
    id: str
    load: int = 0


def test_of_two_candidates_the_less_loaded_always_wins():
    picker = LeastRequests(random.Random(1))
    busy, idle = Worker("busy", load=2), Worker("idle", load=1)

    assert {picker.pick((busy, idle), ()) is idle for _ in range(100)} == {True}


def test_ties_are_shared():
    picker = LeastRequests(random.Random(1))
    candidates = [Worker("a"), Worker("b")]
    counts = Counter(picker.pick(candidates, ()).id for _ in range(1000))

    assert set(counts) == {"a", "b"}
    assert max(counts.values()) < 600


def test_the_most_loaded_of_many_is_never_chosen_and_nobody_else_is_left_out():
    picker = LeastRequests(random.Random(1))
    candidates = [Worker(str(load), load) for load in range(6)]
    counts = Counter(picker.pick(candidates, ()).load for _ in range(2000))

    assert set(counts) == {0, 1, 2, 3, 4}
    assert counts[0] > counts[1] > counts[2] > counts[3] > counts[4]


def test_a_single_candidate_needs_no_choice():
    picker = LeastRequests(random.Random(1))
    only, other = Worker("only", load=50), Worker("other")

    assert picker.pick((only,), ()) is only
    assert picker.pick((other, only), ("other",)) is only


def test_none_when_there_is_nobody_or_everybody_is_excluded():
    picker = LeastRequests(random.Random(1))

    assert picker.pick((), ()) is None
    assert picker.pick((Worker("a"), Worker("b")), ("a", "b")) is None


def test_evens_out_uneven_fleets():
    """Every pick adds a request that never ends: two choices keep the spread far below chance's."""
    picker = LeastRequests(random.Random(1))
    candidates = [Worker(str(index)) for index in range(50)]
    for _ in range(5000):
        picker.pick(candidates, ()).load += 1
    loads = [worker.load for worker in candidates]

    assert max(loads) - min(loads) <= 6


class Counted(Sequence[Worker]):
    """Counts how many of its workers are looked at."""

    def __init__(self, workers: int) -> None:
        self.workers = [Worker(str(index)) for index in range(workers)]
        self.looks = 0

    def __len__(self) -> int:
        return len(self.workers)

    @overload
    def __getitem__(self, index: int) -> Worker: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Worker]: ...
    def __getitem__(self, index: int | slice) -> Worker | Sequence[Worker]:
        self.looks += 1
        return self.workers[index]


def test_passing_over_a_few_of_a_large_fleet_does_not_look_at_all_of_it():
    picker = LeastRequests(random.Random(1))
    fleet = Counted(10_000)
    for _ in range(100):
        picker.pick(fleet, ("1", "2", "3"))

    assert fleet.looks < 300


def test_those_that_are_left_are_chosen_evenly():
    picker = LeastRequests(random.Random(1))
    candidates = [Worker(str(index)) for index in range(6)]
    counts = Counter(picker.pick(candidates, ("0", "3")).id for _ in range(4000))

    assert set(counts) == {"1", "2", "4", "5"}
    assert max(counts.values()) - min(counts.values()) < 200

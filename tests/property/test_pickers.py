"""What every picker promises, and what each promises beyond that."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from neurogate.balancing.least_requests import LeastRequests
from neurogate.balancing.picker import Picker, build
from neurogate.balancing.round_robin import RoundRobin

NAMES = ["round_robin", "least_requests"]


@dataclass(frozen=True)
class Worker:
    id: str
    load: int


loads = st.lists(st.integers(0, 20), max_size=12)
chances = st.floats(0, 1, exclude_max=True)


def fleet(worker_loads: list[int]) -> tuple[Worker, ...]:
    return tuple(Worker(f"worker-{index}", load) for index, load in enumerate(worker_loads))


def started(name: str, picks: int, seed: int) -> Picker:
    """A picker that has been in use."""
    picker = build(name, rng=random.Random(seed))
    for _ in range(picks):
        picker.pick(fleet([0, 0, 0]), ())
    return picker


@pytest.mark.parametrize("name", NAMES)
@given(worker_loads=loads, excluded=st.sets(st.integers(0, 12)), picks=st.integers(0, 20), seed=st.integers(0, 99))
def test_a_pick_is_a_candidate_that_is_not_excluded_and_none_only_if_all_are(
    name: str, worker_loads: list[int], excluded: set[int], picks: int, seed: int
):
    candidates = fleet(worker_loads)
    exclude = tuple(f"worker-{index}" for index in excluded)
    allowed = [worker for worker in candidates if worker.id not in exclude]

    for _ in range(len(candidates) + 1):
        chosen = started(name, picks, seed).pick(candidates, exclude)

        assert (chosen is None) == (not allowed)
        assert chosen is None or chosen in allowed


@pytest.mark.parametrize("name", NAMES)
@given(worker_loads=loads, seed=st.integers(0, 99))
def test_excluding_each_pick_in_turn_reaches_everybody_once(name: str, worker_loads: list[int], seed: int):
    """As a request does that fails everywhere."""
    candidates = fleet(worker_loads)
    picker = started(name, seed, seed)
    tried: tuple[str, ...] = ()
    while (chosen := picker.pick(candidates, tried)) is not None:
        tried = (*tried, chosen.id)

    assert sorted(tried) == sorted(worker.id for worker in candidates)


@given(sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 40)), min_size=1, max_size=6))
def test_round_robin_is_fair_to_within_one_over_any_stable_set(sizes: list[tuple[int, int]]):
    """At every moment since the set became what it is, whatever it was before."""
    picker = RoundRobin()
    for size, picks in sizes:
        candidates = fleet([0] * size)
        counts = Counter({worker.id: 0 for worker in candidates})
        for _ in range(picks):
            chosen = picker.pick(candidates, ())
            assert chosen is not None
            counts[chosen.id] += 1

            assert max(counts.values()) - min(counts.values()) <= 1


@given(size=st.integers(2, 9), excluded=st.integers(0, 8), rounds=st.integers(1, 20))
def test_round_robin_serves_all_that_are_left_in_every_round(size: int, excluded: int, rounds: int):
    """Passing one worker over starves nobody else."""
    assume(excluded < size)
    picker, candidates = RoundRobin(), fleet([0] * size)
    out = (f"worker-{excluded}",)
    counts = Counter(picker.pick(candidates, out).id for _ in range(rounds * (size - 1)))

    assert set(counts.values()) == {rounds}


class TwoDraws(random.Random):
    """Draws what the test says."""

    def __init__(self, draws: list[float]) -> None:
        super().__init__()
        self.draws = draws

    def random(self) -> float:
        return self.draws.pop(0)


@given(worker_loads=st.lists(st.integers(0, 20), min_size=2, max_size=12), first=chances, second=chances)
def test_least_requests_takes_the_less_loaded_of_two_different_workers(
    worker_loads: list[int], first: float, second: float
):
    candidates = fleet(worker_loads)
    one = candidates[int(first * len(candidates))]
    others = [worker for worker in candidates if worker is not one]
    other = others[int(second * len(others))]
    chosen = LeastRequests(TwoDraws([first, second])).pick(candidates, ())

    assert chosen in (one, other)
    assert chosen.load == min(one.load, other.load)
    assert chosen is one or other.load < one.load


@given(worker_loads=st.lists(st.integers(0, 20), min_size=2, max_size=12, unique=True), seed=st.integers(0, 999))
def test_least_requests_never_takes_the_most_loaded_worker(worker_loads: list[int], seed: int):
    chosen = LeastRequests(random.Random(seed)).pick(fleet(worker_loads), ())

    assert chosen is not None
    assert chosen.load < max(worker_loads)

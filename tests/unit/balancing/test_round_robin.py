"""Round robin."""

from __future__ import annotations

from dataclasses import dataclass

from neurogate.balancing.round_robin import RoundRobin


@dataclass(frozen=True)
class Worker:
    id: str
    load: int = 0


def names(text: str) -> tuple[Worker, ...]:
    return tuple(Worker(letter) for letter in text)


def picks(picker: RoundRobin, candidates: tuple[Worker, ...], count: int, exclude: tuple[str, ...] = ()) -> str:
    chosen = [picker.pick(candidates, exclude) for _ in range(count)]
    return "".join(worker.id if worker else "-" for worker in chosen)


def test_takes_each_in_turn():
    assert picks(RoundRobin(), names("abc"), 7) == "abcabca"


def test_passes_the_excluded_over():
    assert picks(RoundRobin(), names("abc"), 4, exclude=("b",)) == "acac"


def test_none_when_there_is_nobody_or_everybody_is_excluded():
    assert picks(RoundRobin(), (), 1) == "-"
    assert picks(RoundRobin(), names("ab"), 1, exclude=("b", "a")) == "-"


def test_goes_on_when_the_fleet_changes():
    picker = RoundRobin()

    assert picks(picker, names("abcd"), 3) == "abc"
    assert picks(picker, names("ab"), 2) == "ba"
    assert picks(picker, names("abcde"), 5) in {"abcde", "bcdea", "cdeab", "deabc", "eabcd"}


def test_does_not_look_at_load():
    candidates = (Worker("a", load=99), Worker("b"))

    assert picks(RoundRobin(), candidates, 4) == "abab"

"""Several ways to the same thing, in virtual time: who begins when, who wins, and what becomes of the others."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from neurogate.race import STAGGER_S, first_of
from neurogate.virtual_time import run

Way = Callable[[], Coroutine[Any, Any, str]]


class WayError(OSError):
    """Of a way, by its name."""


class Course:
    """Makes ways, and keeps when each began and which were cancelled."""

    def __init__(self) -> None:
        self.begun: dict[str, float] = {}
        self.cancelled: list[str] = []
        self.discarded: list[str] = []

    def way(self, name: str, takes_s: float, *, fails: type[Exception] | None = None, stubborn: bool = False) -> Way:
        async def go() -> str:
            self.begun[name] = asyncio.get_running_loop().time()
            try:
                await asyncio.sleep(takes_s)
            except asyncio.CancelledError:
                self.cancelled.append(name)
                if not stubborn:
                    raise
            if fails is not None:
                raise fails(name)
            return name

        return go

    async def won_by(self, *ways: Way) -> tuple[str, float]:
        began = asyncio.get_running_loop().time()
        winner = await first_of(ways, discard=self.discarded.append)
        self.begun = {name: at - began for name, at in self.begun.items()}
        return winner, asyncio.get_running_loop().time() - began


def test_the_first_goes_alone_as_long_as_it_is_quick() -> None:
    async def main() -> None:
        course = Course()
        assert await course.won_by(course.way("a", 0.2), course.way("b", 0)) == ("a", pytest.approx(0.2))
        assert course.begun == {"a": 0}

    run(main())


def test_a_dead_one_costs_a_moment_and_is_let_go() -> None:
    async def main() -> None:
        course = Course()
        won = await course.won_by(course.way("dead", 1e6), course.way("gone", 1e6), course.way("c", 0.1))
        assert won == ("c", pytest.approx(2 * STAGGER_S + 0.1))
        assert course.begun == pytest.approx({"dead": 0, "gone": STAGGER_S, "c": 2 * STAGGER_S})
        assert sorted(course.cancelled) == ["dead", "gone"]
        assert course.discarded == []

    run(main())


def test_a_slow_one_is_not_given_up_for_the_next() -> None:
    async def main() -> None:
        course = Course()
        won = await course.won_by(course.way("slow", 0.5), course.way("slower", 0.5))
        assert won == ("slow", pytest.approx(0.5))
        assert course.cancelled == ["slower"]

    run(main())


def test_one_that_fails_makes_room_at_once() -> None:
    async def main() -> None:
        course = Course()
        won = await course.won_by(course.way("a", 0.01, fails=WayError), course.way("b", 0.01))
        assert won == ("b", pytest.approx(0.02))

    run(main())


def test_the_last_error_is_told_when_none_is_left_and_frees_itself() -> None:
    async def main() -> None:
        course = Course()
        try:
            await course.won_by(course.way("late", 1, fails=WayError), course.way("early", 0, fails=WayError))
        except WayError as error:
            told, seen = str(error), weakref.ref(error)
        assert (told, seen()) == ("late", None)

    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()


def test_an_error_that_is_no_sockets_ends_the_race() -> None:
    async def main() -> None:
        course = Course()
        with pytest.raises(ValueError, match="bug"):
            await course.won_by(course.way("a", 1e6), course.way("bug", 0, fails=ValueError), course.way("c", 0))
        assert (course.cancelled, "c" in course.begun) == (["a"], False)

    run(main())


def test_what_comes_beside_the_winner_is_discarded() -> None:
    async def main() -> None:
        course = Course()
        won = await course.won_by(course.way("b", 1e6, stubborn=True), course.way("a", 0.1))
        assert (won[0], course.discarded) == ("a", ["b"])

    run(main())


def test_whoever_waits_no_longer_leaves_nobody_running() -> None:
    async def main() -> None:
        course = Course()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await course.won_by(course.way("a", 1e6), course.way("b", 1e6, stubborn=True))
        assert sorted(course.cancelled) == ["a", "b"]
        assert course.discarded == ["b"]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())

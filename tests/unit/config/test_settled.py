"""Waiting for a file that somebody may still be writing."""

from __future__ import annotations

import asyncio
import itertools

from neurogate.config.settled import LOOKS_MAX, settled


def looks_at(*contents: str) -> int:
    """How often a file is looked at that has these contents one after another, and then the last one for ever."""
    looks = 0
    left = itertools.chain(contents, itertools.repeat(contents[-1]))

    def look() -> bytes:
        nonlocal looks
        looks += 1
        return next(left).encode()

    asyncio.run(settled(look, pause_s=0))
    return looks


def test_a_file_is_settled_when_two_looks_find_the_same() -> None:
    assert looks_at("a") == 2
    assert looks_at("a", "ab", "abc") == 4


def test_a_file_that_never_settles_is_waited_for_no_longer_than_so_many_looks() -> None:
    assert looks_at(*map(str, range(1000))) == LOOKS_MAX

"""The values of a label are bounded, and places go to who is there."""

from __future__ import annotations

from neurogate.telemetry.names import OTHER, Names


def test_what_comes_when_all_places_are_taken_is_other() -> None:
    names = Names(2)
    assert [names.of(name) for name in ("a", "b", "c", "a", "c")] == ["a", "b", OTHER, "a", OTHER]
    assert ("a" in names, "c" in names) == (True, False)
    assert repr(names) == "<Names 2 of 2, 0 gone>"


def test_who_is_gone_keeps_its_series_until_the_place_is_wanted() -> None:
    forgotten: list[str] = []
    names = Names(2, forgotten.append)
    names.of("a")
    names.of("b")
    names.only({"b"})
    assert (names.of("a"), forgotten) == ("a", [])
    assert (names.of("c"), forgotten) == ("c", ["a"])
    assert names.of("a") == OTHER


def test_the_longest_gone_makes_room_first_and_who_is_back_stays() -> None:
    forgotten: list[str] = []
    names = Names(3, forgotten.append)
    for name in ("a", "b", "c"):
        names.of(name)
    names.only({"b", "c"})
    names.only({"c"})
    names.only({"a", "c"})
    assert [names.of(name) for name in ("d", "e")] == ["d", OTHER]
    assert forgotten == ["b"]

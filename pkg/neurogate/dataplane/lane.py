"""The members that have one model, in fleet order: those to pick from, and those that something keeps out.

A lane is never changed: `edited` makes the next one, which shares with it every list that is the same in both. What
only some requests ask (an API that not every worker has) is worked out at the first of them and carried on to the next
lane.
"""

from __future__ import annotations

import enum
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple

from neurogate.dataplane.member import Member

Members = tuple[Member, ...]

_rank = attrgetter("rank")


class Candidates(NamedTuple):
    """Members that may be picked for a model."""

    loaded: Members
    """Those that have it loaded; all of them when none has."""
    others: Members
    """Those that would have to load it first, where some need not."""


class Column(enum.IntEnum):
    """Where in a lane a member is."""

    LOADED = 0
    UNLOADED = 1
    """It may be picked like those that have the model loaded, and would have to load it first."""
    SUSPENDED = 2


class Edit(NamedTuple):
    """A member that changes columns; None is no column. Both may be the same one: what it can do has changed."""

    member: Member
    before: Column | None
    after: Column | None


class Lane:
    """The members of one model."""

    __slots__ = ("_able", "_admitting", "_columns", "candidates")

    def __init__(self, columns: tuple[Members, Members, Members] = ((), (), ())) -> None:
        """`columns` are those of `Column`, in its order."""
        self._columns = columns
        self._able: dict[str, Lane] = {}
        self._admitting: Members | None = None
        loaded, unloaded, _ = columns
        self.candidates = Candidates(loaded, unloaded) if loaded else Candidates(unloaded, ())

    @property
    def admitting(self) -> Members:
        """Members to pick from."""
        if self._admitting is None:
            loaded, others = self.candidates
            self._admitting = tuple(sorted((*loaded, *others), key=_rank)) if others else loaded
        return self._admitting

    @property
    def suspended(self) -> Members:
        """Members that only their breaker, their rest or their ejection keeps out."""
        return self._columns[Column.SUSPENDED]

    def able(self, api: str) -> Lane:
        """Those of its members that have an API; the empty name is one that everybody has."""
        if not api:
            return self
        found = self._able.get(api)
        if found is None:
            loaded, unloaded, suspended = (
                tuple(member for member in column if member.can_do(api)) for column in self._columns
            )
            found = self._able[api] = Lane((loaded, unloaded, suspended))
        return found

    def edited(self, edits: Sequence[Edit]) -> Lane:
        """The lane after these edits, of a member each."""
        loaded, unloaded, suspended = (
            _edited(
                members,
                [edit.member for edit in edits if edit.before is column],
                [edit.member for edit in edits if edit.after is column],
            )
            for column, members in zip(Column, self._columns, strict=True)
        )
        lane = Lane((loaded, unloaded, suspended))
        for api, able in self._able.items():
            still = [edit if edit.member.can_do(api) else edit._replace(after=None) for edit in edits]
            lane._able[api] = able.edited(still)
        return lane

    def __bool__(self) -> bool:
        return any(self._columns)


def _edited(members: Members, gone: Iterable[Member], come: Iterable[Member]) -> Members:
    """Of a large fleet's members a copy costs much less than looking at each of them."""
    if not gone and not come:
        return members
    found = list(members)
    for member in gone:
        at = bisect_left(found, member.rank, key=_rank)
        if at < len(found) and found[at] is member:
            del found[at]
    for member in come:
        insort(found, member, key=_rank)
    return tuple(found)

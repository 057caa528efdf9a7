"""What the pool's snapshots are made of, brought up to date a changed worker at a time.

With 10 000 workers, a snapshot made from all of them took 30 ms, in which no token passed, and every worker that came,
left, broke or rested made one. So the roster remembers where it put each worker, and a worker that has changed costs a
copy of the lists that it enters or leaves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from neurogate.dataplane.lane import Column, Edit, Lane, Members
from neurogate.dataplane.member import NEVER_HEARD, Member
from neurogate.dataplane.snapshot import Snapshot
from neurogate.endpoint import ServedModel


class _Place(NamedTuple):
    """What snapshots say of a member."""

    picked: bool = False
    kept_out: bool = False
    """It could be asked, but for its breaker, its rest or its ejection."""
    unproved: bool = False
    heard: bool = True
    models: tuple[ServedModel, ...] = ()
    apis: frozenset[str] = frozenset()
    slots: int = 0

    def columns(self) -> dict[str, Column | None]:
        """Its column in the lane of each of its models, and in everybody's."""
        if not self.picked:
            column = Column.SUSPENDED if self.kept_out else None
            return {"": column} | {served.name: column for served in self.models}
        columns: dict[str, Column | None] = {}
        for served in self.models:
            if columns.get(served.name) is not Column.LOADED:
                columns[served.name] = Column.LOADED if served.loaded else Column.UNLOADED
        columns[""] = Column.LOADED  # of a default model nobody knows which it is
        return columns


_NOWHERE = _Place()


class Roster:
    """Single writer: the pool."""

    def __init__(self) -> None:
        self._places: dict[Member, _Place] = {}
        self._members: Members = ()
        self._has_members = True
        """Else they must be listed anew."""
        self._lanes: dict[str, Lane] = {"": Lane()}
        self._workers: Counter[str] = Counter()
        """Of each model."""
        self._models: frozenset[str] = frozenset()
        self._unproved: dict[Member, None] = {}
        self._unheard = 0

    def snapshot(self, generation: int, changed: Iterable[Member], *, is_known: Callable[[Member], bool]) -> Snapshot:
        """The fleet as it is now, of which these members may have changed; those that are not known are gone."""
        edits: dict[str, list[Edit]] = {}
        for member in changed:
            self._put(member, _place_of(member) if is_known(member) else None, edits)
        if edits:
            self._lanes = self._lanes.copy()
            for model, of_model in edits.items():
                lane = self._lanes.get(model, Lane()).edited(of_model)
                if lane or not model:
                    self._lanes[model] = lane
                else:
                    self._lanes.pop(model, None)
        if not self._has_members:
            self._members = tuple(self._places)
            self._has_members = True
        return Snapshot(
            generation,
            self._members,
            self._lanes,
            models=self._models,
            unproved=tuple(self._unproved),
            heard_of_all=not self._unheard,
        )

    def _put(self, member: Member, place: _Place | None, edits: dict[str, list[Edit]]) -> None:
        was = self._places.get(member)
        if place == was:
            return
        if place is None:
            del self._places[member]
        else:
            self._places[member] = place
        self._has_members = self._has_members and was is not None and place is not None
        before, after = was or _NOWHERE, place or _NOWHERE
        self._unheard += before.heard - after.heard
        if after.unproved:
            self._unproved[member] = None
        else:
            self._unproved.pop(member, None)
        if before.models != after.models:
            self._count_models(before, after)
        others = (before.apis, before.slots) != (after.apis, after.slots)
        columns, columns_after = before.columns(), after.columns()
        for model in columns | columns_after:
            edit = Edit(member, columns.get(model), columns_after.get(model))
            if edit.before is not edit.after or (others and edit.after is not None):
                edits.setdefault(model, []).append(edit)

    def _count_models(self, before: _Place, after: _Place) -> None:
        gone = {served.name for served in before.models}
        come = {served.name for served in after.models}
        self._workers.update(come - gone)
        self._workers.subtract(gone - come)
        for model in gone - come:
            if not self._workers[model]:
                del self._workers[model]
        if self._workers.keys() != self._models:
            self._models = frozenset(self._workers)


def _place_of(member: Member) -> _Place:
    usable, breaker, report = member.usable, member.breaker, member.report
    picked = usable and not member.aside and breaker.may_admit
    return _Place(
        picked,
        usable and not picked,
        usable and breaker.state != "closed",
        report is not NEVER_HEARD,
        report.models,
        report.apis,
        member.slots,
    )

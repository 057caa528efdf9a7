"""An immutable view of the fleet: what pickers choose from. Superseded, never edited.

Who admits is worked out when the snapshot is made, not at every pick, so a pick costs the same for three workers and
for a thousand.
"""

from __future__ import annotations

from collections.abc import Iterable

from neurogate.dataplane.member import NEVER_HEARD, Member


class Snapshot:
    """The fleet at one moment.

    `admitting(model)` are the members that may be picked; `suspended(model)` would be usable but for their breakers.
    """

    __slots__ = ("_admitting", "_suspended", "generation", "heard_of_all", "members", "models")

    def __init__(self, members: Iterable[Member], generation: int) -> None:
        self.members = tuple(members)
        self.generation = generation
        self.models: frozenset[str] = frozenset(
            served.name for member in self.members for served in member.report.models
        )
        """Every model any worker ever reported, down workers included."""
        self.heard_of_all = all(member.report is not NEVER_HEARD for member in self.members)
        """Every worker has reported at least once, so `models` is the whole truth."""
        usable = [member for member in self.members if member.usable]
        self._admitting = _by_model(member for member in usable if member.breaker.may_admit)
        self._suspended = _by_model(member for member in usable if not member.breaker.may_admit)

    def admitting(self, model: str) -> tuple[Member, ...]:
        """Members to pick from; the empty name means any model."""
        return self._admitting.get(model, ())

    def suspended(self, model: str) -> tuple[Member, ...]:
        """Members that only their breaker keeps out."""
        return self._suspended.get(model, ())


def _by_model(members: Iterable[Member]) -> dict[str, tuple[Member, ...]]:
    lists: dict[str, list[Member]] = {"": []}
    for member in members:
        lists[""].append(member)
        for served in member.report.models:
            lists.setdefault(served.name, []).append(member)
    return {model: tuple(found) for model, found in lists.items()}

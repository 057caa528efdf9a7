"""An immutable view of the fleet: what pickers choose from. Superseded, never edited.

Who admits is worked out when the snapshot is made, not at every pick, so a pick costs the same for three workers and
for a thousand. What only some requests ask (an API that not every worker has) is worked out at the first of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from neurogate.dataplane.member import NEVER_HEARD, Member

_Members = tuple[Member, ...]


class Candidates(NamedTuple):
    """Members that may be picked for a model."""

    loaded: _Members
    """Those that have it loaded; all of them when none has."""
    others: _Members
    """Those that would have to load it first, where some need not."""


_NOBODY = Candidates((), ())


class Snapshot:
    """The fleet at one moment.

    `admitting(model)` are the members that may be picked; `suspended(model)` those that could be asked but for their
    breaker, their rest or their ejection.
    """

    __slots__ = (
        "_admitting",
        "_candidates",
        "_suspended",
        "generation",
        "heard_of_all",
        "members",
        "models",
        "unproved",
    )

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
        picked = [member for member in usable if not member.aside and member.breaker.may_admit]
        kept_out = (
            [member for member in usable if member.aside or not member.breaker.may_admit]
            if len(picked) < len(usable)
            else []
        )
        self.unproved = tuple(member for member in usable if member.breaker.state != "closed")
        """Usable members whose breakers want a probe, now or later."""
        self._admitting = _by_model(picked)
        self._suspended = _by_model(kept_out)
        self._candidates = {("", model): _parted(found, model) for model, found in self._admitting.items()}

    def admitting(self, model: str, api: str = "") -> _Members:
        """Members to pick from; the empty name means any model, the empty API one that every worker has."""
        return _able(self._admitting.get(model, ()), api)

    def suspended(self, model: str, api: str = "") -> _Members:
        """Members that only their breaker, their rest or their ejection keeps out."""
        return _able(self._suspended.get(model, ()), api)

    def candidates(self, model: str, api: str = "") -> Candidates:
        """The members that `admitting` gives, those with the model loaded first."""
        found = self._candidates.get((api, model))
        if found is not None:
            return found
        if model not in self._admitting:
            return _NOBODY
        found = self._candidates[(api, model)] = _parted(self.admitting(model, api), model)
        return found


def _by_model(members: Iterable[Member]) -> dict[str, tuple[Member, ...]]:
    lists: dict[str, list[Member]] = {"": []}
    for member in members:
        lists[""].append(member)
        for served in member.report.models:
            lists.setdefault(served.name, []).append(member)
    return {model: tuple(found) for model, found in lists.items()}


def _able(members: _Members, api: str) -> _Members:
    return tuple(member for member in members if member.can_do(api)) if api else members


def _parted(members: _Members, model: str) -> Candidates:
    loaded = tuple(member for member in members if has_loaded(member, model))
    if not loaded or len(loaded) == len(members):
        return Candidates(members, ())
    return Candidates(loaded, tuple(member for member in members if not has_loaded(member, model)))


def has_loaded(member: Member, model: str) -> bool:
    """Whether the model need not be loaded first; of a default model nobody knows which it is."""
    return not model or any(served.name == model and served.loaded for served in member.report.models)

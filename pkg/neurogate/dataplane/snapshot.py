"""An immutable view of the fleet: what pickers choose from. Superseded, never edited.

Who admits is worked out when a worker changes, not at every pick, so a pick costs the same for three workers and for a
thousand. What has not changed since the snapshot before is shared with it (`neurogate.dataplane.roster`).
"""

from __future__ import annotations

from collections.abc import Mapping

from neurogate.dataplane.lane import Candidates, Lane, Members
from neurogate.dataplane.member import Member

_NOBODY = Lane()


class Snapshot:
    """The fleet at one moment.

    `admitting(model)` are the members that may be picked; `suspended(model)` those that could be asked but for their
    breaker, their rest or their ejection.
    """

    __slots__ = ("_lanes", "generation", "heard_of_all", "members", "models", "unproved")

    def __init__(
        self,
        generation: int,
        members: Members,
        lanes: Mapping[str, Lane],
        *,
        models: frozenset[str],
        unproved: Members,
        heard_of_all: bool,
    ) -> None:
        """`lanes` are by model, the empty name's has everybody."""
        self.generation = generation
        self.members = members
        self.models = models
        """Every model any worker ever reported, down workers included."""
        self.heard_of_all = heard_of_all
        """Every worker has reported at least once, so `models` is the whole truth."""
        self.unproved = unproved
        """Usable members whose breakers want a probe, now or later."""
        self._lanes = lanes

    def admitting(self, model: str, api: str = "") -> Members:
        """Members to pick from; the empty name means any model, the empty API one that every worker has."""
        return self._lanes.get(model, _NOBODY).able(api).admitting

    def suspended(self, model: str, api: str = "") -> Members:
        """Members that only their breaker, their rest or their ejection keeps out."""
        return self._lanes.get(model, _NOBODY).able(api).suspended

    def candidates(self, model: str, api: str = "") -> Candidates:
        """The members that `admitting` gives, those with the model loaded first."""
        return self._lanes.get(model, _NOBODY).able(api).candidates


def has_loaded(member: Member, model: str) -> bool:
    """Whether the model need not be loaded first; of a default model nobody knows which it is."""
    return not model or any(served.name == model and served.loaded for served in member.report.models)

"""Why this worker: each of a fleet as it looks to one pick, with what keeps it out (ADR 0027).

Tells what the dispatcher's pick goes by, in the same order, without making one: no permit is taken and nothing counted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from neurogate.channel import Call
from neurogate.dataplane.member import Member
from neurogate.dataplane.snapshot import Snapshot, has_loaded
from neurogate.endpoint import ModelIdentity


class Considered(msgspec.Struct, frozen=True):
    """One worker in the eyes of a pick."""

    worker_id: str
    state: str
    load: int
    """Requests it holds."""
    loaded: bool
    """It has the model loaded."""
    excluded_because: str = ""
    """Empty for a candidate. The first that holds of: tried; its state, where it cannot be asked; model; api;
    no_resume and other_model, for an answer that is continued; resting; ejected; breaker; full and not_loaded, where
    others have the model loaded and room."""
    score: float | None = None
    """What the policy compares, the lower the better; None when it compares nothing."""


def consider(
    snapshot: Snapshot,
    call: Call,
    tried: Collection[str],
    like: ModelIdentity | None,
    *,
    score: Callable[[Member], float | None],
) -> tuple[Considered, ...]:
    """Every worker of the snapshot, in its order; `like` is the model of an answer that is to be continued."""
    why_not = {member: _why_not(member, call, tried, like) for member in snapshot.members}
    if like is None:
        loaded, others = snapshot.candidates(call.model, call.api)
        if others and any(member.load < member.report.slots_total for member in loaded if not why_not[member]):
            why_not |= {member: why_not[member] or "not_loaded" for member in others}
            full = (member for member in loaded if member.load >= member.report.slots_total)
            why_not |= {member: why_not[member] or "full" for member in full}
    return tuple(
        Considered(
            member.id,
            str(member.state),
            member.load,
            member.serves(call.model) and has_loaded(member, call.model),
            reason,
            score(member) if not reason else None,
        )
        for member, reason in why_not.items()
    )


def _why_not(member: Member, call: Call, tried: Collection[str], like: ModelIdentity | None) -> str:
    reasons = (
        ("tried", member.id in tried),
        (str(member.state), not member.usable),
        ("model", not member.serves(call.model)),
        ("api", not member.can_do(call.api)),
        ("no_resume", like is not None and call.path not in member.report.resumes),
        ("other_model", like is not None and not like.may_be(member.report.identity_of(call.model))),
        ("resting", member.rest is not None),
        ("ejected", member.ejected),
        ("breaker", not member.breaker.admits),
    )
    return next((reason for reason, holds in reasons if holds), "")

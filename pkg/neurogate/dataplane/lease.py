"""A lease: one call's hold on one worker, settled exactly once.

Two verdicts hang on it. The *breaker* judges reachability, at the first token, so that a three-minute stream does not
hold a half-open probe. The *in-flight count* ends with the call. Both happen once, whatever happens to the call.
"""

from __future__ import annotations

from neurogate.dataplane.member import Member
from neurogate.resilience.breaker import Outcome, Permit


class Lease:
    """A pick with its permit. Creating one counts the request in; `release` counts it out."""

    __slots__ = ("_permit", "_released", "member")

    def __init__(self, member: Member, permit: Permit) -> None:
        self.member = member
        self._permit = permit
        self._released = False
        member.in_flight += 1

    def answered(self) -> None:
        """The first token arrived: a success for the breaker, while the request goes on."""
        self._permit.settle(Outcome.SUCCESS)

    def release(self, outcome: Outcome) -> None:
        """The call is over. After `answered`, FAILURE counts once more against the worker and SUCCESS adds nothing.

        Raises RuntimeError the second time.
        """
        if self._released:
            raise RuntimeError(f"lease on {self.member.id} released twice")
        self._released = True
        self.member.in_flight -= 1
        if not self._permit.settled:
            self._permit.settle(outcome)
        elif outcome is Outcome.FAILURE:
            self._permit.fail_late()

"""A lease: one call's hold on one worker, settled exactly once.

Two things hang on it: the breaker's verdict and the in-flight count. Both end with the call, once, whatever happens to
it. A half-open probe is judged earlier, at its first token, so that a three-minute stream does not hold it; should the
stream die after that, it counts as one failure more. Any other call is judged at its end alone: a first token must not
wipe out the failures of a worker that breaks every stream after it.
"""

from __future__ import annotations

from neurogate.dataplane.member import Member
from neurogate.resilience.breaker import Outcome, Permit

_TOKENS_MIN = 16
"""The speed of shorter streams says little."""


class Lease:
    """A pick with its permit. Creating one counts the request in; `release` counts it out."""

    __slots__ = ("_asked_at", "_permit", "_released", "_tokens_before", "member", "report", "ttft_s")

    def __init__(self, member: Member, permit: Permit, asked_at: float) -> None:
        """`asked_at` is loop time, like `now` below."""
        self.member = member
        self.report = member.report
        """What the worker said of itself when it was asked."""
        self._asked_at = asked_at
        self.ttft_s: float | None = None
        """Seconds to the first piece of a streamed answer."""
        self._tokens_before = 0
        self._permit = permit
        self._released = False
        member.in_flight += 1

    def answered(self, now: float, tokens_before: int = 0) -> None:
        """The first token arrived: a probe has succeeded unless that took too long, while its request goes on.

        `tokens_before` are those that the request had from other workers.
        """
        self.ttft_s = now - self._asked_at
        self._tokens_before = tokens_before
        if self.member.tally is not None:
            self.member.tally.first_token(self.ttft_s)
        self._permit.answered(self.ttft_s)

    def streamed(self, tokens: int, now: float) -> None:
        """The stream is over: so many tokens has the request had until now."""
        tokens -= self._tokens_before + 1
        if self.member.tally is not None and self.ttft_s is not None and tokens >= _TOKENS_MIN:
            self.member.tally.streamed(tokens, now - self._asked_at - self.ttft_s)

    def release(self, outcome: Outcome) -> None:
        """The call is over. For a probe that had answered, FAILURE counts once more and SUCCESS adds nothing.

        Raises RuntimeError the second time.
        """
        if self._released:
            raise RuntimeError(f"lease on {self.member.id} released twice")
        self._released = True
        member = self.member
        if member.tally is not None and outcome is not Outcome.IGNORED:
            member.tally.ended(failed=outcome is Outcome.FAILURE)
        member.in_flight -= 1
        if member.on_idle is not None and not member.in_flight:
            member.on_idle()
        if member.on_room is not None and outcome is not Outcome.IGNORED:  # else it may be the one that was refused
            member.on_room()
        if not self._permit.settled:
            self._permit.settle(outcome)
        elif outcome is Outcome.FAILURE:
            self._permit.fail_late()

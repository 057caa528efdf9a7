"""How fast an engine computes prompts, as far as is known: how long it may be silent follows from that.

What the engine itself tells counts most. Otherwise it is at least as fast with prompts as it is with single tokens,
which canaries and streams show. The time until a user's first token shows less than it seems to: most of a prompt may
come from a cache. What was measured is doubted, because other work and long contexts slow a prompt down.
"""

from __future__ import annotations

START_TOKENS_PER_S = 5.0
"""Until something is measured: a slow machine."""
_MARGIN = 4
"""How much slower than usual a prompt may be."""
_LEAST_TOKEN_S = 0.001
"""For the token of an engine that takes no time at all."""


class Pace:
    """Of one engine, in one life after the other."""

    def __init__(self) -> None:
        self._told = 0.0
        self._shown = 0.0
        self._longest_step_s = 0.0
        self._works = False

    def __repr__(self) -> str:
        return f"<Pace {self.tokens_per_s:.1f} tokens/s {'measured' if self._told or self._shown else 'assumed'}>"

    @property
    def tokens_per_s(self) -> float:
        """Prompt tokens a second, without the margin."""
        return self._told or self._shown or START_TOKENS_PER_S

    @property
    def step_s(self) -> float:
        """How long a step may take after those that were seen."""
        return _MARGIN * self._longest_step_s

    def new_life(self) -> None:
        """The engine has begun anew. Only that it was slow is remembered: its machine is most likely the same."""
        slow = self._told or self._shown
        self._told = 0.0
        self._shown = slow if slow < START_TOKENS_PER_S else 0.0
        self._longest_step_s = 0.0
        self._works = False

    def told(self, tokens_per_s: float | None) -> None:
        """The engine says that prompts were computed so fast; None when it does not say."""
        if tokens_per_s:
            self._told = tokens_per_s

    def token(self, seconds: float) -> None:
        """One token took so long, with whatever came before it."""
        self.shown(1 / max(seconds, _LEAST_TOKEN_S))

    def shown(self, tokens_per_s: float) -> None:
        """So many tokens of one answer came a second."""
        self._shown = max(self._shown, tokens_per_s)

    def worked(self, seconds: float) -> None:
        """It has computed something, in so many seconds for a prompt; 0 when there was none."""
        self._works = True
        self._longest_step_s = max(self._longest_step_s, seconds)

    def soon_s(self, tokens: int) -> float:
        """How long a short prompt may take. There is no margin for an engine that never did anything yet."""
        return tokens / self.tokens_per_s * (_MARGIN if self._told or self._shown or self._works else 1)

    def at_worst_s(self, tokens: int) -> float:
        """How long a prompt may take, whatever is known."""
        return tokens / self.tokens_per_s * _MARGIN

"""Whoever presented a key: what it may do and how much of it."""

from __future__ import annotations

from typing import Literal

import msgspec

Priority = Literal["interactive", "batch"]


class Quota(msgspec.Struct, frozen=True, gc=False):
    """Bounds of one key; 0 means unlimited."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    """Prompt and completion together."""
    concurrent: int = 0
    """Requests in flight at once."""
    tokens_per_month: int = 0
    """Prompt and completion together, in a calendar month (UTC)."""

    @property
    def unlimited(self) -> bool:
        """Whether nothing is bounded."""
        return not (self.requests_per_minute or self.tokens_per_minute or self.concurrent or self.tokens_per_month)


UNLIMITED = Quota()


class Caller(msgspec.Struct, frozen=True, gc=False):
    """One key, without the key."""

    key_id: str = ""
    """Empty for anybody, when authentication is off."""
    quota: Quota = UNLIMITED
    models: frozenset[str] | None = None
    """Models it may ask for; None means all."""
    routes: frozenset[str] | None = None
    """Paths it may call; None means all."""
    priority: Priority = "interactive"


ANYBODY = Caller()

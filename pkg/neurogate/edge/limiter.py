"""Which limiter a gateway gets: one that counts here, or one that counts in Redis with everybody else's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from neurogate.edge.caller import Quota
from neurogate.edge.limits import Limiter
from neurogate.edge.memory_limits import MemoryLimiter
from neurogate.edge.settings import LimitSettings


def build_limiter(settings: LimitSettings, *, loop: asyncio.AbstractEventLoop, wall: Callable[[], float]) -> Limiter:
    """The limiter of a gateway; `wall` tells seconds since the epoch. Call its `start` on the loop, and its `close`.

    Raises ConfigError for a REDIS_URL that is none.
    """
    return MemoryLimiter(defaults(settings), loop=loop, wall=wall)


def defaults(settings: LimitSettings) -> Quota:
    """The bounds of a key that has none of its own."""
    return Quota(
        settings.requests_per_minute,
        settings.tokens_per_minute,
        settings.concurrent_per_key,
        settings.tokens_per_month,
    )


def estimate(prompt_bytes: int, max_tokens: int | None, settings: LimitSettings, *, answers: int = 1) -> int:
    """Tokens to reserve for a request: four bytes a token of its prompt, and the most that it asks for in answer.

    `max_tokens` is None when the request names no maximum; `answers` is how many it asks for (`n`).
    """
    asked = settings.expected_answer_tokens if max_tokens is None else max_tokens
    return (prompt_bytes + 3) // 4 + asked * answers

"""Which limiter a gateway gets: one that counts here, or one that counts in Redis with everybody else's."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from neurogate.edge.caller import Quota
from neurogate.edge.limits import Limiter, StoreObserver
from neurogate.edge.memory_limits import MemoryLimiter
from neurogate.edge.settings import LimitSettings
from neurogate.errors import ConfigError
from neurogate.urls import shown


def build_limiter(
    settings: LimitSettings,
    *,
    loop: asyncio.AbstractEventLoop,
    wall: Callable[[], float],
    rng: random.Random,
    observer: StoreObserver,
) -> Limiter:
    """The limiter of a gateway; `wall` tells seconds since the epoch. Call its `start` on the loop, and its `close`.

    Raises ConfigError for a REDIS_URL that is none.
    """
    memory = MemoryLimiter(defaults(settings), loop=loop, wall=wall)
    if not settings.redis_url:
        return memory
    # Delayed: most gateways need no Redis client.
    from neurogate.edge.redis_limits import RedisLimiter
    from neurogate.edge.redis_store import RedisStore

    try:
        store = RedisStore(
            settings.redis_url,
            loop=loop,
            timeout_s=settings.redis_timeout_s,
            retry_s=settings.redis_retry_s,
            probe=f"{settings.redis_prefix}:limits:probe",
            observer=observer,
        )
    except ValueError as error:
        raise _no_redis_url(settings) from error
    return RedisLimiter(settings, defaults(settings), store=store, fallback=memory, loop=loop, wall=wall, rng=rng)


def check(settings: LimitSettings) -> None:
    """Raise ConfigError for a REDIS_URL that is none. Nothing is asked."""
    if settings.redis_url:
        from neurogate.edge.redis_store import client_of

        try:
            client_of(settings.redis_url)
        except ValueError as error:
            raise _no_redis_url(settings) from error


def _no_redis_url(settings: LimitSettings) -> ConfigError:
    return ConfigError(
        f"REDIS_URL: must be redis://, rediss:// or unix:// with host and port (got {shown(settings.redis_url)!r})"
    )


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

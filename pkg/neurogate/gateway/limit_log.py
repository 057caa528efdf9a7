"""How it goes with the store that limits are counted in, in the gateway's log."""

from __future__ import annotations

import structlog

_log = structlog.get_logger("neurogate.limits")


class LimitLog:
    """Logs what a limiter's store does."""

    def store_up(self, store: str) -> None:
        """It answers."""
        _log.info("counting limits in redis", redis=store)

    def store_down(self, store: str, error: str) -> None:
        """It does not."""
        _log.warning("redis is down: limits are not shared", redis=store, error=error)

    def store_lost(self, store: str, settlements: int) -> None:
        """What ended could not be told."""
        _log.warning("usage was not told to redis", redis=store, requests=settlements)

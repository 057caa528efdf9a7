"""How it goes with the store that limits are counted in, in the gateway's log and metrics."""

from __future__ import annotations

import structlog

from neurogate.gateway.metrics import GatewayMetrics

_log = structlog.get_logger("neurogate.limits")


class LimitLog:
    """Tells what a limiter's store does."""

    def __init__(self, metrics: GatewayMetrics) -> None:
        self._metrics = metrics

    def store_up(self, store: str) -> None:
        """It answers."""
        self._metrics.limit_store(up=True)
        _log.info("counting limits in redis", redis=store)

    def store_down(self, store: str, error: str) -> None:
        """It does not."""
        self._metrics.limit_store(up=False)
        _log.warning("redis is down: limits are not shared", redis=store, error=error)

    def store_lost(self, store: str, settlements: int) -> None:
        """What ended could not be told."""
        _log.warning("usage was not told to redis", redis=store, requests=settlements)

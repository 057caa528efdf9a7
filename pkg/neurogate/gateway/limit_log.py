"""How it goes with the store that limits are counted in, in the gateway's log and metrics."""

from __future__ import annotations

from typing import Literal

import structlog

from neurogate.gateway.metrics import GatewayMetrics

_log = structlog.get_logger("neurogate.limits")

_MEANWHILE = {
    "open": "limits are not shared, each gateway counts by itself",
    "closed": "requests of keys with limits get 503",
}


class LimitLog:
    """Tells what a limiter's store does; `fail` is NEUROGATE_REDIS_FAIL, what happens while it does not answer."""

    def __init__(self, metrics: GatewayMetrics, *, fail: Literal["open", "closed"] = "open") -> None:
        self._metrics = metrics
        self._meanwhile = _MEANWHILE[fail]

    def store_up(self, store: str) -> None:
        """It answers."""
        self._metrics.limit_store(up=True)
        _log.info("counting limits in redis", redis=store)

    def store_down(self, store: str, error: str) -> None:
        """It does not."""
        self._metrics.limit_store(up=False)
        _log.warning(f"redis is down: {self._meanwhile}", redis=store, error=error)

    def store_lost(self, store: str, settlements: int) -> None:
        """What ended could not be told."""
        _log.warning("usage was not told to redis", redis=store, requests=settlements)

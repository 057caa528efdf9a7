"""The gateway's vitals: what it counts already, in the words that pollers and dashboards of old ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from neurogate import __version__
from neurogate.dataplane.pool import EndpointPool
from neurogate.gateway.metrics import GatewayMetrics
from neurogate.gateway.response import CLIENT_GONE


class Vitals:
    """One gateway's; called, it tells them."""

    def __init__(
        self,
        metrics: GatewayMetrics,
        *,
        pool: EndpointPool,
        ready: Callable[[], bool],
        in_flight: Callable[[], int],
        waiting: Callable[[], int],
        machine: Callable[[], Mapping[str, float]],
        now: Callable[[], float],
    ) -> None:
        """`machine` tells of the machine; `now` is loop time."""
        self._metrics = metrics
        self._pool = pool
        self._ready = ready
        self._in_flight = in_flight
        self._waiting = waiting
        self._machine = machine
        self._now = now
        self._began_at = now()

    def __call__(self) -> dict[str, Any]:
        """What is not counted is not in it. A client that left is no error, and no success either."""
        by_status = self._metrics.requests_by_status()
        waits = self._metrics.queue_waits()
        uptime_s = round(self._now() - self._began_at, 3)
        return {
            "ready": self._ready(),
            "version": __version__,
            "uptime_seconds": uptime_s,
            "requests_in_progress": self._in_flight(),
            "failed_responses": _sum(by_status, lambda status: status >= 500),
            "connected_peers": sum(member.linked for member in self._pool.snapshot.members),
            **self._machine(),
            "gateway": {
                "uptime_seconds": uptime_s,
                "requests_total": _sum(by_status, lambda _: True),
                "requests_success": _sum(by_status, lambda status: status < 400),
                "requests_error": _sum(by_status, lambda status: status >= 400 and status != CLIENT_GONE),
                "requests_unauthorized": by_status.get(401, 0),
                "requests_active": self._in_flight(),
                "queue_depth": self._waiting(),
                "queue_rejections": sum(
                    waits[outcome][0] for outcome in ("full", "timeout", "too_long") if outcome in waits
                ),
                "queue_wait_seconds_total": round(sum(seconds for _, seconds in waits.values()), 3),
            },
        }


def _sum(by_status: Mapping[int, int], counts: Callable[[int], bool]) -> int:
    return sum(count for status, count in by_status.items() if counts(status))

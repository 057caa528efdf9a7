"""What happens to the fleet, told to the log and to the metrics."""

from __future__ import annotations

import structlog

from neurogate.gateway.metrics import GatewayMetrics

_log = structlog.get_logger("neurogate.fleet")

_TROUBLE = frozenset({"lost", "not_ready"})


class FleetObserver:
    """Observer of the pool and of the dispatcher."""

    def __init__(self, metrics: GatewayMetrics) -> None:
        self._metrics = metrics
        self._told: dict[str, str] = {}
        """The breaker state last logged: probes that fail again and again are in the metrics, not in the log."""

    def breaker_changed(self, worker_id: str, state: str) -> None:
        """A breaker moved."""
        self._metrics.breaker_changed(worker_id, state)
        if state != "half-open" and self._told.get(worker_id, "closed") != state:
            self._told[worker_id] = state
            (_log.warning if state == "open" else _log.info)("breaker moved", worker=worker_id, state=state)

    def worker_changed(self, worker_id: str, event: str, detail: str) -> None:
        """A worker came, went or changed its mind."""
        self._metrics.worker_changed(worker_id, event)
        if event == "removed":
            self._told.pop(worker_id, None)
        (_log.warning if event in _TROUBLE else _log.info)("worker", worker=worker_id, state=event, detail=detail)

    def retried(self, worker_id: str, reason: str) -> None:
        """A request left this worker for another one before its first byte."""
        self._metrics.retried(worker_id, reason)
        _log.debug("request moved", worker=worker_id, reason=reason)

    def resumed(self, worker_id: str, reason: str, request_id: str) -> None:
        """A stream broke on this worker, and another one is to continue it."""
        self._metrics.resumed(worker_id, "resumed")
        _log.info("stream broke, another worker continues it", request_id=request_id, worker=worker_id, reason=reason)

    def hedged(self, worker_id: str, *, won: bool) -> None:
        """This worker's first token was late and a second one was asked; or, `won`, the second one was first."""
        self._metrics.hedged(worker_id, "won" if won else "asked")

    def not_resumed(self, worker_id: str, reason: str, request_id: str) -> None:
        """A stream broke on this worker, and nobody may continue it."""
        self._metrics.resumed(worker_id, "refused")
        _log.warning("stream broke and is not continued", request_id=request_id, worker=worker_id, reason=reason)

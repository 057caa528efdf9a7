"""What happens to the fleet, told to the log, to the metrics and to the live page."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from neurogate.dataplane.state import WorkerState
from neurogate.gateway.live.recent import Recent
from neurogate.gateway.metrics import GatewayMetrics
from neurogate.resilience.breaker import Outcome

_log = structlog.get_logger("neurogate.fleet")

_TROUBLE = frozenset({WorkerState.UNREACHABLE, WorkerState.NOT_READY, WorkerState.OPEN, WorkerState.EJECTED})
_EXPECTED = {
    (WorkerState.DRAINING, WorkerState.UNREACHABLE),
    (WorkerState.UNREACHABLE, WorkerState.NOT_READY),
    (WorkerState.DRAINING, WorkerState.NOT_READY),
}
"""(before, now) of what is no trouble: a worker that left as it had said, and one whose engine starts."""
_TRIFLES = {(WorkerState.READY, WorkerState.RESTING), (WorkerState.RESTING, WorkerState.READY)}


def _nobody(*_: str) -> None:
    pass


class FleetObserver:
    """Observer of the pool and of the dispatcher."""

    def __init__(self, metrics: GatewayMetrics, recent: Recent | None = None) -> None:
        self._metrics = metrics
        self._note: Callable[..., None] = recent.note if recent is not None else _nobody
        self._told: dict[str, WorkerState] = {}
        """The state last logged: probes that fail again and again are in the metrics, not in the log."""

    def breaker_changed(self, worker_id: str, state: str) -> None:
        """A breaker moved."""
        self._metrics.breaker_changed(worker_id, state)

    def worker_changed(self, worker_id: str, event: str, detail: str) -> None:
        """A worker came, went or changed its mind. What it is then, its state tells."""
        if event == "added":
            _log.info("worker added", worker=worker_id, address=detail)
        elif event == "removed":
            self._told.pop(worker_id, None)
            _log.info("worker removed", worker=worker_id)

    def state_changed(self, worker_id: str, state: WorkerState, why: str) -> None:
        """A worker is in another state."""
        comes = worker_id not in self._told and state is WorkerState.READY
        before = self._told.get(worker_id, WorkerState.UNREACHABLE)
        if state in {WorkerState.HALF_OPEN, before}:
            return
        self._told[worker_id] = state
        if (before, state) not in _TRIFLES and not comes:
            self._note("worker", worker_id, f"{state}: {why}" if why else str(state))
        if (before, state) in _TRIFLES:
            log = _log.debug
        elif state in _TROUBLE and (before, state) not in _EXPECTED:
            log = _log.warning
        else:
            log = _log.info
        log("worker", worker=worker_id, state=str(state), before=str(before), detail=why)

    def probed(self, worker_id: str, outcome: Outcome, why: str) -> None:
        """A canary ended."""
        self._metrics.probed(worker_id, outcome.value)
        _log.debug("probe", worker=worker_id, outcome=outcome.value, reason=why)

    def retried(self, worker_id: str, reason: str, request_id: str = "") -> None:
        """A request left this worker for another one before its first byte."""
        self._metrics.retried(worker_id, reason)
        self._note("retry", worker_id, reason, request_id)
        _log.debug("request moved", request_id=request_id, worker=worker_id, reason=reason)

    def resumed(self, worker_id: str, reason: str, request_id: str) -> None:
        """A stream broke on this worker, and another one is to continue it."""
        self._metrics.resumed(worker_id, "resumed")
        self._note("resume", worker_id, reason, request_id)
        _log.info("stream broke, another worker continues it", request_id=request_id, worker=worker_id, reason=reason)

    def hedged(self, worker_id: str, *, won: bool) -> None:
        """This worker's first token was late and a second one was asked; or, `won`, the second one was first."""
        self._metrics.hedged(worker_id, "won" if won else "asked")

    def not_resumed(self, worker_id: str, reason: str, request_id: str) -> None:
        """A stream broke on this worker, and nobody may continue it."""
        self._metrics.resumed(worker_id, "refused")
        self._note("broken", worker_id, reason, request_id)
        _log.warning("stream broke and is not continued", request_id=request_id, worker=worker_id, reason=reason)

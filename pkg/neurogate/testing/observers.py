"""Observers that remember what they heard, in order."""

from __future__ import annotations

from neurogate.dataplane.state import WorkerState
from neurogate.endpoint import WorkerReport
from neurogate.resilience.breaker import Outcome


class RecordingFleetObserver:
    """A `PoolObserver` and a `DispatchObserver`."""

    def __init__(self) -> None:
        self.breakers: list[tuple[str, str]] = []
        """(worker, state) of every breaker transition."""
        self.workers: list[tuple[str, str, str]] = []
        """(worker, event, detail) of everything that happened to a worker."""
        self.states: list[tuple[str, str]] = []
        """(worker, state) of every change of a worker's state."""
        self.probes: list[tuple[str, str]] = []
        """(worker, outcome) of every canary."""
        self.retries: list[tuple[str, str]] = []
        """(worker that was left, reason) of every retry."""
        self.resumes: list[tuple[str, str, str]] = []
        """(worker that was left, reason, request id) of every continuation."""
        self.not_resumes: list[tuple[str, str, str]] = []
        """(worker that was left, why it was not continued, request id) of every stream that stayed broken."""
        self.hedges: list[tuple[str, bool]] = []
        """(worker whose first token was late, whether the second attempt was first)."""

    def breaker_changed(self, worker_id: str, state: str) -> None:
        """Remember a transition."""
        self.breakers.append((worker_id, state))

    def worker_changed(self, worker_id: str, event: str, detail: str) -> None:
        """Remember an event."""
        self.workers.append((worker_id, event, detail))

    def state_changed(self, worker_id: str, state: WorkerState, why: str) -> None:  # noqa: ARG002 - the protocol's
        """Remember a state."""
        self.states.append((worker_id, state))

    def probed(self, worker_id: str, outcome: Outcome, why: str) -> None:  # noqa: ARG002 - the protocol's
        """Remember a canary."""
        self.probes.append((worker_id, outcome.value))

    def retried(self, worker_id: str, reason: str, request_id: str) -> None:  # noqa: ARG002 - the protocol's
        """Remember a retry."""
        self.retries.append((worker_id, reason))

    def resumed(self, worker_id: str, reason: str, request_id: str) -> None:
        """Remember a continuation."""
        self.resumes.append((worker_id, reason, request_id))

    def not_resumed(self, worker_id: str, reason: str, request_id: str) -> None:
        """Remember a stream that could not be continued."""
        self.not_resumes.append((worker_id, reason, request_id))

    def hedged(self, worker_id: str, *, won: bool) -> None:
        """Remember a second attempt."""
        self.hedges.append((worker_id, won))


class RecordingLinkObserver:
    """A `LinkObserver`."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, WorkerReport | str]] = []
        """`up` and `report` with the report; `left`, `lost` and `failed` with the reason."""

    def link_up(self, report: WorkerReport) -> None:
        """Remember that the link came up."""
        self.heard.append(("up", report))

    def link_report(self, report: WorkerReport) -> None:
        """Remember a report."""
        self.heard.append(("report", report))

    def link_down(self, reason: str, *, planned: bool) -> None:
        """Remember that the link ended."""
        self.heard.append(("left" if planned else "lost", reason))

    def connect_failed(self, reason: str) -> None:
        """Remember a failed attempt."""
        self.heard.append(("failed", reason))

"""How a fleet is, as its ops ports tell: they are plain and need no key, whatever clients must show."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from neurogate.local.plan import ChildPlan, FleetPlan
from neurogate.local.table import Row
from neurogate.telemetry import catalog

_BREAKER = catalog.GATEWAY_BREAKERS.name
_BREAKER_STATES = {0: "closed", 1: "open", 2: "half-open"}
_LINKED = catalog.GATEWAY_WORKER_LINKED.name
_STATES = {"healthy": "ready", "draining": "draining"}
"""What a worker says of itself → what we call it."""


@dataclass(frozen=True, slots=True)
class WorkerState:
    """One worker, seen from the gateway and by itself."""

    row: Row
    detail: str
    """Why it is not ready, as far as that is known."""


@dataclass(frozen=True, slots=True)
class FleetState:
    """What a fleet was like a moment ago."""

    workers: tuple[WorkerState, ...]
    accepting: bool
    """Whether the gateway takes requests, and may send them to every worker."""

    @property
    def ready(self) -> bool:
        """Whether all of it works."""
        return self.accepting and all(row.state == "ready" for row in self.rows)

    @property
    def rows(self) -> tuple[Row, ...]:
        """The workers for a table."""
        return tuple(worker.row for worker in self.workers)

    def __str__(self) -> str:
        told = [f"{row.worker} is {row.state}{f' ({detail})' if detail else ''}" for row, detail in self._details()]
        return ", ".join([*told, *([] if self.accepting else ["the gateway does not take requests for all of them"])])

    def _details(self) -> list[tuple[Row, str]]:
        return [(worker.row, worker.detail) for worker in self.workers]


async def observe(client: httpx.AsyncClient, plan: FleetPlan) -> FleetState | None:
    """Ask every ops port. None while the gateway's does not answer; a worker that does not is `unreachable`."""
    ops_url = plan.gateway.ops_url
    async with asyncio.TaskGroup() as tasks:
        accepting = tasks.create_task(_accepting(client, ops_url, len(plan.workers)), name="gateway state")
        gauges = tasks.create_task(_gauges(client, ops_url), name="gateway metrics")
        workers = [tasks.create_task(_said(client, worker), name=f"{worker.name} state") for worker in plan.workers]
    seen = gauges.result()
    if seen is None:
        return None
    states = (_worker_state(worker, asked.result(), seen) for worker, asked in zip(plan.workers, workers, strict=True))
    return FleetState(tuple(states), accepting.result())


async def _accepting(client: httpx.AsyncClient, ops_url: str, workers: int) -> bool:
    """Whether it takes requests and has all of its workers available."""
    ready = await _get(client, f"{ops_url}/ready")
    health = await _get(client, f"{ops_url}/health")
    try:
        return (
            ready is not None
            and ready.is_success
            and health is not None
            and bool(health.json()["workers"]["available"] == workers)
        )
    except (ValueError, KeyError, TypeError):
        return False


async def _gauges(client: httpx.AsyncClient, ops_url: str) -> Mapping[tuple[str, str], float] | None:
    """Its metrics of workers by name and worker; None when it does not answer."""
    from prometheus_client.parser import text_string_to_metric_families

    answer = await _get(client, f"{ops_url}/metrics")
    if answer is None or not answer.is_success:
        return None
    return {
        (sample.name, sample.labels["worker"]): sample.value
        for family in text_string_to_metric_families(answer.text)
        if family.name in {_BREAKER, _LINKED}
        for sample in family.samples
    }


async def _said(client: httpx.AsyncClient, worker: ChildPlan) -> Mapping[str, Any] | None:
    """What a worker says of itself; None when it does not answer."""
    answer = await _get(client, f"{worker.ops_url}/health")
    try:
        said = None if answer is None else answer.json()
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


async def _get(client: httpx.AsyncClient, url: str) -> httpx.Response | None:
    try:
        return await client.get(url)
    except httpx.HTTPError:
        return None


def _worker_state(
    worker: ChildPlan, said: Mapping[str, Any] | None, gauges: Mapping[tuple[str, str], float]
) -> WorkerState:
    """A gateway names its workers in the order of their addresses, as the plan does."""
    breaker = _BREAKER_STATES.get(int(gauges.get((_BREAKER, worker.name), -1)), "")
    if said is None:
        return WorkerState(Row(worker.name, worker.address, "unreachable", breaker), "it does not answer")
    if not gauges.get((_LINKED, worker.name)):
        return WorkerState(Row(worker.name, worker.address, "unreachable", breaker), "the gateway has no link to it")
    state = _STATES.get(str(said.get("status")), "not_ready")
    return WorkerState(Row(worker.name, worker.address, state, breaker), str(said.get("detail") or ""))

"""One definition of a worker's state: `/workers`, `/health`, the metrics, the log and error texts say the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, MutableSequence
from contextlib import asynccontextmanager
from typing import Any

from structlog.testing import capture_logs

from dataplane_support import BODY, BREAKER, endpoint, turns
from neurogate import virtual_time
from neurogate.balancing.round_robin import RoundRobin
from neurogate.channel import Call
from neurogate.dataplane.dispatch import Dispatcher, DispatchLimits
from neurogate.dataplane.pool import EndpointPool
from neurogate.dataplane.prober import Prober
from neurogate.dataplane.state import WorkerState
from neurogate.gateway.metrics import GatewayMetrics
from neurogate.gateway.observer import FleetObserver
from neurogate.gateway.routes import describe, health
from neurogate.resilience.retry import RetryBudget
from neurogate.testing.resolver import ManualResolver
from neurogate.testing.workers import HANGS, FakeFleet, FakeWorkerChannel, answers

MODEL = "tiny"
QUIET = {WorkerState.HALF_OPEN}
"""Not in the log: probes that fail again and again would fill it."""


class Site:
    """A data plane with one worker, and everything that tells its state."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.metrics = GatewayMetrics()
        observer = FleetObserver(self.metrics)
        self.fleet = FakeFleet(loop, models={"worker-0": (MODEL,)})
        self.pool = EndpointPool(self.fleet.connect, breaker=BREAKER, loop=loop, observer=observer, leave_s=10.0)
        self.prober = Prober(self.pool, enabled=True, timeout_s=5.0, loop=loop, observer=observer)
        self.metrics.show_states(self.pool.states)
        self.resolver = ManualResolver()
        self.dispatcher = Dispatcher(
            self.pool,
            RoundRobin(),
            budget=RetryBudget(ratio=0.2),
            limits=DispatchLimits(),
            loop=loop,
            observer=observer,
        )
        self.logs: MutableSequence[Any] = []

    @property
    def worker(self) -> FakeWorkerChannel:
        return self.fleet["worker-0"]

    def by_metrics(self) -> dict[str, float | None]:
        name = "neurogate_worker_state"
        values = {
            str(state): self.metrics.registry.get_sample_value(name, {"worker": "worker-0", "state": state})
            for state in WorkerState
        }
        return {state: value for state, value in values.items() if value != 0}

    def by_log(self) -> str:
        return str([line["state"] for line in self.logs if line["event"] == "worker"][-1])

    async def says(self, state: WorkerState, why: str = "") -> None:
        """Everybody says this state."""
        await turns()
        (member,) = self.pool.snapshot.members
        shown = describe(member, 0.0)

        assert (member.state, member.why) == (state, why)
        assert (shown["state"], shown["detail"]) == (state, why)
        assert self.by_metrics() == {state: 1}
        well, told = health(self.pool, {})
        assert told["workers"] == {"total": 1, "available": int(state.available), "states": {state: 1}}
        assert well is state.available
        if state not in QUIET:
            assert self.by_log() == state
        refusal = str(self.dispatcher.nobody_usable(Call("/prompt", BODY, stream=False, deadline=0.0, model=MODEL)))
        if state in {WorkerState.RESTING, WorkerState.EJECTED} and member.rest is not None:
            assert "asked to be left alone" in refusal
        else:
            told = why if state != "unreachable" else ""  # where it is, and what the network said, is not for clients
            assert f"worker-0: {state}{f' ({told})' if told else ''})" in refusal


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    with capture_logs() as logs:
        made = Site()
        made.logs = logs
        running = asyncio.get_running_loop().create_task(made.pool.run(made.resolver))
        try:
            made.resolver.publish(endpoint(0))
            await turns()
            yield made
        finally:
            running.cancel()
            await asyncio.wait([running])


def test_everybody_says_the_same_of_a_workers_life() -> None:
    async def main() -> None:
        async with site() as made:
            (member,) = made.pool.snapshot.members
            made.worker.become_unready("loading tiny")
            made.worker.come_up()
            await made.says(WorkerState.NOT_READY, "loading tiny")
            made.worker.become_ready()
            await made.says(WorkerState.READY)
            made.pool.cordon("worker-0")
            await made.says(WorkerState.CORDONED)
            made.pool.uncordon("worker-0")
            await made.says(WorkerState.READY)
            made.pool.rest(member, 5.0, until_room=False)
            await made.says(WorkerState.RESTING)
            made.pool.eject(member, ejected=True, why="five times as slow as its peers")
            await made.says(WorkerState.EJECTED, "five times as slow as its peers")
            made.pool.eject(member, ejected=False)
            await asyncio.sleep(6)
            await made.says(WorkerState.READY)
            made.worker.canary = answers(first_s=2.0)
            for _ in range(3):
                member.breaker.record_failure()
            await made.says(WorkerState.OPEN, "3 failures in a row")
            await asyncio.sleep(31)
            await made.says(WorkerState.HALF_OPEN, "3 failures in a row")
            await asyncio.sleep(2)
            await made.says(WorkerState.READY)
            made.worker.drain()
            await made.says(WorkerState.DRAINING)
            made.worker.die("connection reset")
            await made.says(WorkerState.UNREACHABLE, "connection reset")

    virtual_time.run(main())


def test_what_holds_first_in_the_table_is_what_is_said() -> None:
    """Everything at once, taken away from the top."""

    async def main() -> None:
        async with site() as made:
            (member,) = made.pool.snapshot.members
            made.worker.canary = HANGS
            made.worker.drain()
            made.worker.come_up()
            made.pool.cordon("worker-0")
            made.pool.eject(member, ejected=True, why="slow")
            made.pool.rest(member, 50.0, until_room=False)
            for _ in range(3):
                member.breaker.record_failure()
            await made.says(WorkerState.DRAINING)
            made.worker.become_ready()
            made.worker.become_unready("loading")
            await made.says(WorkerState.CORDONED, "loading")
            made.pool.uncordon("worker-0")
            await made.says(WorkerState.NOT_READY, "loading")
            made.worker.become_ready()
            await made.says(WorkerState.HALF_OPEN, "3 failures in a row")  # its engine is back: it is probed at once
            member.breaker.reset()
            await made.says(WorkerState.EJECTED, "slow")
            made.pool.eject(member, ejected=False)
            await made.says(WorkerState.RESTING)

    virtual_time.run(main())


def test_a_removed_worker_drains_and_then_has_no_series_any_more() -> None:
    async def main() -> None:
        async with site() as made:
            made.worker.come_up()
            (member,) = made.pool.snapshot.members
            permit = member.breaker.try_acquire()
            assert permit is not None
            member.in_flight += 1
            made.resolver.publish()
            await turns()
            assert made.pool.states() == {"worker-0": WorkerState.DRAINING}
            assert describe(member, 0.0)["state"] == WorkerState.DRAINING
            member.in_flight -= 1
            assert member.on_idle is not None
            member.on_idle()
            await turns()

            assert made.by_metrics() == {str(state): None for state in WorkerState}
            assert [line["event"] for line in made.logs][-1] == "worker removed"

    virtual_time.run(main())

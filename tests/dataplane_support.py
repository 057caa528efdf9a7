"""A data plane on virtual time: pool, dispatcher and workers in memory, and the check that nothing is left of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from neurogate.balancing.picker import Picker
from neurogate.balancing.round_robin import RoundRobin
from neurogate.channel import Call
from neurogate.dataplane.dispatch import Dispatcher, DispatchLimits
from neurogate.dataplane.exchange import Exchange
from neurogate.dataplane.member import Member
from neurogate.dataplane.pool import EndpointPool
from neurogate.dataplane.prober import Prober
from neurogate.dataplane.recovery import Recovery
from neurogate.endpoint import Endpoint
from neurogate.operations import CANARY_PATH
from neurogate.resilience.breaker import BreakerSettings
from neurogate.resilience.retry import RetryBudget
from neurogate.testing.observers import RecordingFleetObserver
from neurogate.testing.receivers import RecordingReceiver
from neurogate.testing.resolver import ManualResolver
from neurogate.testing.workers import FakeFleet, FakeWorkerChannel

BREAKER = BreakerSettings(fail_max=3, reset_timeout_s=30.0)
PATH = "/v1/chat/completions"
BODY = b'{"messages":[]}'
RESUMES = frozenset({PATH})


def endpoint(index: int, port: int = 50051) -> Endpoint:
    return Endpoint(f"worker-{index}", f"host-{index}:{port}")


@dataclass
class Rig:
    """A gateway's data plane with everything a test wants to look at."""

    pool: EndpointPool
    dispatcher: Dispatcher
    fleet: FakeFleet
    resolver: ManualResolver
    observer: RecordingFleetObserver
    budget: RetryBudget
    prober: Prober | None = None
    seen: dict[int, Member] = field(default_factory=dict)
    """Every member there ever was, by identity: the removed ones must be empty as well."""

    def worker(self, index: int = 0) -> FakeWorkerChannel:
        return self.fleet[f"worker-{index}"]

    def member(self, index: int = 0) -> Member:
        (found,) = (member for member in self.pool.snapshot.members if member.id == f"worker-{index}")
        return found

    def send(
        self,
        *,
        stream: bool = True,
        model: str = "",
        timeout_s: float = 300.0,
        receiver: RecordingReceiver | None = None,
        request_id: str = "",
        body: bytes = BODY,
        resumable: bool = False,
    ) -> tuple[Exchange, RecordingReceiver]:
        """Dispatch one request."""
        receiver = receiver or RecordingReceiver()
        deadline = self.dispatcher.loop.time() + timeout_s
        call = Call(PATH, body, stream, deadline, request_id, model=model, resumable=resumable)
        return self.dispatcher.dispatch(call, receiver), receiver

    async def ask(self, *, stream: bool = True, model: str = "", timeout_s: float = 300.0) -> RecordingReceiver:
        """Dispatch one request and wait for its last word."""
        _, receiver = self.send(stream=stream, model=model, timeout_s=timeout_s)
        await receiver.last_word()
        return receiver

    async def name(self, *endpoints: Endpoint) -> None:
        """Let the resolver name another set, and wait until the pool has taken it."""
        self.resolver.publish(*endpoints)
        await turns()
        self._remember()

    async def open_breaker(self, index: int = 0) -> None:
        """Open a worker's breaker, by as many failures as that takes."""
        member = self.member(index)
        while member.breaker.state == "closed":
            member.breaker.record_failure()
        await turns()

    def _remember(self) -> None:
        self.seen.update({id(member): member for member in self.pool.snapshot.members})

    def assert_nothing_held(self) -> None:
        """No request, no lease, no waiter, whichever worker it was on."""
        self._remember()
        assert {member.id: member.in_flight for member in self.seen.values() if member.in_flight} == {}
        assert self.dispatcher.in_flight == 0
        assert self.pool.waiting == 0
        running = [call for channel in self.fleet.channels.values() for call in channel.running.values()]
        assert [call for call in running if call.call.path != CANARY_PATH] == []


async def turns(count: int = 3) -> None:
    """Let everything that is due now happen; no time passes."""
    for _ in range(count):
        await asyncio.sleep(0)


def live_timers(loop: asyncio.AbstractEventLoop) -> list[asyncio.TimerHandle]:
    """Timers that will still fire."""
    return [handle for handle in loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]


@asynccontextmanager
async def rig(
    workers: int | Sequence[Endpoint] = 1,
    *,
    up: bool = True,
    models: Mapping[str, tuple[str, ...]] | None = None,
    picker: Picker | None = None,
    limits: DispatchLimits | None = None,
    budget: RetryBudget | None = None,
    breaker: BreakerSettings = BREAKER,
    resumes: Mapping[str, frozenset[str]] | None = None,
    recovery: Recovery | None = None,
    canary_timeout_s: float | None = None,
) -> AsyncIterator[Rig]:
    """A data plane whose workers are up (or not yet); at its end, nothing may be left of it.

    With `canary_timeout_s` a prober sends canaries; without, users probe.
    """
    loop = asyncio.get_running_loop()
    raised: list[object] = []
    loop.set_exception_handler(lambda _, context: raised.append(context.get("exception", context)))
    tasks_before = asyncio.all_tasks()
    fleet = FakeFleet(loop, models=models, resumes=resumes)
    resolver, observer = ManualResolver(), RecordingFleetObserver()
    pool = EndpointPool(fleet.connect, breaker=breaker, loop=loop, observer=observer)
    budget = budget or RetryBudget(ratio=0.2)
    dispatcher = Dispatcher(
        pool,
        picker or RoundRobin(),
        budget=budget,
        limits=limits or DispatchLimits(),
        loop=loop,
        observer=observer,
        recovery=recovery,
    )
    prober = None
    if canary_timeout_s is not None:
        prober = Prober(pool, enabled=True, timeout_s=canary_timeout_s, loop=loop, observer=observer)
    made = Rig(pool, dispatcher, fleet, resolver, observer, budget, prober)
    running = loop.create_task(pool.run(resolver), name="pool")
    try:
        await made.name(*([endpoint(i) for i in range(workers)] if isinstance(workers, int) else workers))
        await pool.resolved()  # of many workers, a few a turn
        await turns()
        if up:
            for channel in fleet.channels.values():
                channel.come_up()
        yield made
        await turns()
        made.assert_nothing_held()
    finally:
        running.cancel()
        await asyncio.wait([running])
    assert running.cancelled() or running.exception() is None
    await asyncio.sleep(breaker.reset_timeout_s + 1)  # an open breaker's moment to admit a probe is a timer of the pool
    made.assert_nothing_held()
    assert prober is None or prober.out == 0
    assert not any(channel.running for channel in fleet.channels.values())  # no canary either
    assert raised == []  # by a callback: nobody else would hear of it
    assert live_timers(loop) == []
    assert asyncio.all_tasks() == tasks_before

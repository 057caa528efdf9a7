"""What a pick costs, by the number of workers: the gateway's own pool, pickers and leases, in this process.

A pick is what a request does between being admitted and being sent: snapshot, candidates, picker, breaker's permit,
lease, and its release. A snapshot is what it costs until picks see that one worker changed. Fleets of all sizes are
measured in turns; times are CPU time of this thread.

    python bench/picks.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median
from typing import Any

from report.book import Spread

from neurogate.balancing import picker
from neurogate.channel import Call
from neurogate.dataplane.dispatch import Dispatcher, DispatchLimits
from neurogate.dataplane.pool import EndpointPool
from neurogate.endpoint import Endpoint
from neurogate.resilience.breaker import BreakerSettings, Outcome
from neurogate.resilience.retry import RetryBudget
from neurogate.testing.observers import RecordingFleetObserver
from neurogate.testing.resolver import ManualResolver
from neurogate.testing.workers import FakeFleet

SIZES = (10, 100, 1_000, 10_000)
PICKERS = ("round_robin", "least_requests")
_PICKS = 10_000
_CHANGES = 10
_MODEL = "bench"
_CALL = Call("/v1/chat/completions", b"{}", stream=True, deadline=1e12, model=_MODEL)


@asynccontextmanager
async def _dispatcher(workers: int, policy: str) -> AsyncIterator[Dispatcher]:
    loop = asyncio.get_running_loop()
    fleet = FakeFleet(loop, models={f"worker-{index}": (_MODEL,) for index in range(workers)})
    resolver = ManualResolver()
    observer = RecordingFleetObserver()
    pool = EndpointPool(fleet.connect, breaker=BreakerSettings(), loop=loop, observer=observer)
    resolver.publish(*(Endpoint(f"worker-{index}", f"10.0.0.1:{index}") for index in range(workers)))
    running = loop.create_task(pool.run(resolver))
    await pool.resolved()
    await asyncio.sleep(0)  # the links begin to run
    for channel in list(fleet.channels.values()):
        channel.come_up()
    yield Dispatcher(
        pool,
        picker.build(policy, rng=random.Random(1)),
        budget=RetryBudget(ratio=0.2),
        limits=DispatchLimits(),
        loop=loop,
        observer=observer,
    )
    running.cancel()
    await asyncio.wait([running])


def _pick_us(dispatcher: Dispatcher) -> float:
    gc.collect()
    gc.disable()
    began = time.thread_time_ns()
    for _ in range(_PICKS):
        lease = dispatcher.acquire(_CALL, ())
        assert lease is not None
        lease.release(Outcome.SUCCESS)
    spent = time.thread_time_ns() - began
    gc.enable()
    return spent / _PICKS / 1000


def _snapshot_us(dispatcher: Dispatcher) -> float:
    """Of one worker's change, a snapshot that says so included; the median of a few."""
    pool = dispatcher.pool
    members = pool.snapshot.members
    spent = []
    for number in range(_CHANGES):
        worker_id = members[len(members) * number // _CHANGES].id
        for change in (pool.cordon, pool.uncordon):
            began = time.thread_time_ns()
            change(worker_id)
            assert pool.snapshot.members
            spent.append(time.thread_time_ns() - began)
    return median(spent) / 1000


async def _measure(rounds: int) -> dict[str, Any]:
    costs: dict[str, list[list[float]]] = {policy: [[] for _ in SIZES] for policy in PICKERS}
    snapshots: list[list[float]] = [[] for _ in SIZES]
    for _ in range(rounds):
        for policy in PICKERS:
            for index, size in enumerate(SIZES):
                async with _dispatcher(size, policy) as dispatcher:
                    _pick_us(dispatcher)
                    costs[policy][index].append(_pick_us(dispatcher))
                    snapshots[index].append(_snapshot_us(dispatcher))
    ratios = Spread.of([many / few for few, many in zip(costs[PICKERS[0]][0], costs[PICKERS[0]][-1], strict=True)])
    assert ratios is not None
    return {
        "sizes": SIZES,
        "us": {policy: [_plain(values) for values in by_size] for policy, by_size in costs.items()},
        "snapshot_us": [_plain(values) for values in snapshots],
        "ratio": ratios.plain(),
    }


def _plain(values: list[float]) -> dict[str, float]:
    spread = Spread.of(values)
    assert spread is not None
    return {name: round(value, 3) for name, value in spread.plain().items()}


def measure(rounds: int = 5) -> dict[str, Any]:
    """Microseconds of a pick and of a change, by the number of workers, and what most cost over what fewest do."""
    return asyncio.run(_measure(rounds))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    json.dump(measure(parser.parse_args().rounds), sys.stdout, indent=1)
    print()

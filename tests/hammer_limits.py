"""One gateway's limiter in a process of its own, that asks for one key as fast as it can: started by a test."""

from __future__ import annotations

import asyncio
import json
import random
import sys

import structlog
import uvloop

from neurogate.edge.caller import Caller, Quota
from neurogate.edge.limiter import build_limiter
from neurogate.edge.settings import LimitSettings
from neurogate.errors import RateLimitedError
from neurogate.gateway.limit_log import LimitLog
from neurogate.gateway.metrics import GatewayMetrics

REQUESTS = 250


async def main(url: str, seed: int, quota: dict[str, int]) -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    limiter = build_limiter(
        LimitSettings(redis_url=url, redis_fail="closed", redis_timeout_s=30.0),
        loop=asyncio.get_running_loop(),
        wall=lambda: 1795252000.0,
        rng=random.Random(seed),
        observer=LimitLog(GatewayMetrics()),
    )
    await limiter.start()
    print("ready", flush=True)
    sys.stdin.readline()
    alice = Caller("alice", Quota(**quota))
    counts = {"admitted": 0, "refused": 0, "concurrent": 0}
    in_flight = 0

    async def client() -> None:
        nonlocal in_flight
        for _ in range(REQUESTS // 10):
            in_flight += 1
            counts["concurrent"] = max(counts["concurrent"], in_flight)
            try:
                held = await limiter.reserve(alice, 7)
            except RateLimitedError:
                counts["refused"] += 1
            else:
                counts["admitted"] += 1
                held.settle(7)
            in_flight -= 1

    async with asyncio.TaskGroup() as clients:
        for _ in range(10):
            clients.create_task(client())
    await limiter.close()
    print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])))

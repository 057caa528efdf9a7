"""Vitals: sums of what the gateway's metrics count."""

from __future__ import annotations

import asyncio

from dataplane_support import rig
from neurogate.gateway.metrics import GatewayMetrics
from neurogate.gateway.vitals import Vitals
from neurogate.virtual_time import run


def test_answers_are_summed_by_how_they_ended() -> None:
    """A client that left made no error; a full queue and a turn that did not come are both rejections."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        metrics = GatewayMetrics()
        async with rig(1) as made:
            vitals = Vitals(
                metrics,
                pool=made.pool,
                ready=lambda: False,
                in_flight=lambda: 3,
                waiting=lambda: 2,
                machine=dict,
                now=loop.time,
            )
            for method, status in [("POST", 200), ("GET", 200), ("POST", 401), ("POST", 499), ("GRPC", 503)]:
                metrics.request(method, "/prompt", status, 0.1)
            for seconds, outcome in [(1.5, "turn"), (2.0, "turn"), (60.0, "timeout"), (0.0, "full"), (0.5, "left")]:
                metrics.waited(seconds, outcome)
            await asyncio.sleep(5)
            told = vitals()

        assert (told["ready"], told["uptime_seconds"], told["connected_peers"]) == (False, 5.0, 1)
        assert (told["requests_in_progress"], told["failed_responses"]) == (3, 1)
        assert "cpu_usage" not in told
        assert told["gateway"] == {
            "uptime_seconds": 5.0,
            "requests_total": 5,
            "requests_success": 2,
            "requests_error": 2,
            "requests_unauthorized": 1,
            "requests_active": 3,
            "queue_depth": 2,
            "queue_rejections": 2,
            "queue_wait_seconds_total": 64.0,
        }

    run(main())

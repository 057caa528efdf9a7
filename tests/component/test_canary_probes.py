"""Canaries over a real link: a worker whose breaker opened is asked for a token, and comes back without a request."""

from __future__ import annotations

from typing import Any

import pytest

from fleet_in_process import Fleet, fleet
from real_loop import eventually, run_real


def probes(made: Fleet, outcome: str) -> float:
    name, labels = "neurogate_gateway_probes_total", {"worker": "worker-0", "outcome": outcome}
    return made.gateway.metrics.registry.get_sample_value(name, labels) or 0.0


async def shown(made: Fleet) -> Any:
    return (await made.client.get("/workers")).json()["workers"][0]


def test_a_breakers_time_over_a_canary_closes_it_and_is_on_nobodys_books() -> None:
    async def main() -> None:
        async with fleet(2, breaker_reset_s=0.2) as made:
            member = made.gateway.pool.snapshot.members[0]
            for _ in range(3):
                member.breaker.record_failure()
            assert ((await shown(made))["state"], (await shown(made))["detail"]) == ("open", "3 failures in a row")
            await eventually(lambda: member.breaker.state == "closed")

            assert (probes(made, "success"), probes(made, "failure")) == (1.0, 0.0)
            assert (await shown(made))["state"] == "ready"
            assert made.calls == []  # no request of anybody's
            assert member.report.requests_total == 0
            assert made.gateway.metrics.requests_by_status() == {200: 3}  # /workers

    run_real(main())


def test_a_worker_that_drains_is_not_probed_and_nothing_is_left_when_the_gateway_stops() -> None:
    async def main() -> None:
        async with fleet(1, breaker_reset_s=0.05) as made:
            member = made.gateway.pool.snapshot.members[0]
            made.gateway.pool.cordon("worker-0")
            for _ in range(3):
                member.breaker.record_failure()
            await eventually(lambda: member.breaker.look_at < made.gateway.pool._loop.time())
            assert made.gateway.prober.out == 0
            made.gateway.pool.uncordon("worker-0")
            await eventually(lambda: probes(made, "success") == 1.0)

    run_real(main())


@pytest.mark.parametrize("canary_probes", [True, False])
def test_turned_off_the_next_request_is_the_probe(canary_probes: bool) -> None:
    async def main() -> None:
        async with fleet(1, breaker_reset_s=0.05, canary_probes=canary_probes) as made:
            member = made.gateway.pool.snapshot.members[0]
            for _ in range(3):
                member.breaker.record_failure()
            if canary_probes:
                await eventually(lambda: member.breaker.state == "closed")
            answer = await made.client.post("/prompt", json={"query": "Why?", "max_tokens": 2})

            assert answer.status_code == 200
            assert (member.breaker.state, probes(made, "success")) == ("closed", float(canary_probes))

    run_real(main())

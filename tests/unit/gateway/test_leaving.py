"""The order in which a gateway goes, and who has it drain."""

from __future__ import annotations

import asyncio

from neurogate.gateway.leaving import leave
from neurogate.gateway.lifecycle import Lifecycle, Why
from neurogate.virtual_time import run as run_virtual


class Listeners:
    """Writes down when it is stopped, and how."""

    def __init__(self, story: list[tuple[str, float]]) -> None:
        self._story = story

    async def stop(self, grace_s: float, *, quiet_s: float) -> None:
        self._story.append((f"stop {grace_s:g} {quiet_s:g}", asyncio.get_running_loop().time()))


def test_it_is_not_ready_before_it_takes_no_more_connections() -> None:
    async def main() -> None:
        story: list[tuple[str, float]] = []
        lifecycle = Lifecycle()
        lifecycle.follow(lambda draining: story.append((f"draining {draining}", asyncio.get_running_loop().time())))
        await leave(lifecycle, [Listeners(story), Listeners(story)], delay_s=3, grace_s=30)
        assert story == [("draining True", 0), ("stop 30 1", 3), ("stop 30 1", 3)]

    run_virtual(main())


def test_nobody_is_waited_for_without_a_delay() -> None:
    async def main() -> None:
        story: list[tuple[str, float]] = []
        await leave(Lifecycle(), [Listeners(story)], delay_s=0, grace_s=0.25)
        assert story == [("stop 0.25 0.25", 0)]

    run_virtual(main())


def test_an_admin_takes_back_only_what_an_admin_said() -> None:
    heard: list[bool] = []
    lifecycle = Lifecycle()
    lifecycle.follow(heard.append)

    lifecycle.drain(Why.ADMIN)
    lifecycle.drain(Why.ADMIN)
    lifecycle.undrain(Why.ADMIN)
    lifecycle.drain(Why.ADMIN)
    lifecycle.drain(Why.STOP)
    lifecycle.undrain(Why.ADMIN)

    assert lifecycle.draining
    assert heard == [True, False, True]

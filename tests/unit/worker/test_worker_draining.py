"""A worker that drains is heard before it refuses, and can be taken back."""

from __future__ import annotations

import asyncio

from neurogate.virtual_time import run as run_virtual
from neurogate.worker.draining import TOLD_S, Draining


class Story:
    """A worker and its gateways, who write down what happens and when."""

    def __init__(self) -> None:
        self.said: list[tuple[str, float]] = []
        self.draining = False
        self.active = 3
        self.heard = asyncio.Event()

    def _say(self, what: str) -> None:
        self.said.append((what, asyncio.get_running_loop().time()))

    def announce_drain(self) -> None:
        self.draining = True
        self._say("announced")

    def drain(self) -> None:
        self._say("refuses")

    def undrain(self) -> None:
        self.draining = False
        self._say("taken back")

    def refresh(self) -> None:
        self._say("told")

    async def flushed(self) -> None:
        await self.heard.wait()


def test_it_refuses_a_grace_after_its_gateways_were_told() -> None:
    async def main() -> None:
        story = Story()
        asyncio.get_running_loop().call_later(1, story.heard.set)
        await Draining(story, story).drain(grace_s=0.5)
        assert story.said == [("announced", 0), ("told", 0), ("refuses", 1.5)]

    run_virtual(main())


def test_a_gateway_that_hangs_is_not_waited_for() -> None:
    async def main() -> None:
        story = Story()
        await Draining(story, story).drain(grace_s=0)
        assert story.said[-1] == ("refuses", TOLD_S)

    run_virtual(main())


def test_a_drain_that_is_taken_back_in_time_refuses_nothing() -> None:
    async def main() -> None:
        story = Story()
        story.heard.set()
        draining = Draining(story, story)
        asyncio.get_running_loop().call_later(1, draining.undrain)
        await draining.drain(grace_s=5)
        assert [what for what, _ in story.said] == ["announced", "told", "taken back", "told"]
        assert draining.active == 3

    run_virtual(main())

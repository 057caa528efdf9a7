"""One timer for everybody's deadline."""

from __future__ import annotations

import asyncio

import pytest

from dataplane_support import live_timers
from neurogate.dataplane.deadlines import Deadlines
from neurogate.virtual_time import run


class Request:
    """A request that notes when its time was over."""

    def __init__(self, requests: set[Request], deadline: float) -> None:
        self._requests = requests
        self.deadline = deadline
        self.finished = False
        self.expired_at = 0.0
        requests.add(self)

    def expire(self) -> None:
        """Leave."""
        self.expired_at = asyncio.get_running_loop().time()
        self.finish()

    def finish(self) -> None:
        """Leave in time."""
        self.finished = True
        self._requests.discard(self)


def test_each_request_ends_at_its_deadline_in_whatever_order_they_came() -> None:
    async def main() -> None:
        requests: set[Request] = set()
        deadlines = Deadlines(requests, asyncio.get_running_loop())
        made = [Request(requests, at) for at in (30.0, 0.5, 2.25, 0.25, 2.5)]
        for request in made:
            deadlines.watch(request.deadline)
        await asyncio.sleep(31)
        assert [request.expired_at for request in made] == pytest.approx([request.deadline for request in made])

    run(main())


def test_a_request_that_came_too_late_ends_on_the_next_turn() -> None:
    async def main() -> None:
        requests: set[Request] = set()
        deadlines = Deadlines(requests, asyncio.get_running_loop())
        await asyncio.sleep(5)
        request = Request(requests, 1.0)
        deadlines.watch(request.deadline)
        assert not request.finished
        await asyncio.sleep(0.001)
        assert request.expired_at == 5

    run(main())


def test_deadlines_near_each_other_are_met_a_moment_late_at_most() -> None:
    async def main() -> None:
        requests: set[Request] = set()
        deadlines = Deadlines(requests, asyncio.get_running_loop())
        made = [Request(requests, 1 + number / 1000) for number in range(100)]
        for request in made:
            deadlines.watch(request.deadline)
        await asyncio.sleep(2)
        assert all(-0.0011 < request.expired_at - request.deadline < 0.0101 for request in made)

    run(main())


def test_a_request_that_ended_is_left_alone_and_the_timer_ends_after_the_last_one() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        requests: set[Request] = set()
        deadlines = Deadlines(requests, loop)
        made = [Request(requests, 600.0) for _ in range(3)]
        for request in made:
            deadlines.watch(request.deadline)
        assert len(live_timers(loop)) == 1
        await asyncio.sleep(10)
        for request in made:
            request.finish()
        await asyncio.sleep(1.5)
        assert live_timers(loop) == []
        assert [request.expired_at for request in made] == [0.0] * 3

    run(main())


def test_one_that_expires_may_take_others_with_it() -> None:
    async def main() -> None:
        requests: set[Request] = set()
        deadlines = Deadlines(requests, asyncio.get_running_loop())
        first, second = Request(requests, 1.0), Request(requests, 1.0)
        for one, other in ((first, second), (second, first)):
            one.expire = other.finish  # type: ignore[method-assign]
            deadlines.watch(one.deadline)
        await asyncio.sleep(0.9)
        assert len(requests) == 2
        await asyncio.sleep(0.2)
        assert first.finished != second.finished

    run(main())


def test_one_whose_end_raises_costs_nobody_else_the_deadline() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        heard: list[object] = []
        loop.set_exception_handler(lambda _, context: heard.append(context["exception"]))
        requests: set[Request] = set()
        deadlines = Deadlines(requests, loop)

        def broken() -> None:
            bad.finish()
            raise ValueError("a bug")

        bad, due, later = Request(requests, 1.0), Request(requests, 1.001), Request(requests, 5.0)
        bad.expire = broken  # type: ignore[method-assign]
        for request in (bad, due, later):
            deadlines.watch(request.deadline)
        await asyncio.sleep(6)
        assert [str(error) for error in heard] == ["a bug"]
        assert due.expired_at == pytest.approx(1.0, abs=0.02)
        assert later.expired_at == pytest.approx(5.0, abs=0.02)

    run(main())

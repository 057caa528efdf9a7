"""Coroutines that run without a task."""

from __future__ import annotations

import asyncio
from typing import Any

from neurogate.httpd.at_once import DONE, Ready
from neurogate.httpd.stepped import Stepped
from neurogate.virtual_time import run


def stepped(coroutine: Any, ended: list[Stepped]) -> Stepped:
    """It, before its first step."""
    return Stepped(coroutine, ended.append, asyncio.get_running_loop())


def test_what_waits_for_nothing_is_over_at_once() -> None:
    async def main() -> None:
        async def work() -> None:
            await DONE
            assert await Ready({"type": "x"}) == {"type": "x"}

        ended: list[Stepped] = []
        one = stepped(work(), ended)
        assert one.step()
        assert ended == [one]

    run(main())


def test_what_waits_goes_on_from_what_it_waited_for() -> None:
    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        seen: list[object] = []

        async def work() -> None:
            await asyncio.sleep(0)
            seen.append(await future)

        ended: list[Stepped] = []
        one = stepped(work(), ended)
        assert not one.step()
        await asyncio.sleep(0)
        assert (seen, ended) == ([], [])
        future.set_result(7)
        await asyncio.sleep(0)
        assert (seen, ended) == ([7], [one])

    run(main())


def test_a_cancellation_is_raised_where_it_waits() -> None:
    async def main() -> None:
        cancelled: list[bool] = []

        async def work() -> None:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                cancelled.append(True)

        ended: list[Stepped] = []
        one = stepped(work(), ended)
        one.step()
        one.cancel()
        assert (cancelled, ended) == ([True], [one])
        one.cancel()
        assert ended == [one]

    run(main())


def test_a_cancelled_one_is_not_woken_by_what_it_waited_for() -> None:
    async def main() -> None:
        first, second = (asyncio.get_running_loop().create_future() for _ in range(2))
        seen: list[object] = []

        async def work() -> None:
            try:
                await first
            except asyncio.CancelledError:
                seen.append(await second)

        ended: list[Stepped] = []
        one = stepped(work(), ended)
        one.step()
        first.set_result(1)
        one.cancel()
        await asyncio.sleep(0)
        assert (seen, ended) == ([], [])
        second.set_result(2)
        await asyncio.sleep(0)
        assert (seen, ended) == ([2], [one])

    run(main())


def test_a_cancellation_finds_what_is_about_to_go_on() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        seen: list[str] = []

        async def work(name: str, bare: bool) -> None:
            try:
                await (asyncio.sleep(0) if bare else future)
                seen.append(name)
            except asyncio.CancelledError:
                seen.append(f"{name} cancelled")
                raise

        ended: list[Stepped] = []
        both = [stepped(work("waits", bare=False), ended), stepped(work("yields", bare=True), ended)]
        for one in both:
            assert not one.step()
        future.set_result(None)  # its step is queued now
        for one in both:
            one.cancel()
            one.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert sorted(seen) == ["waits cancelled", "yields cancelled"]
        assert sorted(map(id, ended)) == sorted(map(id, both))
        for one in both:
            one.cancel()
            assert one.step()
        assert len(ended) == 2

    run(main())


def test_one_that_raises_is_over_and_the_loop_hears_of_it() -> None:
    async def main() -> None:
        heard: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context["exception"]))

        async def work() -> None:
            raise ValueError("a bug")

        ended: list[Stepped] = []
        assert stepped(work(), ended).step()
        assert len(ended) == 1
        assert [str(error) for error in heard] == ["a bug"]

    run(main())

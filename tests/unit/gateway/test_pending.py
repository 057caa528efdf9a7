"""Coroutines whose first step is taken without a task, and what carries them on."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from neurogate.gateway.pending import Pending, Resumed
from neurogate.virtual_time import run


def begin(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Take the first step; what it waits for."""
    return coroutine.send(None)


class Heard:
    """What a pending coroutine's owner hears."""

    def __init__(self) -> None:
        self.results: list[object] = []
        self.errors: list[BaseException] = []

    def carry_on(self, coroutine: Coroutine[Any, Any, Any]) -> Pending:
        return Pending(coroutine, begin(coroutine), on_result=self.results.append, on_error=self.errors.append)


def test_the_result_is_heard_once_the_future_is_done() -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def work() -> str:
            await gate.wait()
            return "done"

        heard = Heard()
        heard.carry_on(work())
        await asyncio.sleep(1)
        assert heard.results == []
        gate.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (heard.results, heard.errors) == (["done"], [])

    run(main())


def test_a_coroutine_may_wait_as_often_as_it_likes() -> None:
    """For futures, for time, and with a bare yield."""

    async def main() -> None:
        async def work() -> float:
            for _ in range(3):
                await asyncio.sleep(2)
                await asyncio.sleep(0)
                await asyncio.gather(asyncio.sleep(1))
            return asyncio.get_running_loop().time()

        heard = Heard()
        heard.carry_on(work())
        await asyncio.sleep(10)
        assert heard.results == [9.0]

    run(main())


def test_a_bare_yield_at_first_is_carried_on() -> None:
    async def main() -> None:
        async def work() -> int:
            await asyncio.sleep(0)
            return 7

        heard = Heard()
        heard.carry_on(work())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert heard.results == [7]

    run(main())


def test_an_error_is_heard() -> None:
    async def main() -> None:
        async def work() -> None:
            await asyncio.sleep(1)
            raise OSError("broken pipe")

        heard = Heard()
        heard.carry_on(work())
        await asyncio.sleep(2)
        assert [str(error) for error in heard.errors] == ["broken pipe"]
        assert heard.results == []

    run(main())


def test_an_error_of_what_it_waits_for_reaches_the_coroutine() -> None:
    async def main() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def work() -> str:
            try:
                await future
            except OSError as error:
                return f"handled {error}"
            raise AssertionError

        heard = Heard()
        heard.carry_on(work())
        future.set_exception(OSError("reset"))
        await asyncio.sleep(1)
        assert heard.results == ["handled reset"]

    run(main())


def test_a_cancelled_future_is_an_error_too() -> None:
    """Nobody would ever hear of the coroutine again otherwise."""

    async def main() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def work() -> None:
            await future

        heard = Heard()
        heard.carry_on(work())
        future.cancel()
        await asyncio.sleep(1)
        assert [type(error) for error in heard.errors] == [asyncio.CancelledError]

    run(main())


@pytest.mark.parametrize("wait_s", [0, 1])
def test_closing_ends_the_coroutine_where_it_waits_and_calls_nobody(wait_s: float) -> None:
    async def main() -> None:
        ended: list[str] = []

        async def work() -> None:
            try:
                await asyncio.sleep(wait_s)
            finally:
                ended.append("cleaned up")

        heard = Heard()
        pending = heard.carry_on(work())
        pending.close()
        assert ended == ["cleaned up"]
        pending.close()
        await asyncio.sleep(2)
        assert (heard.results, heard.errors) == ([], [])

    run(main())


def test_closing_what_has_ended_does_nothing() -> None:
    async def main() -> None:
        heard = Heard()
        pending = heard.carry_on(asyncio.sleep(1, "done"))
        await asyncio.sleep(2)
        pending.close()
        assert heard.results == ["done"]

    run(main())


def test_closing_before_a_done_future_has_told_calls_nobody() -> None:
    async def main() -> None:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def work() -> str:
            return await future

        heard = Heard()
        pending = heard.carry_on(work())
        future.set_result("too late")
        pending.close()
        await asyncio.sleep(1)
        assert (heard.results, heard.errors) == ([], [])

    run(main())


# Resumed


async def resumed(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return await Resumed(coroutine, begin(coroutine))


def test_a_task_can_await_the_rest_of_a_coroutine() -> None:
    async def main() -> None:
        async def work() -> str:
            await asyncio.sleep(1)
            await asyncio.sleep(0)
            await asyncio.sleep(1)
            return "done"

        assert await resumed(work()) == "done"
        assert asyncio.get_running_loop().time() == 2
        assert await resumed(asyncio.sleep(0, "bare")) == "bare"

    run(main())


def test_errors_of_the_rest_are_raised() -> None:
    async def main() -> None:
        async def work() -> None:
            await asyncio.sleep(1)
            raise OSError("reset")

        with pytest.raises(OSError, match="reset"):
            await resumed(work())

    run(main())


@pytest.mark.parametrize("waits", [True, False], ids=["future", "bare yield"])
def test_cancelling_the_task_cancels_the_coroutine(waits: bool) -> None:
    async def main() -> None:
        ended: list[str] = []

        async def work() -> None:
            try:
                await asyncio.sleep(10 if waits else 0)
                while True:
                    await asyncio.sleep(0 if not waits else 10)
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(resumed(work()))
            await asyncio.sleep(0)
            task.cancel()
        assert task.cancelled()
        assert ended == ["cancelled"]

    run(main())


def test_a_coroutine_may_turn_a_cancellation_into_an_answer() -> None:
    async def main() -> None:
        async def work() -> str:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                await asyncio.sleep(1)
                return "last words"
            raise AssertionError

        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(resumed(work()))
            await asyncio.sleep(0)
            task.cancel()
        assert task.result() == "last words"

    run(main())


def test_a_timeout_reaches_the_coroutine() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await resumed(asyncio.sleep(10))
        assert asyncio.get_running_loop().time() == 3

    run(main())

"""A wait for a worker ends once: whatever else was under way comes to nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dataplane_support import RESUMES, Rig, live_timers, rig, turns
from neurogate import virtual_time
from neurogate.channel import End, EndCode
from neurogate.dataplane.dispatch import DispatchLimits
from neurogate.dataplane.waiting import Wait
from neurogate.testing.recovery import PlainRecovery
from neurogate.testing.workers import answers, ends, refuses


def waiting(made: Rig, heard: list[str], then: Callable[[], None] = lambda: None) -> Wait:
    def look() -> None:
        heard.append("look")
        then()

    loop = asyncio.get_running_loop()
    return Wait(made.pool, loop, look=look, over=lambda: heard.append("over"))


def test_a_snapshot_and_a_timer_at_the_same_moment_are_one_look() -> None:
    async def main() -> None:
        async with rig() as made:
            for publish_first in (True, False):
                heard: list[str] = []
                wait = waiting(made, heard)
                wait.go_on(10.0, again_s=1.0)
                if publish_first:
                    made.dispatcher.loop.call_later(1.0 - 1e-10, made.pool.publish)
                else:
                    made.dispatcher.loop.call_later(1.0, made.pool.publish)
                await asyncio.sleep(2)
                wait.stop()

                assert heard == ["look"]

    virtual_time.run(main())


def test_who_stopped_is_called_no_more_though_a_snapshot_was_published_before() -> None:
    async def main() -> None:
        async with rig() as made:
            heard: list[str] = []
            wait = waiting(made, heard)
            wait.go_on(1.0, again_s=0.5)
            made.pool.publish()
            wait.stop()
            await asyncio.sleep(5)

            assert heard == []
            assert live_timers(asyncio.get_running_loop()) == []

    virtual_time.run(main())


def test_the_time_goes_on_from_look_to_look() -> None:
    async def main() -> None:
        async with rig() as made:
            heard: list[str] = []
            wait = waiting(made, heard, lambda: wait.go_on(3.0))
            wait.go_on(3.0)
            for _ in range(2):
                await asyncio.sleep(1)
                made.pool.publish()
            await asyncio.sleep(0.9)
            assert heard == ["look", "look"]
            await asyncio.sleep(0.2)
            assert heard == ["look", "look", "over"]
            made.pool.publish()
            await turns()
            assert len(heard) == 3

    virtual_time.run(main())


def test_a_stream_that_is_asked_for_again_is_asked_for_once() -> None:
    """Its moment to ask again and a snapshot may come in the same turn of the loop."""

    async def main() -> None:
        async with rig(1, resumes={"worker-0": RESUMES}, recovery=PlainRecovery()) as made:
            _, receiver = made.send(resumable=True)
            worker = made.worker()
            worker.calls[-1].chunk(b"one ")
            worker.script = answers(b"two ", b"three ", first_s=0.5, every_s=1.0)
            worker.then(ends(EndCode.BUSY))
            worker.calls[-1].end(End(EndCode.BROKEN))
            await turns(4)
            made.dispatcher.loop.call_later(1.0 - 1e-10, made.pool.publish)
            await receiver.last_word()
            await asyncio.sleep(10)

            assert receiver.heard == ["chunk", "chunk", "chunk", "complete"]
            assert receiver.body == b"one two three "
            assert len(worker.calls) == 3

    virtual_time.run(main())


def test_nobody_is_hedged_while_nobody_is_asked() -> None:
    """A request that waits for a worker has no late one to be asked beside."""

    async def main() -> None:
        async with rig(1, limits=DispatchLimits(hedge_after_s=1.0)) as made:
            worker = made.worker()
            worker.then(ends(EndCode.UNAVAILABLE, after_s=0.5), answers(b"x", b"y", first_s=0.1, every_s=0.5))
            exchange, receiver = made.send()
            await asyncio.sleep(1.5)
            made.pool.publish()
            await receiver.last_word()
            await asyncio.sleep(10)

            assert receiver.heard == ["chunk", "chunk", "complete"]
            assert exchange.beside == 0
            assert len(worker.calls) == 2

    virtual_time.run(main())


def test_a_worker_that_failed_before_is_asked_rather_than_waited_for() -> None:
    """When the second one turns out to be gone, the first one is there: nobody waits for a snapshot to say so."""

    async def main() -> None:
        async with rig(2) as made:
            first, second = made.worker(0), made.worker(1)
            first.then(refuses(500), answers(b"x"))
            second.then(ends(EndCode.UNAVAILABLE))
            receiver = await made.ask()

            assert receiver.last_words == ["complete"]
            assert receiver.ended_at == 0
            assert (len(first.calls), len(second.calls)) == (2, 1)

    virtual_time.run(main())

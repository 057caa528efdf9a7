"""Workers that ask to be left alone are, each for as long as it asked, and one that is full until it has room."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from dataplane_support import Rig, endpoint, rig, turns
from neurogate import virtual_time
from neurogate.channel import EndCode
from neurogate.dataplane.dispatch import DispatchLimits
from neurogate.errors import BusyError, NoWorkerError
from neurogate.testing.workers import GOOD_END, HANGS, Script, answers, ends, refuses


def asked(made: Rig) -> list[int]:
    return [len(channel.calls) for channel in made.fleet.channels.values()]


def states(made: Rig) -> list[str]:
    return [str(member.state) for member in made.pool.snapshot.members]


@pytest.mark.parametrize(
    "refusal", [refuses(429, retry_after_s=5.0), refuses(503, retry_after_s=5.0)], ids=["429", "503"]
)
def test_a_worker_that_says_when_to_ask_again_is_not_asked_before(refusal: Script):
    async def main() -> None:
        async with rig(2) as made:
            made.worker(0).script, made.worker(1).script = refusal, answers(b"x")
            words = [(await made.ask()).last_words for _ in range(10)]
            assert words == [["complete"]] * 10
            assert asked(made) == [1, 10]
            assert states(made) == ["resting", "ready"]
            assert made.member(0).breaker.consecutive_failures == 0
            assert len(made.observer.retries) == 1  # the other nine charged nothing
            await asyncio.sleep(4.9)
            await made.ask()
            assert (asked(made), states(made)) == ([1, 11], ["resting", "ready"])
            await asyncio.sleep(0.2)
            made.worker(0).script = answers(b"x")
            await made.ask()
            await made.ask()

            assert (asked(made), states(made)) == ([2, 12], ["ready", "ready"])

    virtual_time.run(main())


def test_a_rest_has_a_bound():
    async def main() -> None:
        async with rig(1) as made:
            made.pool.rest(made.member(), 86400.0, until_room=False)
            await asyncio.sleep(59.9)
            assert states(made) == ["resting"]
            await asyncio.sleep(0.2)
            assert states(made) == ["ready"]

            made.pool.rest_max_s = 0.0
            made.pool.rest(made.member(), 5.0, until_room=False)
            assert states(made) == ["ready"]

    virtual_time.run(main())


def test_a_429_without_a_time_is_asked_again():
    async def main() -> None:
        async with rig(2) as made:
            made.worker(0).script, made.worker(1).script = refuses(429), answers(b"x")
            for _ in range(10):
                await made.ask()

            assert asked(made) == [10, 10]

    virtual_time.run(main())


@pytest.mark.parametrize(
    "script", [refuses(500, retry_after_s=5.0), refuses(404, retry_after_s=5.0)], ids=["500", "404"]
)
def test_what_is_no_refusal_is_no_rest(script: Script):
    async def main() -> None:
        async with rig(2) as made:
            made.worker(0).script, made.worker(1).script = script, answers(b"x")
            await made.ask()

            assert states(made) == ["ready", "ready"]

    virtual_time.run(main())


def test_of_several_times_the_last_one_counts():
    async def main() -> None:
        async with rig(1) as made:
            for seconds in (5.0, 9.0, 1.0):
                made.pool.rest(made.member(), seconds, until_room=False)
            made.pool.rest(made.member(), 1.0, until_room=True)  # has no say in what the engine asked for
            await asyncio.sleep(8.9)
            assert states(made) == ["resting"]
            await asyncio.sleep(0.2)
            assert states(made) == ["ready"]

    virtual_time.run(main())


BUSY = ends(EndCode.BUSY, retry_after_s=1.0, message="the worker holds 2 requests already")


def test_a_full_worker_is_asked_again_when_one_of_its_requests_ends():
    async def main() -> None:
        async with rig(2) as made:
            held = [made.send()[0] for _ in range(4)]
            made.worker(0).then(BUSY)
            await asyncio.sleep(0.1)
            moved, _ = made.send()
            await turns(6)
            assert (asked(made), states(made)) == ([3, 3], ["resting", "ready"])
            others = [made.send()[0] for _ in range(3)]
            assert asked(made) == [3, 6]
            await asyncio.sleep(0.1)
            made.worker(0).calls[0].end(GOOD_END)
            assert states(made) == ["ready", "ready"]
            await asyncio.sleep(0.03)
            others += [made.send()[0] for _ in range(2)]

            assert asked(made) == [4, 7]
            for exchange in (*held, moved, *others):
                exchange.cancel()

    virtual_time.run(main())


def test_a_full_worker_is_asked_again_when_its_report_shows_fewer_requests():
    """It was full of another gateway's."""

    async def main() -> None:
        async with rig(2) as made:
            made.worker(0).tell(replace(made.worker(0).present, running=8))
            made.worker(0).script, made.worker(1).script = BUSY, answers(b"x")
            await made.ask()
            assert states(made) == ["resting", "ready"]
            made.worker(0).tell(replace(made.worker(0).present, running=8))
            assert states(made) == ["resting", "ready"]
            made.worker(0).tell(replace(made.worker(0).present, running=7))

            assert states(made) == ["ready", "ready"]

    virtual_time.run(main())


def test_a_full_worker_that_nothing_is_heard_of_is_asked_again_after_its_second():
    async def main() -> None:
        async with rig(2) as made:
            made.worker(0).script, made.worker(1).script = BUSY, answers(b"x")
            await made.ask()
            await asyncio.sleep(0.9)
            assert states(made) == ["resting", "ready"]
            await asyncio.sleep(0.2)
            assert states(made) == ["ready", "ready"]

    virtual_time.run(main())


def test_short_requests_keep_a_full_fleet_busy():
    """Two workers that hold two requests each, of 50 ms: 80 a second is what they can do."""

    async def main() -> None:
        async with rig(2, limits=DispatchLimits(retries=0)) as made:
            for channel in made.fleet.channels.values():
                channel.script = lambda _, channel=channel: (
                    BUSY if len(channel.running) > 2 else answers(b"x", first_s=0.05)
                )
            done = refused = 0

            async def client() -> None:
                nonlocal done, refused
                while asyncio.get_running_loop().time() < 5.0:
                    receiver = await made.ask()
                    done += receiver.last_words == ["complete"]
                    refused += receiver.last_words == ["error"]
                    await asyncio.sleep(0.001)

            async with asyncio.TaskGroup() as clients:
                for _ in range(6):
                    clients.create_task(client())

            assert done > 0.8 * 5 * 80
            assert refused < done

    virtual_time.run(main())


@pytest.mark.parametrize("failfast_s", [0.0, 2.0])
def test_when_all_rest_for_long_the_refusal_tells_the_shortest_rest(failfast_s: float):
    async def main() -> None:
        async with rig(2, limits=DispatchLimits(failfast_s=failfast_s)) as made:
            made.pool.rest(made.member(0), 9.0, until_room=False)
            made.pool.rest(made.member(1), 6.0, until_room=False)
            await asyncio.sleep(1)
            receiver = await made.ask()

            assert type(receiver.error) is BusyError
            assert receiver.error.retry_after_s == 5.0
            assert "asked to be left alone, one of them for 5.0 s more" in receiver.error.message
            assert receiver.ended_at == 1.0
            assert asked(made) == [0, 0]

    virtual_time.run(main())


def test_a_short_rest_of_all_is_waited_for():
    async def main() -> None:
        async with rig(2) as made:
            made.worker(1).script = answers(b"rested")
            made.pool.rest(made.member(0), 9.0, until_room=False)
            made.pool.rest(made.member(1), 1.5, until_room=False)
            receiver = await made.ask()

            assert receiver.body == b"rested"
            assert 1.5 <= receiver.ended_at < 1.6

    virtual_time.run(main())


def test_a_worker_that_could_be_asked_keeps_the_others_rest_out_of_the_error():
    async def main() -> None:
        async with rig(2, limits=DispatchLimits(failfast_s=0.0)) as made:
            made.pool.rest(made.member(0), 9.0, until_room=False)
            made.worker(1).drain()
            receiver = await made.ask()
            assert type(receiver.error) is BusyError
            made.worker(0).die()
            receiver = await made.ask()

            assert type(receiver.error) is NoWorkerError

    virtual_time.run(main())


def test_nobodys_breaker_is_forced_because_others_rest():
    async def main() -> None:
        async with rig(2) as made:
            await made.open_breaker(0)
            made.pool.rest(made.member(1), 9.0, until_room=False)
            receiver = await made.ask()

            assert (type(receiver.error), asked(made)) == (BusyError, [0, 0])

    virtual_time.run(main())


def test_ejected_workers_are_asked_when_nobody_else_is_there_and_before_open_breakers():
    async def main() -> None:
        async with rig(4) as made:
            for channel in made.fleet.channels.values():
                channel.script = answers(b"x")
            await made.open_breaker(0)
            made.pool.eject(made.member(1), ejected=True, why="slow")
            made.pool.rest(made.member(2), 9.0, until_room=False)
            await made.ask()
            assert asked(made) == [0, 0, 0, 1]
            assert states(made) == ["open", "ejected", "resting", "ready"]
            made.worker(3).drain()
            await made.ask()
            assert asked(made) == [0, 1, 0, 1]
            made.worker(1).drain()
            assert type((await made.ask()).error) is BusyError
            made.worker(2).drain()
            await made.ask()

            assert asked(made) == [1, 1, 0, 1]

    virtual_time.run(main())


def test_an_ejected_worker_comes_back_where_it_was():
    async def main() -> None:
        async with rig(2) as made:
            made.pool.rest(made.member(0), 5.0, until_room=False)
            for ejected in (True, True, False, True):
                made.pool.eject(made.member(0), ejected=ejected, why="slow")
            assert (states(made), made.member(0).why) == (["ejected", "ready"], "slow")
            await asyncio.sleep(6)
            assert made.pool.snapshot.admitting("") == (made.member(1),)
            made.pool.eject(made.member(0), ejected=False)
            assert len(made.pool.snapshot.admitting("")) == 2

    virtual_time.run(main())


def test_a_lost_worker_has_rested_enough_and_an_admins_reset_ends_a_rest():
    async def main() -> None:
        async with rig(2) as made:
            made.pool.rest(made.member(0), 50.0, until_room=False)
            made.pool.rest(made.member(1), 50.0, until_room=True)
            made.worker(0).die()
            made.worker(0).come_up()
            made.pool.reset_breaker("worker-1")

            assert states(made) == ["ready", "ready"]
            assert [member.on_room for member in made.pool.snapshot.members] == [None, None]

    virtual_time.run(main())


def test_a_worker_that_is_removed_or_unknown_does_not_rest():
    async def main() -> None:
        async with rig(2) as made:
            gone = made.member(0)
            made.pool.rest(gone, 50.0, until_room=False)
            await made.name(endpoint(1))
            assert gone.rest is None
            made.pool.rest(gone, 50.0, until_room=False)
            assert gone.rest is None
            made.pool.rest(made.member(1), 50.0, until_room=False)  # and nothing is left of that when the rig ends

    virtual_time.run(main())


def test_a_storm_of_rests_makes_few_snapshots():
    async def main() -> None:
        async with rig(100) as made:
            await asyncio.sleep(1)
            before = made.pool.snapshot.generation
            for member in made.pool.snapshot.members:
                made.pool.rest(member, 1.0, until_room=False)
            await asyncio.sleep(0.5)
            assert made.pool.snapshot.generation - before == 2
            assert made.pool.snapshot.admitting("") == ()
            await asyncio.sleep(1)
            assert made.pool.snapshot.generation - before == 4
            assert len(made.pool.snapshot.admitting("")) == 100

    virtual_time.run(main())


def test_who_began_to_rest_a_moment_ago_is_passed_over_before_a_snapshot_says_so():
    async def main() -> None:
        async with rig(2) as made:
            await asyncio.sleep(1)
            made.pool.publish()
            made.worker(1).script = answers(b"x")
            made.pool.rest(made.member(0), 5.0, until_room=False)
            assert len(made.pool.snapshot.admitting("")) == 2
            for _ in range(3):
                await made.ask()

            assert asked(made) == [0, 3]

    virtual_time.run(main())


def test_a_gateway_that_stops_as_a_worker_begins_to_rest_leaves_no_timer():
    """What the rig checks at its end."""

    async def main() -> None:
        async with rig(1) as made:
            made.pool.publish()
            made.pool.rest(made.member(), 5.0, until_room=False)

    virtual_time.run(main())


def test_a_hedge_that_is_refused_lets_its_worker_rest():
    async def main() -> None:
        async with rig(2, limits=DispatchLimits(hedge_after_s=1.0, hedge_share=1.0)) as made:
            made.worker(0).script = HANGS
            made.worker(1).script = refuses(429, retry_after_s=5.0)
            exchanges = [made.send()[0] for _ in range(1)]
            await asyncio.sleep(1.5)

            assert (asked(made), states(made)) == ([1, 1], ["ready", "resting"])
            for exchange in exchanges:
                exchange.cancel()

    virtual_time.run(main())

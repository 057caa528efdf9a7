"""Canaries probe open breakers, so that no user's request finds out whether a worker is well again."""

from __future__ import annotations

import asyncio

import pytest

from dataplane_support import Rig, endpoint, rig, turns
from neurogate import virtual_time
from neurogate.channel import Call, End, EndCode
from neurogate.operations import CANARY_PATH
from neurogate.testing.workers import HANGS, Script, answers, ends, refuses


def canaries(made: Rig) -> list[int]:
    return [len(channel.canaries) for channel in made.fleet.channels.values()]


def asked(made: Rig) -> list[int]:
    return [len(channel.calls) for channel in made.fleet.channels.values()]


def test_when_an_open_breakers_time_is_over_a_canary_closes_it_without_any_request():
    async def main() -> None:
        async with rig(2, canary_timeout_s=5.0) as made:
            await made.open_breaker(0)
            await asyncio.sleep(29.9)
            assert canaries(made) == [0, 0]
            await asyncio.sleep(0.2)

            assert canaries(made) == [1, 0]
            assert made.member(0).state == "ready"
            assert made.observer.breakers == [("worker-0", state) for state in ("open", "half-open", "closed")]
            assert made.observer.probes == [("worker-0", "success")]
            assert made.worker(0).canaries[0].call == Call(
                CANARY_PATH, b"", stream=False, deadline=made.worker(0).canaries[0].at + 5.0, request_id="canary"
            )

    virtual_time.run(main())


def test_a_wedged_worker_comes_back_without_any_users_request_failing_or_probing():
    """It hangs, is found out by requests that move or are continued, recovers, and is asked again only after that."""

    async def main() -> None:
        async with rig(2, canary_timeout_s=5.0) as made:
            wedged, well = made.worker(0), made.worker(1)
            wedged.script = ends(EndCode.UNAVAILABLE, after_s=1.0, message="the engine generates nothing")
            wedged.canary = HANGS
            well.script = answers(b"well", first_s=0.1)
            words = []
            for second in range(200):
                words.append((await made.ask()).last_words)
                await asyncio.sleep(0.9)
                if second == 100:
                    wedged.script, wedged.canary = answers(b"again", first_s=0.1), answers(first_s=0.2)
                    asked_while_wedged = len(wedged.calls)

            assert words == [["complete"]] * 200
            assert asked_while_wedged == 3
            assert len(wedged.calls) > 20
            assert made.member(0).state == "ready"
            assert {outcome for _, outcome in made.observer.probes} == {"failure", "success"}
            assert [outcome for _, outcome in made.observer.probes].count("success") == 1

    virtual_time.run(main())


@pytest.mark.parametrize(
    "canary",
    [
        HANGS,
        ends(EndCode.UNAVAILABLE),
        ends(EndCode.BROKEN),
        ends(EndCode.DEADLINE),
        ends(EndCode.INTERNAL),
        ends(EndCode.LINK_LOST),
        refuses(500),
    ],
    ids=["hangs", "UNAVAILABLE", "BROKEN", "DEADLINE", "INTERNAL", "LINK_LOST", "500"],
)
def test_a_canary_without_a_token_keeps_the_worker_out_for_the_whole_time_again(canary: Script):
    async def main() -> None:
        async with rig(2, canary_timeout_s=5.0) as made:
            made.worker(0).canary, made.worker(1).script = canary, answers(b"x")
            await made.open_breaker(0)
            await asyncio.sleep(36)
            words = [(await made.ask()).last_words for _ in range(10)]

            assert words == [["complete"]] * 10
            assert (canaries(made), asked(made)) == ([1, 0], [0, 10])
            assert made.member(0).state == "open"
            assert made.observer.probes == [("worker-0", "failure")]
            assert made.worker(0).running == {}
            await asyncio.sleep(31)
            assert canaries(made) == [2, 0]
            await asyncio.sleep(5)

    virtual_time.run(main())


def test_while_a_canary_is_out_no_user_is_admitted():
    async def main() -> None:
        async with rig(2, canary_timeout_s=5.0) as made:
            made.worker(0).canary, made.worker(1).script = answers(first_s=4.0), answers(b"x")
            await made.open_breaker(0)
            await asyncio.sleep(31)
            assert made.member(0).state == "half_open"
            for _ in range(10):
                await made.ask()
            assert asked(made) == [0, 10]
            assert made.dispatcher.in_flight == made.member(0).in_flight == 0  # a canary is on nobody's books
            await asyncio.sleep(4)
            for _ in range(4):
                made.send()[0].cancel()

            assert asked(made) == [2, 12]

    virtual_time.run(main())


@pytest.mark.parametrize(
    "canary",
    [
        ends(EndCode.UNSUPPORTED),
        ends(EndCode.BUSY, retry_after_s=1.0),
        ends(EndCode.CANCELLED),
        refuses(404),
        refuses(501),
        refuses(429),
    ],
    ids=["UNSUPPORTED", "BUSY", "CANCELLED", "404", "501", "429"],
)
def test_where_a_canary_says_nothing_the_next_request_is_the_probe(canary: Script):
    async def main() -> None:
        async with rig(2, canary_timeout_s=5.0) as made:
            made.worker(0).canary = canary
            made.worker(0).script = made.worker(1).script = answers(b"x")
            await made.open_breaker(0)
            await asyncio.sleep(31)
            assert (canaries(made), made.member(0).state) == ([1, 0], "open")
            await made.ask()
            await made.ask()

            assert asked(made) == [1, 1]
            assert made.member(0).state == "ready"
            assert canaries(made) == [1, 0]

            await made.open_breaker(0)  # another opening, another canary
            await asyncio.sleep(31)
            assert canaries(made) == [2, 0]

    virtual_time.run(main())


def test_a_worker_that_links_again_is_probed_at_once():
    async def main() -> None:
        async with rig(2, canary_timeout_s=5.0) as made:
            made.worker(0).die()
            made.worker(0).refuse_connection()
            made.worker(0).refuse_connection()
            await asyncio.sleep(3)
            assert (made.member(0).state, made.member(0).breaker.state) == ("unreachable", "open")
            made.worker(0).become_unready("the engine starts")
            made.worker(0).come_up()
            await asyncio.sleep(1)
            assert canaries(made) == [0, 0]
            made.worker(0).become_ready()
            await asyncio.sleep(0.01)

            assert canaries(made) == [1, 0]
            assert made.member(0).state == "ready"

    virtual_time.run(main())


def test_a_worker_whose_engine_comes_back_is_probed_at_once():
    async def main() -> None:
        async with rig(2, canary_timeout_s=5.0) as made:
            await made.open_breaker(0)
            made.worker(0).become_unready("the engine is restarted")
            await asyncio.sleep(3)
            assert canaries(made) == [0, 0]
            made.worker(0).become_ready()
            await asyncio.sleep(0.01)

            assert canaries(made) == [1, 0]
            assert made.member(0).state == "ready"

    virtual_time.run(main())


def test_an_old_worker_that_links_again_waits_for_the_rest_of_its_time():
    """Its canary says nothing, and no user is to be the guinea pig early."""

    async def main() -> None:
        async with rig(2, canary_timeout_s=5.0) as made:
            made.worker(0).canary = ends(EndCode.UNSUPPORTED)
            made.worker(0).script = made.worker(1).script = answers(b"x")
            made.worker(0).die()
            made.worker(0).refuse_connection()
            made.worker(0).refuse_connection()
            made.worker(0).come_up()
            await asyncio.sleep(1)
            await made.ask()
            await made.ask()
            assert (canaries(made), asked(made), made.member(0).state) == ([1, 0], [0, 2], "open")
            await asyncio.sleep(30)
            await made.ask()
            await made.ask()

            assert (canaries(made), asked(made), made.member(0).state) == ([1, 0], [1, 3], "ready")

    virtual_time.run(main())


def test_a_worker_that_cannot_serve_is_not_probed_until_it_can():
    async def main() -> None:
        async with rig(2, canary_timeout_s=5.0) as made:
            await made.open_breaker(0)
            made.pool.cordon("worker-0")
            await asyncio.sleep(40)
            assert canaries(made) == [0, 0]
            made.pool.uncordon("worker-0")
            await asyncio.sleep(0.01)

            assert canaries(made) == [1, 0]

    virtual_time.run(main())


def test_the_only_worker_is_still_tried_with_its_breaker_open():
    async def main() -> None:
        async with rig(1, canary_timeout_s=5.0) as made:
            made.worker().script = answers(b"still alive")
            await made.open_breaker()
            assert (await made.ask()).body == b"still alive"
            assert (canaries(made), made.member().state) == ([0], "ready")

    virtual_time.run(main())


def test_a_user_who_leaves_as_last_resort_leaves_the_probe_to_the_canary():
    async def main() -> None:
        async with rig(1, canary_timeout_s=5.0) as made:
            await made.open_breaker()
            await asyncio.sleep(10)
            made.send()[0].cancel()
            assert made.member().state == "open"
            await asyncio.sleep(19.9)
            assert canaries(made) == [0]
            await asyncio.sleep(0.2)

            assert (canaries(made), made.member().state) == ([1], "ready")

    virtual_time.run(main())


def test_a_probe_that_hangs_gives_way_to_a_canary():
    """A request of last resort that never ends must not keep the worker out for ever."""

    async def main() -> None:
        async with rig(1, canary_timeout_s=5.0) as made:
            await made.open_breaker()
            hung, _ = made.send()
            await asyncio.sleep(59)
            assert (canaries(made), made.member().state) == ([0], "half_open")
            await asyncio.sleep(2)
            assert (canaries(made), made.member().state) == ([1], "ready")
            hung.cancel()

    virtual_time.run(main())


def test_a_link_lost_under_a_canary_is_a_failure_and_leaves_nothing():
    async def main() -> None:
        async with rig(2, canary_timeout_s=5.0) as made:
            made.worker(0).canary = HANGS
            await made.open_breaker(0)
            await asyncio.sleep(31)
            made.worker(0).die()
            await turns()

            assert made.observer.probes == [("worker-0", "failure")]
            assert made.member(0).breaker.state == "open"

    virtual_time.run(main())


def test_a_worker_that_is_removed_takes_its_canary_along():
    async def main() -> None:
        async with rig(2, canary_timeout_s=5.0) as made:
            made.worker(0).canary = HANGS
            await made.open_breaker(0)
            await asyncio.sleep(31)
            assert made.prober is not None
            assert made.prober.out == 1
            await made.name(endpoint(1))

            assert made.prober.out == 0

    virtual_time.run(main())


def test_turned_off_users_probe_and_turned_on_they_do_not():
    async def main() -> None:
        async with rig(2, canary_timeout_s=5.0) as made:
            assert made.prober is not None
            made.worker(0).script = made.worker(1).script = answers(b"x")
            made.prober.configure(enabled=False, timeout_s=5.0)
            await made.open_breaker(0)
            await asyncio.sleep(31)
            assert canaries(made) == [0, 0]
            await made.ask()
            await made.ask()
            assert asked(made) == [1, 1]

            await made.open_breaker(0)
            await asyncio.sleep(31)
            made.prober.configure(enabled=True, timeout_s=5.0)
            await turns()
            assert (canaries(made), made.member(0).state) == ([1, 0], "ready")

    virtual_time.run(main())


def test_a_gateway_that_stops_with_a_canary_out_leaves_nothing():
    """What the rig checks at its end."""

    async def main() -> None:
        async with rig(2, canary_timeout_s=100.0) as made:
            made.worker(0).canary = HANGS
            await made.open_breaker(0)
            await made.open_breaker(1)
            await asyncio.sleep(31)
            assert canaries(made) == [1, 1]
            made.worker(0).canaries[0].chunk(b"{}")
            made.worker(0).canaries[0].end(End(http_status=200))
            assert made.member(0).state == "ready"
            await made.open_breaker(0)
            await asyncio.sleep(31)

    virtual_time.run(main())

"""Room: the slots of those who have the model, times a factor; a fixed count for those who want one."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from dataplane_support import Rig, rig
from neurogate import virtual_time
from neurogate.dataplane.room import Room

SLOTS = 4


def tell_slots(made: Rig) -> None:
    for channel in made.fleet.channels.values():
        channel.tell(replace(channel.present, slots_total=SLOTS))


def room_of(made: Rig, *, max_concurrent: int = -1, factor: float = 1.0) -> Room:
    return Room(made.dispatcher, max_concurrent=max_concurrent, factor=factor)


def test_the_slots_of_all_workers_times_the_factor():
    async def main() -> None:
        async with rig(2) as made:
            tell_slots(made)
            room = room_of(made, factor=1.5)
            calls = []
            for _ in range(2 * 6):
                assert room.has_room(("", ""), 0)
                calls.append(made.send()[0])

            assert not room.has_room(("", ""), 0)
            calls.pop().cancel()
            assert room.has_room(("", ""), 0)
            assert not room.has_room(("", ""), 1)  # another one is about to take it
            for call in calls:
                call.cancel()

    virtual_time.run(main())


def test_other_slots_make_another_room_at_once():
    async def main() -> None:
        async with rig(2) as made:
            tell_slots(made)
            room = room_of(made)
            calls = [made.send()[0] for _ in range(2 * SLOTS)]
            assert not room.has_room(("", ""), 0)
            made.worker(1).tell(replace(made.worker(1).present, slots_total=SLOTS + 1))
            assert room.has_room(("", ""), 0)
            assert not room.has_room(("", ""), 1)
            for call in calls:
                call.cancel()

    virtual_time.run(main())


def test_what_happens_to_others_leaves_the_room_of_a_model_as_it_is():
    async def main() -> None:
        async with rig(3, models={"worker-0": ("a",), "worker-1": ("a",), "worker-2": ("b",)}) as made:
            tell_slots(made)
            room = room_of(made)
            calls = [made.send(model="a")[0] for _ in range(2 * SLOTS - 1)]
            for _ in range(2):
                assert room.has_room(("a", ""), 0)
                assert not room.has_room(("a", ""), 1)
                made.pool.cordon("worker-2")
            room.configure(max_concurrent=-1, factor=2.0)
            assert room.has_room(("a", ""), SLOTS)
            for call in calls:
                call.cancel()

    virtual_time.run(main())


def test_a_busy_model_takes_no_room_from_an_idle_one():
    async def main() -> None:
        async with rig(2, models={"worker-0": ("busy",), "worker-1": ("idle",)}) as made:
            tell_slots(made)
            room = room_of(made)
            calls = [made.send(model="busy")[0] for _ in range(SLOTS)]

            assert not room.has_room(("busy", ""), 0)
            assert room.has_room(("idle", ""), 0)
            for call in calls:
                call.cancel()

    virtual_time.run(main())


def test_only_workers_that_have_the_api_make_room_for_it():
    async def main() -> None:
        async with rig(2) as made:
            tell_slots(made)
            able = made.worker(0)
            able.tell(replace(able.present, apis=frozenset({"/v1/rerank"})))
            able.become_ready(models=("reranker",))  # tells the pool that something has changed
            room = room_of(made)
            calls = [made.send(model="reranker")[0] for _ in range(SLOTS)]

            assert not room.has_room(("", "/v1/rerank"), 0)
            assert room.has_room(("", ""), 0)
            for call in calls:
                call.cancel()

    virtual_time.run(main())


def test_names_that_clients_make_up_are_not_remembered():
    async def main() -> None:
        async with rig(1) as made:
            tell_slots(made)
            room = room_of(made)
            for number in range(1000):
                assert room.has_room((f"model-{number}", ""), 0)

            assert len(room._rooms) == 0

    virtual_time.run(main())


def test_a_worker_that_does_not_tell_its_slots_bounds_nothing():
    async def main() -> None:
        async with rig(1) as made:
            assert room_of(made).has_room(("", ""), 1000)

    virtual_time.run(main())


def test_without_workers_there_is_room_to_be_told_so():
    async def main() -> None:
        async with rig(1, up=False) as made:
            assert room_of(made).has_room(("", ""), 0)
            assert room_of(made).has_room(("", ""), 100)

    virtual_time.run(main())


def test_a_fixed_count_is_of_all_models_and_zero_is_no_bound():
    async def main() -> None:
        async with rig(1) as made:
            room = room_of(made, max_concurrent=1)
            call, _ = made.send()

            assert not room.has_room(("", ""), 0)
            assert room.has_room(("nobody has it", ""), 0)  # its 404 need not wait
            room.configure(max_concurrent=0, factor=1)
            assert room.has_room(("", ""), 1000)
            call.cancel()

    virtual_time.run(main())


def test_a_queue_is_not_poured_out_over_a_last_resort():
    async def main() -> None:
        async with rig(2) as made:
            tell_slots(made)
            room = room_of(made)
            await made.open_breaker(0)
            made.pool.eject(made.member(1), ejected=True)
            calls = []
            for _ in range(2 * SLOTS):
                assert room.has_room(("", ""), 0)
                calls.append(made.send()[0])

            assert not room.has_room(("", ""), 0)
            fixed = room_of(made, factor=1.0)
            fixed.configure(max_concurrent=2, factor=1.0)
            assert not fixed.has_room(("", ""), 0)
            for call in calls:
                call.cancel()
            assert fixed.has_room(("", ""), 0)

    virtual_time.run(main())


def test_workers_that_rest_for_a_moment_are_waited_for_and_longer_ones_are_told_of():
    async def main() -> None:
        async with rig(2) as made:
            tell_slots(made)
            room = room_of(made)
            made.pool.rest(made.member(0), 1.5, until_room=False)
            assert room.has_room(("", ""), 0)  # the other one's
            made.pool.rest(made.member(1), 30.0, until_room=False)
            await asyncio.sleep(0.1)
            assert not room.has_room(("", ""), 0)
            await asyncio.sleep(1.6)
            assert room.has_room(("", ""), 0)
            made.pool.rest(made.member(0), 30.0, until_room=False)
            await asyncio.sleep(0.1)
            assert room.has_room(("", ""), 0)  # the dispatcher says for how long
            await asyncio.sleep(31)

    virtual_time.run(main())

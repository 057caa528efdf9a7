"""Workers by Kubernetes, on virtual time."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest

from discovery_support import followed
from neurogate.discovery.kubernetes import PAUSE_MAX_S, KubernetesResolver
from neurogate.discovery.resolver import EMPTY_S
from neurogate.discovery.sources import KubernetesSource
from neurogate.endpoint import Endpoint
from neurogate.testing.sources import FakeSlices, RecordingSourceObserver, SliceStore, pod, slice_object
from neurogate.virtual_time import run


class Made:
    """A resolver with what it asks and tells."""

    def __init__(self, *, port: str = "", known: tuple[Endpoint, ...] = ()) -> None:
        self.store = SliceStore()
        self.api = FakeSlices(self.store)
        self.observer = RecordingSourceObserver()
        self.resolver = KubernetesResolver(
            KubernetesSource("kubernetes:workers", "", "workers", port),
            self.api,
            observer=self.observer,
            loop=asyncio.get_running_loop(),
            rng=random.Random(1),
            known=known,
        )

    def put(self, *addresses: str, slice_name: str = "a") -> None:
        self.store.put(slice_object(slice_name, [pod(f"w-{address[-1]}", address) for address in addresses]))


def test_what_is_there_is_listed_and_what_happens_is_seen_at_once():
    async def main() -> None:
        made = Made()
        made.put("10.0.0.1")
        async with followed(made.resolver) as seen:
            await asyncio.sleep(1)
            assert seen.last == {"w-1": "10.0.0.1:50051"}
            made.put("10.0.0.1", "10.0.0.2")
            made.put("10.0.0.3", slice_name="b")
            await asyncio.sleep(0.1)
            assert sorted(seen.last) == ["w-1", "w-2", "w-3"]
            made.store.delete("a")
            await asyncio.sleep(0.1)
            assert seen.last == {"w-3": "10.0.0.3:50051"}
            made.put("10.0.0.3", slice_name="b")
            await asyncio.sleep(0.1)
        assert len(seen.sets) == 4, "the same set is no news"
        assert len(made.api.listed) == 1

    run(main())


def test_scaled_to_nobody_is_believed_as_soon_as_pods_end():
    async def main() -> None:
        made = Made()
        made.put("10.0.0.1", "10.0.0.2")
        async with followed(made.resolver) as seen:
            await asyncio.sleep(0.1)
            made.store.put(slice_object("a", [pod(f"w-{n}", f"10.0.0.{n}", terminating=True) for n in (1, 2)]))
            await asyncio.sleep(0.1)
            assert seen.sets[1:] == [()]
            made.put()
            await asyncio.sleep(EMPTY_S * 2)
        assert len(seen.sets) == 2
        assert len(made.api.listed) == 1, "there is nothing to doubt"

    run(main())


@pytest.mark.parametrize("gone", ["slice", "endpoints"])
def test_that_there_is_no_endpoint_at_all_is_believed_after_a_minute_when_a_new_list_says_so_too(gone: str):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        made = Made()

        def vanish() -> None:
            if gone == "slice":
                made.store.delete("a")
            else:
                made.put()

        made.put("10.0.0.1", "10.0.0.2")
        async with followed(made.resolver) as seen:
            await asyncio.sleep(0.1)
            vanish()
            await asyncio.sleep(EMPTY_S - 10)
            made.api.end_watches()
            made.put("10.0.0.1", "10.0.0.2")
            await asyncio.sleep(EMPTY_S)
            assert len(seen.sets) == 1, "a gap was no news"
            made.api.failing = "connection refused"
            made.api.end_watches()
            await asyncio.sleep(1)
            vanish()
            made.api.failing = ""
            await asyncio.sleep(EMPTY_S - 2)
            assert len(seen.sets) == 1, "found by a list, it is doubted as well"
            began = len(made.api.listed)
            await asyncio.sleep(10)
            assert seen.sets[1:] == [()]
            assert len(made.api.listed) == began + 1
            assert seen.times[-1] == made.api.listed[-1] < loop.time()
            await asyncio.sleep(EMPTY_S * 3)
            assert len(made.api.listed) == began + 1

    run(main())


def test_a_watch_that_the_server_ends_goes_on_from_where_it_was_and_bookmarks_move_that():
    async def main() -> None:
        made = Made()
        made.put("10.0.0.1")
        async with followed(made.resolver) as seen:
            await asyncio.sleep(50)
            made.store.bookmark()
            await asyncio.sleep(10)
            made.api.end_watches()
            await asyncio.sleep(1)
            made.put("10.0.0.2")
            await asyncio.sleep(0.1)
            assert list(seen.last) == ["w-2"]
        assert [version for _, version in made.api.watched] == ["2", "3"]
        assert len(made.api.listed) == 1
        assert made.observer.reasons == []

    run(main())


def test_a_version_that_is_gone_is_listed_anew():
    async def main() -> None:
        made = Made()
        made.put("10.0.0.1")
        async with followed(made.resolver) as seen:
            await asyncio.sleep(1)
            made.put("10.0.0.2")
            made.store.compact()
            await asyncio.sleep(1)
            assert list(seen.last) == ["w-2"]
        assert len(made.api.listed) == 2
        assert made.observer.reasons == [], "that is how it goes"

    run(main())


def test_an_api_server_that_fails_costs_nobody_is_told_and_is_asked_ever_more_seldom():
    async def main() -> None:
        made = Made()
        made.put("10.0.0.1")
        async with followed(made.resolver) as seen:
            await asyncio.sleep(2)
            made.api.failing = "connection refused"
            made.api.end_watches()
            await asyncio.sleep(600)
            assert len(seen.sets) == 1
            assert set(made.observer.reasons) == {"connection refused"}
            waits = [later - earlier for earlier, later in itertools.pairwise(made.api.listed[1:])]
            assert waits[0] <= 0.5
            assert PAUSE_MAX_S / 2 <= waits[-1] <= PAUSE_MAX_S
            assert len({round(wait, 3) for wait in waits[-10:]}) > 5, "with jitter"
            made.put("10.0.0.2")
            made.api.failing = ""
            await asyncio.sleep(PAUSE_MAX_S)
            assert list(seen.last) == ["w-2"]

    run(main())


def test_a_server_that_ends_every_watch_at_once_is_not_asked_in_a_circle():
    async def main() -> None:
        made = Made()
        async with followed(made.resolver):
            for _ in range(2000):
                made.api.end_watches()
                await asyncio.sleep(0.05)
        assert len(made.api.listed) < 30
        assert made.observer.reasons

    run(main())


def test_an_api_server_that_is_not_there_at_the_start_names_no_set():
    async def main() -> None:
        made = Made()
        made.api.failing = "connection refused"
        async with followed(made.resolver) as seen:
            await asyncio.sleep(100)
            assert seen.sets == []
            made.put("10.0.0.1")
            made.api.failing = ""
            await asyncio.sleep(PAUSE_MAX_S)
            assert list(seen.last) == ["w-1"]

    run(main())


def test_a_port_that_the_pods_have_not_is_told_and_changes_nothing():
    async def main() -> None:
        made = Made(port="http")
        made.put("10.0.0.1")
        async with followed(made.resolver) as seen:
            await asyncio.sleep(1)
            assert seen.sets == []
            assert "has no port http" in made.observer.reasons[0]
            made.store.put(slice_object("a", [pod("w-1", "10.0.0.1")], ports=[("http", 80)]))
            await asyncio.sleep(1)
            assert seen.last == {"w-1": "10.0.0.1:80"}
            made.put("10.0.0.1", "10.0.0.2")
            await asyncio.sleep(1)
            assert seen.last == {"w-1": "10.0.0.1:80"}

    run(main())


def test_whoever_takes_over_from_another_resolver_keeps_those_who_are_all_unready():
    async def main() -> None:
        made = Made(known=(Endpoint("w-1", "10.0.0.1:50051"),))
        made.store.put(slice_object("a", [pod(f"w-{n}", f"10.0.0.{n}", ready=False) for n in (1, 2)]))
        async with followed(made.resolver) as seen:
            await asyncio.sleep(1)
            assert seen.sets == []
            made.put("10.0.0.2")
            await asyncio.sleep(0.1)
            assert seen.last == {"w-2": "10.0.0.2:50051"}

    run(main())


def test_when_all_are_unready_at_once_those_who_were_listed_stay():
    async def main() -> None:
        made = Made()
        made.put("10.0.0.1", "10.0.0.2")
        async with followed(made.resolver) as seen:
            await asyncio.sleep(0.1)
            made.store.put(slice_object("a", [pod(f"w-{n}", f"10.0.0.{n}", ready=False) for n in (1, 2, 3)]))
            await asyncio.sleep(0.1)
            assert sorted(seen.last) == ["w-1", "w-2"]

    run(main())

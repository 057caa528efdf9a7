"""Several sources at once, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from neurogate.discovery.following import BROKEN_PAUSE_S, Following
from neurogate.discovery.listed import ListedResolver
from neurogate.discovery.resolver import Resolver
from neurogate.discovery.sources import DnsSource, Source
from neurogate.endpoint import Endpoint
from neurogate.testing.resolver import ManualResolver
from neurogate.testing.sources import RecordingSourceObserver
from neurogate.virtual_time import run

A, B = DnsSource("dns:a:1", "a", 1), DnsSource("dns:b:1", "b", 1)


class Made:
    """Sources that are told by hand what they find."""

    def __init__(self, *sources: Source) -> None:
        self.resolvers: dict[str, ManualResolver] = {}
        self.made: list[str] = []
        self.known: list[tuple[Endpoint, ...]] = []
        self.settings: dict[str, int] = {}
        self.listed = ListedResolver(["listed:1"])
        self.observer = RecordingSourceObserver()
        self.following = Following(self.listed, self, sources, observer=self.observer)

    def settings_of(self, source: Source) -> object:
        return self.settings.get(source.text)

    def make(self, source: Source, known: tuple[Endpoint, ...]) -> Resolver:
        self.made.append(source.text)
        self.known.append(known)
        return self.resolvers.setdefault(source.text, ManualResolver())

    @property
    def addresses(self) -> set[str]:
        return {endpoint.address for endpoint in self.listed.endpoints}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(self.following.run())
            await asyncio.sleep(0.01)
            yield
            running.cancel()
        assert asyncio.all_tasks() == {asyncio.current_task()}


def test_what_each_finds_is_on_the_list_beside_that_of_the_others():
    async def main() -> None:
        made = Made(A, B)
        async with made.running():
            made.resolvers["dns:a:1"].publish(Endpoint("a-0", "a0:1"))
            made.resolvers["dns:b:1"].publish(Endpoint("b-0", "b0:1"), Endpoint("b-1", "b1:1"))
            await asyncio.sleep(0.01)
            assert made.addresses == {"listed:1", "a0:1", "b0:1", "b1:1"}
            made.resolvers["dns:b:1"].publish()
            await asyncio.sleep(0.01)
            assert made.addresses == {"listed:1", "a0:1"}

    run(main())


def test_a_source_that_is_no_longer_configured_takes_its_workers_with_it_and_those_of_others_stay():
    async def main() -> None:
        made = Made(A)
        async with made.running():
            made.resolvers["dns:a:1"].publish(Endpoint("a-0", "a0:1"))
            await asyncio.sleep(0.01)
            made.following.configure(made, [A, B])
            await asyncio.sleep(0.01)
            made.resolvers["dns:b:1"].publish(Endpoint("b-0", "b0:1"))
            await asyncio.sleep(0.01)
            assert made.addresses == {"listed:1", "a0:1", "b0:1"}
            made.following.configure(made, [B])
            await asyncio.sleep(0.01)
            assert made.addresses == {"listed:1", "b0:1"}
            assert made.observer.heard == [("forgotten", "dns:a:1", "")]

    run(main())


def test_a_source_whose_settings_changed_is_asked_anew_from_what_it_found_and_those_that_did_not_go_on():
    async def main() -> None:
        made = Made(A, B)
        async with made.running():
            made.resolvers["dns:a:1"].publish(Endpoint("a-0", "a0:1"))
            await asyncio.sleep(0.01)
            made.following.configure(made, [B, A])
            await asyncio.sleep(10)
            assert made.made == ["dns:a:1", "dns:b:1"]
            del made.resolvers["dns:a:1"]
            made.settings["dns:a:1"] = 1
            made.following.configure(made, [B, A])
            await asyncio.sleep(10)
            assert made.made == ["dns:a:1", "dns:b:1", "dns:a:1"]
            assert made.known == [(), (), (Endpoint("a-0", "a0:1"),)]
            assert made.addresses == {"listed:1", "a0:1"}
            made.resolvers["dns:a:1"].publish(Endpoint("a-1", "a1:1"))
            await asyncio.sleep(0.01)
            assert made.addresses == {"listed:1", "a1:1"}

    run(main())


def test_a_source_that_breaks_ends_nothing_keeps_its_workers_and_is_followed_anew():
    class Broken(ManualResolver):
        async def watch(self) -> AsyncIterator[tuple[Endpoint, ...]]:
            yield (Endpoint("a-0", "a0:1"),)
            raise UnicodeError("bad byte")

    async def main() -> None:
        made = Made(A, B)
        made.resolvers["dns:a:1"] = Broken()
        async with made.running():
            made.resolvers["dns:b:1"].publish(Endpoint("b-0", "b0:1"))
            await asyncio.sleep(BROKEN_PAUSE_S - 0.1)
            assert made.addresses == {"listed:1", "a0:1", "b0:1"}
            assert made.observer.heard == [("broke", "dns:a:1", "bad byte")]
            made.resolvers["dns:a:1"] = ManualResolver()
            made.resolvers["dns:a:1"].publish(Endpoint("a-1", "a1:1"))
            await asyncio.sleep(0.2)
            assert made.addresses == {"listed:1", "a1:1", "b0:1"}
            assert made.made == ["dns:a:1", "dns:b:1", "dns:a:1"]

    run(main())


def test_a_source_whose_resolver_cannot_be_made_is_tried_again():
    async def main() -> None:
        class Unmakable(Made):
            def make(self, source: Source, known: tuple[Endpoint, ...]) -> Resolver:
                raise OSError(source.text)

        made = Unmakable(A)
        async with made.running():
            await asyncio.sleep(BROKEN_PAUSE_S * 3)
            assert made.observer.heard == [("broke", "dns:a:1", "dns:a:1")] * 4

    run(main())


def test_whoever_waits_hears_when_all_have_answered_and_does_not_wait_for_the_late():
    async def main() -> None:
        loop = asyncio.get_running_loop()
        made = Made(A, B)
        async with made.running():
            made.resolvers["dns:a:1"].publish()
            began = loop.time()
            await made.following.heard(2)
            assert loop.time() - began == pytest.approx(2)
            loop.call_later(1, made.resolvers["dns:b:1"].publish)
            await made.following.heard(2)
            assert loop.time() - began < 3.1
        await Made().following.heard(2)
        assert loop.time() - began < 3.1, "nobody is waited for where there is nobody"
        late = Made(A)
        late.following.configure(late, [])
        await late.following.heard(2)
        assert loop.time() - began < 3.1

    run(main())

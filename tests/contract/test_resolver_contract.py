"""What every resolver keeps: complete sets, no id and no address twice, no set twice in a row, nothing left behind."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from typing import Protocol

import pytest

from discovery_support import followed
from neurogate.discovery.dns import DnsResolver, Record
from neurogate.discovery.kubernetes import KubernetesResolver
from neurogate.discovery.listed import ListedResolver
from neurogate.discovery.resolver import EMPTY_S, Resolver
from neurogate.discovery.sources import DnsSource, KubernetesSource
from neurogate.endpoint import Endpoint
from neurogate.testing.sources import FakeNames, FakeSlices, RecordingSourceObserver, SliceStore, pod, slice_object
from neurogate.virtual_time import run


class Subject(Protocol):
    """A resolver, and how its world is changed."""

    resolver: Resolver
    within_s: float
    """How soon a change is seen."""

    def put(self, *hosts: str) -> None: ...


class Listed:
    within_s = 0.1

    def __init__(self) -> None:
        self.resolver = ListedResolver([])

    def put(self, *hosts: str) -> None:
        self.resolver.configure([f"{host}:50051" for host in hosts])


class Offered(Listed):
    def put(self, *hosts: str) -> None:
        self.resolver.offer("x", [Endpoint(f"pod-{host}", f"{host}:50051") for host in hosts])


class Dns:
    within_s = EMPTY_S + 10
    text = "dns:workers:50051"

    def __init__(self) -> None:
        self.names = FakeNames()
        port = 0 if "_tcp" in self.text else 50051
        self.resolver = DnsResolver(
            DnsSource(self.text, "workers", port),
            self.names,
            refresh_s=5,
            observer=RecordingSourceObserver(),
            loop=asyncio.get_running_loop(),
            rng=random.Random(1),
        )

    def put(self, *hosts: str) -> None:
        self.names.put("workers", "A", hosts)


class Srv(Dns):
    text = "dns:_grpc._tcp.workers"

    def put(self, *hosts: str) -> None:
        self.names.put("workers", "SRV", [Record(host, 50051) for host in hosts])


class Kubernetes:
    within_s = EMPTY_S + 10

    def __init__(self) -> None:
        self.store = SliceStore()
        self.resolver = KubernetesResolver(
            KubernetesSource("kubernetes:workers", "", "workers", ""),
            FakeSlices(self.store),
            observer=RecordingSourceObserver(),
            loop=asyncio.get_running_loop(),
            rng=random.Random(1),
        )

    def put(self, *hosts: str) -> None:
        half = len(hosts) // 2
        self.store.put(slice_object("a", [pod(f"w-{host}", host) for host in hosts[:half]]))
        self.store.put(slice_object("b", [pod(f"w-{host}", host) for host in hosts[half:]]))


@pytest.fixture(params=[Listed, Offered, Dns, Srv, Kubernetes])
def make(request: pytest.FixtureRequest) -> Callable[[], Subject]:
    return request.param


def test_every_set_is_complete_and_a_worker_keeps_its_name_while_others_come_and_go(make: Callable[[], Subject]):
    async def main() -> None:
        subject = make()
        subject.put("a", "b")
        async with followed(subject.resolver) as seen:
            for hosts in (("a", "b"), ("b", "c", "d"), ("b",), (), ("b",)):
                subject.put(*hosts)
                await asyncio.sleep(subject.within_s)
                assert sorted(seen.last.values()) == [f"{host}:50051" for host in hosts]
        names = [{each.address: each.id for each in endpoints}.get("b:50051") for endpoints in seen.sets]
        assert len(set(names) - {None}) == 1 or make is Listed
        assert len({name for name in names[:3] if name}) == 1

    run(main())


def test_no_set_names_anybody_twice_and_none_comes_twice_in_a_row(make: Callable[[], Subject]):
    async def main() -> None:
        subject = make()
        rng = random.Random(7)
        async with followed(subject.resolver) as seen:
            for _ in range(60):
                subject.put(*rng.sample("abcdefgh", rng.randrange(9)))
                await asyncio.sleep(rng.choice([0, 0, 0.01, 1, 10, 100]))
        assert len(seen.sets) > 10
        for endpoints in seen.sets:
            assert len({each.id for each in endpoints}) == len({each.address for each in endpoints}) == len(endpoints)
        assert all(one != other for one, other in itertools.pairwise(seen.sets))

    run(main())


def test_a_follower_that_leaves_leaves_nothing_whenever_it_does(make: Callable[[], Subject]):
    async def main() -> None:
        for after_s in (0, 0.001, 1, 7, 100):
            subject = make()
            subject.put("a")
            async with followed(subject.resolver):
                await asyncio.sleep(after_s)

    run(main())

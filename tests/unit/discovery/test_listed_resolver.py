"""The list of workers that changes while it is followed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from neurogate.discovery.listed import ListedResolver
from neurogate.endpoint import Endpoint
from neurogate.errors import BadRequestError, ConfigError, WorkerExistsError, WorkerNotFoundError


def named(resolver: ListedResolver) -> dict[str, str]:
    return {endpoint.id: endpoint.address for endpoint in resolver.endpoints}


def test_names_the_workers_in_order():
    resolver = ListedResolver(["10.0.0.1:50051", "worker.example:7"])

    assert resolver.endpoints == (Endpoint("worker-0", "10.0.0.1:50051"), Endpoint("worker-1", "worker.example:7"))


def test_an_ipv6_address_is_taken_in_brackets():
    assert ListedResolver(["[::1]:50051"]).endpoints[0].address == "[::1]:50051"


@pytest.mark.parametrize(
    "address", ["localhost", ":50051", "localhost:", "localhost:0", "a:65536", "a:x", "a:-1", "a:²"]
)
def test_an_address_that_is_not_host_and_port_is_refused(address: str):
    with pytest.raises(ConfigError, match=r"WORKER_ADDRESSES: .* is not host:port"):
        ListedResolver(["localhost:50051", address])
    with pytest.raises(BadRequestError, match="is not host:port"):
        ListedResolver([]).add(address)


def test_the_same_address_twice_is_refused():
    with pytest.raises(ConfigError, match="WORKER_ADDRESSES: an address is listed twice"):
        ListedResolver(["a:1", "b:1", "a:1"])


def test_no_address_is_an_empty_set():
    assert ListedResolver([]).endpoints == ()


def test_a_worker_keeps_its_name_while_its_address_is_listed():
    resolver = ListedResolver(["a:1", "b:1"])
    resolver.configure(["b:1", "c:1"])
    assert named(resolver) == {"worker-1": "b:1", "worker-2": "c:1"}

    resolver.configure(["c:1", "d:1", "b:1"])
    assert named(resolver) == {"worker-2": "c:1", "worker-0": "d:1", "worker-1": "b:1"}


def test_a_wrong_list_changes_nothing():
    resolver = ListedResolver(["a:1"])

    with pytest.raises(ConfigError):
        resolver.configure(["b:1", "b:1"])
    assert named(resolver) == {"worker-0": "a:1"}


def test_what_an_admin_added_outlasts_a_new_list():
    resolver = ListedResolver(["a:1"])

    assert resolver.add("x:1") == Endpoint("worker-1", "x:1")
    resolver.configure(["b:1"])
    assert named(resolver) == {"worker-2": "b:1", "worker-1": "x:1"}
    resolver.configure(["b:1", "x:1"])
    assert named(resolver) == {"worker-2": "b:1", "worker-1": "x:1"}


def test_what_an_admin_removed_stays_out_while_the_list_names_it():
    resolver = ListedResolver(["a:1", "b:1"])

    assert resolver.remove("worker-0") == Endpoint("worker-0", "a:1")
    resolver.configure(["a:1", "b:1", "c:1"])
    assert named(resolver) == {"worker-1": "b:1", "worker-0": "c:1"}
    resolver.configure(["b:1"])
    resolver.configure(["a:1", "b:1"])
    assert sorted(named(resolver).values()) == ["a:1", "b:1"]


def test_a_removed_worker_comes_back_when_it_is_added():
    resolver = ListedResolver(["a:1"])
    resolver.remove("worker-0")
    resolver.add("a:1")
    resolver.add("b:1")
    resolver.remove("worker-0")

    assert list(named(resolver).values()) == ["b:1"]
    resolver.configure(["a:1"])
    assert list(named(resolver).values()) == ["b:1"]


def test_a_worker_is_added_once_and_removed_once():
    resolver = ListedResolver(["a:1"])

    with pytest.raises(WorkerExistsError, match="a:1 is worker-0 already"):
        resolver.add("a:1")
    resolver.remove("worker-0")
    with pytest.raises(WorkerNotFoundError, match="there is no worker 'worker-0'"):
        resolver.remove("worker-0")


def test_watchers_get_the_set_as_it_is_and_after_each_change_and_only_the_latest_when_they_were_busy():
    async def main() -> None:
        resolver = ListedResolver(["a:1"])
        one, other = resolver.watch(), resolver.watch()
        assert [len(await anext(each)) for each in (one, other)] == [1, 1]
        waiting = asyncio.get_running_loop().create_task(_next(one))
        await asyncio.sleep(0)
        resolver.configure(["a:1"])  # the same set is no news
        await asyncio.sleep(0)
        assert not waiting.done()
        resolver.add("b:1")
        assert len(await waiting) == 2
        resolver.add("c:1")
        resolver.add("d:1")
        assert [len(await anext(each)) for each in (one, other)] == [4, 4]

    asyncio.run(main())


async def _next(watch: AsyncIterator[tuple[Endpoint, ...]]) -> tuple[Endpoint, ...]:
    return await anext(watch)

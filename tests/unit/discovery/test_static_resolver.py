"""The fixed list of workers."""

from __future__ import annotations

import asyncio

import pytest

from neurogate.discovery.static import StaticResolver
from neurogate.endpoint import Endpoint
from neurogate.errors import ConfigError


async def sets(resolver: StaticResolver) -> list[tuple[Endpoint, ...]]:
    return [endpoints async for endpoints in resolver.watch()]


def test_names_the_workers_in_order_once_and_ends():
    resolver = StaticResolver(["10.0.0.1:50051", "worker.example:7"])

    assert asyncio.run(sets(resolver)) == [
        (Endpoint("worker-0", "10.0.0.1:50051"), Endpoint("worker-1", "worker.example:7"))
    ]


def test_an_ipv6_address_is_taken_in_brackets():
    assert asyncio.run(sets(StaticResolver(["[::1]:50051"])))[0][0].address == "[::1]:50051"


@pytest.mark.parametrize(
    "address", ["localhost", ":50051", "localhost:", "localhost:0", "a:65536", "a:x", "a:-1", "a:²"]
)
def test_an_address_that_is_not_host_and_port_is_refused(address: str):
    with pytest.raises(ConfigError, match=r"WORKER_ADDRESSES: .* is not host:port"):
        StaticResolver(["localhost:50051", address])


def test_the_same_address_twice_is_refused():
    with pytest.raises(ConfigError, match="WORKER_ADDRESSES: an address is listed twice"):
        StaticResolver(["a:1", "b:1", "a:1"])


def test_no_address_is_an_empty_set():
    assert asyncio.run(sets(StaticResolver([]))) == [()]

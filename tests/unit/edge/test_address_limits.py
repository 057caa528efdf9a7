"""Bounds on client addresses: who is counted as one, what is refused, and how little is remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from neurogate import virtual_time
from neurogate.edge.address_limits import AddressLimits, Visit
from neurogate.edge.settings import LimitSettings
from neurogate.errors import ConfigError, RateLimitedError


def on_limits(main: Callable[[AddressLimits], Coroutine[Any, Any, None]], **settings: Any) -> None:
    async def run() -> None:
        await main(AddressLimits(LimitSettings(**settings), loop=asyncio.get_running_loop()))

    virtual_time.run(run())


def ask(limits: AddressLimits, client: str = "192.0.2.1", *, fail: bool = False) -> None:
    visit = limits.visit(client)
    if fail:
        visit.failed()
    visit.end()


def test_nothing_is_bounded_by_default():
    async def main(limits: AddressLimits) -> None:
        assert not limits.enabled
        limits.reload(LimitSettings(address_concurrent=1))
        assert limits.enabled

    on_limits(main)


def test_requests_a_minute():
    async def main(limits: AddressLimits) -> None:
        for _ in range(3):
            ask(limits)
        with pytest.raises(RateLimitedError) as refused:
            ask(limits)
        assert refused.value.retry_after_s == 60
        assert "requests per minute: limit 3, used 3" in refused.value.message
        ask(limits, "192.0.2.2")
        await asyncio.sleep(60)
        ask(limits)

    on_limits(main, address_requests_per_minute=3)


def test_requests_in_flight():
    async def main(limits: AddressLimits) -> None:
        visit = limits.visit("192.0.2.1")
        with pytest.raises(RateLimitedError, match="concurrent requests: limit 1"):
            limits.visit("192.0.2.1")
        visit.end()
        visit.end()
        visit.failed()
        held = limits.visit("192.0.2.1")
        with pytest.raises(RateLimitedError):
            limits.visit("192.0.2.1")
        held.end()

    on_limits(main, address_concurrent=1)


def test_too_many_failed_authentications_shut_an_address_out_for_a_while():
    async def main(limits: AddressLimits) -> None:
        for _ in range(20):
            ask(limits)
        for _ in range(5):
            ask(limits, fail=True)
        with pytest.raises(RateLimitedError, match="failed authentications per minute: limit 5"):
            ask(limits)
        await asyncio.sleep(60)
        ask(limits)

    on_limits(main, address_failures_per_minute=5)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("", "", True),
    ],
)
def test_an_address_is_an_ipv4_address_or_a_64_of_ipv6(one: str, other: str, same: bool):
    async def main(limits: AddressLimits) -> None:
        ask(limits, one)
        if same:
            with pytest.raises(RateLimitedError):
                ask(limits, other)
        else:
            ask(limits, other)

    on_limits(main, address_requests_per_minute=1)


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.1.2.3", b"203.0.113.9", "203.0.113.9"),
        ("10.1.2.3", b"1.1.1.1, 203.0.113.9, 10.9.9.9", "203.0.113.9"),
        ("10.1.2.3", b"", "10.1.2.3"),
        ("10.1.2.3", b"10.0.0.7", "10.0.0.7"),
        ("10.1.2.3", b"1.1.1.1, unknown", "10.1.2.3"),
        ("10.1.2.3", b"1.1.1.1, \xff, 10.0.0.8", "10.0.0.8"),
        ("10.1.2.3", b"203.0.113.9:4711", "203.0.113.9"),
        ("10.1.2.3", b"[2001:db8::1]:4711", "2001:db8::1"),
        ("fd00::1", b"2001:db8::1", "2001:db8::1"),
        ("::ffff:10.1.2.3", b"203.0.113.9", "203.0.113.9"),
        ("203.0.113.1", b"1.1.1.1", "203.0.113.1"),
        ("", b"1.1.1.1", ""),
    ],
)
def test_forwarded_addresses_are_believed_of_trusted_proxies_only(peer: str, forwarded: bytes, client: str):
    async def main(limits: AddressLimits) -> None:
        assert limits.client(peer, forwarded) == client

    on_limits(main, trusted_proxies=("10.0.0.0/8", "fd00::1"))


def test_nobody_is_believed_by_default():
    async def main(limits: AddressLimits) -> None:
        assert limits.client("127.0.0.1", b"1.1.1.1") == "127.0.0.1"
        with pytest.raises(ConfigError, match=r"NEUROGATE_TRUSTED_PROXIES.*'nonsense'"):
            limits.reload(LimitSettings(trusted_proxies=("nonsense",), address_concurrent=9))
        assert not limits.enabled

    on_limits(main)


def test_an_endless_header_is_looked_at_from_its_end_only():
    async def main(limits: AddressLimits) -> None:
        assert limits.client("10.0.0.1", b"10.0.0.2," * 5000 + b"10.0.0.3") == "10.0.0.2"

    on_limits(main, trusted_proxies=("10.0.0.0/8",))


def test_a_flood_of_addresses_is_forgotten_but_not_who_is_in_flight():
    async def main(limits: AddressLimits) -> None:
        held = [limits.visit(f"192.0.2.{number}") for number in range(10)]
        for number in range(50_000):
            ask(limits, f"2001:db8:{number:x}::1")
        assert repr(limits) == "<AddressLimits 100 addresses>"
        for number in range(10):
            with pytest.raises(RateLimitedError):
                limits.visit(f"192.0.2.{number}")
        more: list[Visit] = [limits.visit(f"198.51.100.{number}") for number in range(100)]
        assert repr(limits) == "<AddressLimits 110 addresses>"
        for visit in held + more:
            visit.end()
        ask(limits, "203.0.113.1")
        assert repr(limits) == "<AddressLimits 100 addresses>"

    on_limits(main, address_concurrent=1, max_addresses=100)

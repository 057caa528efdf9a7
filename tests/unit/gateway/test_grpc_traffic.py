"""What a proxied call carries is charged to its key, while it goes on and at its end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from neurogate import virtual_time
from neurogate.edge.caller import Caller
from neurogate.edge.limits import Header
from neurogate.errors import BusyError, RateLimitedError
from neurogate.gateway.grpc_served import ServedRpc
from neurogate.gateway.grpc_traffic import ProxiedTraffic, tokens_in
from neurogate.gateway.intake import BodyBudget
from neurogate.rpc.public_backend import IncomingRpc


@dataclass
class Held:
    """A reservation that remembers how it was settled."""

    settled: list[int | None] = field(default_factory=list)
    headers: tuple[Header, ...] = ()

    def settle(self, tokens: int | None) -> None:
        self.settled.append(tokens)


@dataclass
class Reserving:
    """The edge, as far as a call that goes on asks it."""

    held: list[Held] = field(default_factory=list)
    refuses: bool = False
    slow: bool = False

    async def reserve(self, caller: Caller, **asked: object) -> Held:
        assert asked == {"prompt_bytes": 0, "max_tokens": None, "n": 1, "generates": True}
        if self.slow:
            await asyncio.sleep(1)
        if self.refuses:
            raise RateLimitedError("enough")
        self.held.append(Held())
        return self.held[-1]


@dataclass
class Going:
    """A proxied call under way."""

    edge: Reserving
    served: ServedRpc
    traffic: ProxiedTraffic
    bodies: BodyBudget
    first: Held | None

    async def carry(self, size: int, *, down: bool = False) -> None:
        await (self.traffic.down if down else self.traffic.up)(size)
        self.traffic.passed(size)


def going(*, bounded: bool = True, limit: int = 1000) -> Going:
    loop = asyncio.get_running_loop()
    bodies = BodyBudget(limit)
    rpc = IncomingRpc("/test.Echo/Both", (), "ipv4:10.0.0.7:5", "r-1", None)
    served = ServedRpc(rpc, bodies=bodies, began_at=loop.time(), timeout_s=300)
    first = Held() if bounded else None
    served.reservation = first
    edge = Reserving()
    return Going(edge, served, ProxiedTraffic(served, edge, bodies, loop), bodies, first)  # type: ignore[arg-type]


def test_a_call_that_goes_on_settles_each_minute_and_reserves_anew():
    async def main() -> None:
        made = going()
        await made.carry(400)
        await asyncio.sleep(59)
        await made.carry(200, down=True)
        assert made.edge.held == []
        await asyncio.sleep(1)
        await made.carry(800)
        assert made.first is not None
        assert made.first.settled == [150]
        assert made.served.reservation is made.edge.held[0]
        assert (made.served.carried, made.served.bytes_sent) == (800, 200)
        await asyncio.sleep(59)
        await made.carry(0)
        assert len(made.edge.held) == 1
        await asyncio.sleep(1)
        await made.carry(0)
        assert made.edge.held[0].settled == [200]

    virtual_time.run(main())


def test_a_key_that_has_used_what_it_may_carries_no_more():
    async def main() -> None:
        made = going()
        await made.carry(400)
        await asyncio.sleep(60)
        made.edge.refuses = True
        with pytest.raises(RateLimitedError):
            await made.carry(400)
        assert made.first is not None
        assert made.first.settled == [100]
        assert (made.served.carried, made.served.reservation, made.bodies.held) == (0, None, 0)

    virtual_time.run(main())


def test_both_directions_renew_together_once():
    async def main() -> None:
        made = going()
        await asyncio.sleep(60)
        made.edge.slow = True
        await asyncio.gather(made.carry(4), made.carry(8, down=True))
        assert len(made.edge.held) == 1
        assert made.served.carried == 12

    virtual_time.run(main())


def test_without_limits_nothing_is_reserved():
    async def main() -> None:
        made = going(bounded=False)
        await asyncio.sleep(1000)
        await made.carry(5)
        assert (made.served.carried, made.edge.held) == (5, [])

    virtual_time.run(main())


def test_a_message_that_finds_no_memory_is_not_counted():
    async def main() -> None:
        made = going(limit=10)
        await made.traffic.up(8)
        with pytest.raises(BusyError):
            await made.traffic.down(3)
        assert (made.served.carried, made.served.bytes_sent, made.bodies.held) == (8, 0, 8)
        made.traffic.passed(8)
        assert made.bodies.held == 0

    virtual_time.run(main())


def test_four_bytes_are_a_token():
    assert [tokens_in(size) for size in (0, 3, 4, 1 << 20)] == [0, 0, 1, 1 << 18]

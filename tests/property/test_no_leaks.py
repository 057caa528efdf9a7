"""Whatever happens, in whatever order: no lease, request, waiter, timer or probe is left, and no client is misled."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataplane_support import BODY, Rig, endpoint, rig, turns
from neurogate import virtual_time
from neurogate.balancing import picker
from neurogate.channel import Call, End, EndCode
from neurogate.dataplane.dispatch import ASKED_MAX, MOVES_MAX, DispatchLimits
from neurogate.dataplane.exchange import Exchange
from neurogate.dataplane.lease import Lease
from neurogate.dataplane.member import Member
from neurogate.operations import CANARY_PATH
from neurogate.resilience.breaker import BreakerSettings, Outcome
from neurogate.resilience.retry import RetryBudget
from neurogate.testing.receivers import RecordingReceiver
from neurogate.testing.workers import HANGS, FakeCall, FakeWorkerChannel, answers, ends

MODELS = ("llama", "qwen")
CHARGED = {EndCode.BROKEN, EndCode.INTERNAL, EndCode.BUSY, EndCode.ANSWERED}
"""How attempts end whose retry costs the fleet work; but a 501, after which another worker is asked, does not."""
GOOD = End(http_status=200)
ENDS = [GOOD, GOOD, *(End(code) for code in EndCode if code is not EndCode.ANSWERED)]
ENDS += [End(http_status=status, body=b"refused") for status in (204, 400, 404, 429, 500, 501, 503)]
ENDS += [End(http_status=status, retry_after_s=1.0) for status in (429, 503)]
ENDS += [End(EndCode.BUSY, retry_after_s=1.0), End(http_status=429, retry_after_s=50.0)]
CANARIES = [answers(), answers(first_s=1.0), HANGS, ends(EndCode.UNAVAILABLE), ends(EndCode.UNSUPPORTED)]
RESERVE = 2.0


class Client:
    """One who made a request, and may leave: an impatient one does so at the first chunk."""

    def __init__(self, *, impatient: bool) -> None:
        self.receiver = RecordingReceiver(self._hear)
        self.exchange: Exchange
        self.left = False
        self.heard_when_left = 0
        self._impatient = impatient

    def leave(self) -> None:
        if not self.left and not self.exchange.finished:
            self.left = True
            self.heard_when_left = len(self.receiver.heard)
            self.exchange.cancel()

    def _hear(self, word: str) -> None:
        if self._impatient and word == "chunk":
            self.leave()


@dataclass(frozen=True)
class Setting:
    workers: int
    retries: int
    failfast_s: float
    max_waiting: int
    max_answer_bytes: int
    fail_max: int
    reset_s: float
    ratio: float
    balancer: str
    seed: int
    canary_timeout_s: float | None


@dataclass
class World:
    """Carries one schedule out, and checks at every step what must hold at every step."""

    rig: Rig
    setting: Setting
    clients: list[Client] = field(default_factory=list)
    sent: dict[int, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    """Chunks each call delivered, by the call's identity."""
    ended: dict[int, End] = field(default_factory=dict)
    calls: list[FakeCall] = field(default_factory=list)
    """Every call any worker took."""
    channels: dict[int, tuple[Member, FakeWorkerChannel]] = field(default_factory=dict)
    leases: list[tuple[ExitStack, Lease | None]] = field(default_factory=list)
    """Of requests that are no exchanges, each with what counts it; None for those that found nobody."""
    charged: int = 0
    """Retries that must have been taken from the budget."""
    named: dict[int, int] = field(default_factory=dict)
    """Port by worker number, of those the resolver names."""

    # What can happen

    async def dispatch(self, a: int, b: int) -> None:
        client = Client(impatient=a % 11 == 0)
        client.exchange, _ = self.rig.send(
            stream=b % 2 == 0,
            model=("", "", "", "", "", *MODELS, "unheard-of")[a % 8],
            timeout_s=(0.0, 0.5, 2.5, 40.0, 40.0, 40.0, 40.0, 40.0)[b // 2 % 8],
            receiver=client.receiver,
            request_id=str(len(self.clients)),
        )
        self.clients.append(client)

    async def proxy(self, a: int, b: int) -> None:
        """A request that is no exchange begins."""
        counted = ExitStack()
        counted.enter_context(self.rig.dispatcher.beside())
        call = Call("/test.Echo/Both", BODY, stream=True, deadline=1e9, model=("", *MODELS)[a % 3])
        lease = self.rig.dispatcher.acquire(call, ())
        if lease is not None and b % 2:
            lease.answered(asyncio.get_running_loop().time())
        self.leases.append((counted, lease))

    async def settle(self, a: int, b: int) -> None:
        """Such a request ends."""
        if self.leases:
            counted, lease = self.leases.pop(a % len(self.leases))
            if lease is not None:
                lease.release([*Outcome][b % len(Outcome)])
            counted.close()

    async def chunk(self, a: int, b: int) -> None:
        if (call := self.open_call(a)) is not None:
            data = b"%d." % b * (1 + b % 4)
            self.sent[id(call)].append(data)
            call.chunk(data)

    async def end(self, a: int, b: int) -> None:
        if (call := self.open_call(a)) is not None:
            self.ended[id(call)] = end = ENDS[b % len(ENDS)]
            retries = len(self.rig.observer.retries)
            call.end(end)
            moved = len(self.rig.observer.retries) - retries
            self.charged += moved if end.code in CHARGED and end.http_status != 501 else 0

    async def leave(self, a: int, _: int) -> None:
        if self.clients:
            self.clients[a % len(self.clients)].leave()

    async def come_up(self, a: int, _: int) -> None:
        channel = self.channel(a)
        if channel is not None and channel.served and not channel.up:
            channel.become_ready()
            channel.come_up()

    async def go_down(self, a: int, b: int) -> None:
        channel = self.channel(a)
        if channel is None:
            return
        if not channel.up:
            channel.refuse_connection()
        elif b % 3:
            channel.die()
        else:
            channel.drain()
            channel.leave()

    async def report(self, a: int, b: int) -> None:
        channel = self.channel(a)
        if channel is not None:
            models = ((), MODELS[:1], MODELS[1:], MODELS)[b // 3 % 4]
            told: tuple[Callable[[], None], ...] = (
                channel.become_unready,
                channel.drain,
                lambda: channel.become_ready(models=models),
            )
            told[b % 3]()

    async def canary(self, a: int, b: int) -> None:
        """From now on, a worker answers canaries so."""
        if (channel := self.channel(a)) is not None:
            channel.canary = CANARIES[b % len(CANARIES)]

    async def rename(self, a: int, b: int) -> None:
        """The resolver drops a worker, moves it, or names it again."""
        number = a % self.setting.workers
        if number in self.named and b % 2:
            del self.named[number]
        else:
            self.named[number] = 50000 + b % 3
        self.rig.resolver.publish(*(endpoint(number, port) for number, port in sorted(self.named.items())))

    async def turn(self, a: int, _: int) -> None:
        await turns(1 + a % 3)

    async def wait(self, a: int, _: int) -> None:
        await asyncio.sleep((0.001, 0.3, 0.3, 0.7, 1.0, 2.5, 31.0)[a % 7])

    # How it is carried out

    def channel(self, a: int) -> FakeWorkerChannel | None:
        channels = list(self.rig.fleet.channels.values())
        return channels[a % len(channels)] if channels else None

    def open_call(self, a: int) -> FakeCall | None:
        """Any of the open calls, most often one of the latest two: it takes several steps on one call to get far."""
        calls = [call for call in self.calls if call.open]
        return calls[-1 - a % (len(calls) if a % 3 == 0 else min(len(calls), 2))] if calls else None

    def collect(self) -> None:
        """Find the calls and the members that are new."""
        for member in self.rig.pool.snapshot.members:
            channel = member.channel
            assert isinstance(channel, FakeWorkerChannel)
            self.channels[id(member)] = member, channel
            self.rig.seen[id(member)] = member
        known = {id(call) for call in self.calls}
        for _, channel in self.channels.values():
            self.calls += [call for call in channel.calls if id(call) not in known]

    def check(self) -> None:
        self.collect()
        for member, channel in self.channels.values():
            others = sum(lease is not None and lease.member is member for _, lease in self.leases)
            running = [call for call in channel.running.values() if call.call.path != CANARY_PATH]
            assert member.in_flight == len(running) + others, member
        exchanges = sum(not client.exchange.finished for client in self.clients)
        assert self.rig.dispatcher.in_flight == exchanges + len(self.leases)
        assert self.rig.pool.waiting <= self.setting.max_waiting
        for client in self.clients:
            words = client.receiver.last_words
            assert len(words) <= 1
            assert client.receiver.heard[-1:] == words or not words
            if client.left:
                assert len(client.receiver.heard) == client.heard_when_left
            exchange = client.exchange
            assert exchange.attempts - exchange.unable - exchange.moved <= self.setting.retries + 1
            assert exchange.moved <= (MOVES_MAX if self.setting.retries else 0)
            assert exchange.attempts <= ASKED_MAX + self.setting.retries + MOVES_MAX

    def check_end(self) -> None:
        for client in self.clients:
            assert client.exchange.finished
            assert client.left or len(client.receiver.last_words) == 1
            self.check_answer(client)
        for member, _ in self.channels.values():
            canaries = self.rig.prober is not None and self.rig.prober.out
            assert member.breaker.state != "half-open" or member.breaker.admits or canaries, f"probe stuck: {member}"
            assert not member.aside
        snapshot = self.rig.pool.snapshot
        candidates = [member for member in snapshot.members if member.usable and member.breaker.may_admit]
        assert snapshot.admitting("") == tuple(candidates)  # nobody is left out by a snapshot that nobody renews
        ratio = self.setting.ratio
        assert self.charged <= (RESERVE + ratio * len(self.clients) + 1e-6 if ratio else 0)

    def check_answer(self, client: Client) -> None:
        """What a client heard is what one worker said, and it is complete only if that worker said so."""
        receiver, call = client.receiver, client.exchange.call
        attempts = [taken for taken in self.calls if taken.call is call]
        assert len(attempts) == client.exchange.attempts
        if receiver.chunks:
            (source,) = [taken for taken in attempts if self.sent[id(taken)]][-1:]
            assert call.stream
            assert receiver.chunks == self.sent[id(source)]
        if receiver.last_words == ["complete"]:
            end = self.ended[id(attempts[-1])]
            assert end.code is EndCode.ANSWERED
            assert end.http_status < 300
            assert receiver.chunks == self.sent[id(attempts[-1])]
        if receiver.answer is not None:
            end, body = receiver.answer
            assert receiver.chunks == []
            assert end is self.ended[id(attempts[-1])]
            assert end.code is EndCode.ANSWERED
            assert body == (end.body or b"".join(self.sent[id(attempts[-1])]))
            assert not call.stream or end.http_status >= 300


numbers = st.integers(0, 999)
often = ["dispatch"] * 6 + ["chunk"] * 4 + ["end"] * 7 + ["come_up"] * 3 + ["wait"] * 3
moves = st.sampled_from([*often, "canary", "leave", "go_down", "report", "rename", "turn", "proxy", "proxy", "settle"])
schedules = st.lists(st.tuples(moves, numbers, numbers), min_size=20, max_size=100)
some_settings = st.builds(
    Setting,
    workers=st.integers(1, 4),
    retries=st.integers(0, 3),
    failfast_s=st.sampled_from([0.0, 1.0, 2.0]),
    max_waiting=st.integers(0, 4),
    max_answer_bytes=st.sampled_from([10, 1000]),
    fail_max=st.integers(1, 3),
    reset_s=st.sampled_from([0.3, 0.7, 30.0]),
    ratio=st.sampled_from([0.0, 0.2, 1.0]),
    balancer=st.sampled_from(["round_robin", "least_requests"]),
    seed=st.integers(0, 99),
    canary_timeout_s=st.sampled_from([None, 0.5, 5.0]),
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(setting=some_settings, schedule=schedules)
def test_no_schedule_leaks_or_misleads(setting: Setting, schedule: list[tuple[str, int, int]]):
    async def main() -> None:
        async with rig(
            [endpoint(number) for number in range(setting.workers)],
            picker=picker.build(setting.balancer, rng=random.Random(setting.seed)),
            limits=DispatchLimits(setting.retries, setting.failfast_s, setting.max_waiting, setting.max_answer_bytes),
            budget=RetryBudget(ratio=setting.ratio, reserve=RESERVE),
            breaker=BreakerSettings(setting.fail_max, setting.reset_s),
            canary_timeout_s=setting.canary_timeout_s,
            models={f"worker-{number}": MODELS[: number % 3] for number in range(setting.workers)},
        ) as made:
            world = World(made, setting, named=dict.fromkeys(range(setting.workers), 50051))
            world.collect()
            for what, a, b in schedule:
                await getattr(world, what)(a, b)
                world.check()
            while world.leases:
                await world.settle(0, 1)
            await asyncio.sleep(100)  # the last deadline is over
            world.check()
            world.check_end()

    virtual_time.run(main())

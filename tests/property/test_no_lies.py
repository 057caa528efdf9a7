"""Streams that break anywhere, any number of times: what a client has is the true answer, or the beginning of it.

Workers here are right: they say what they are asked to say, or to continue, as the chat API says it. What is tested is
everything between them and the client: what is read back, whom the exchange asks, and what it calls complete.
"""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataplane_support import RESUMES, Rig, endpoint, rig, turns
from neurogate import virtual_time
from neurogate.balancing import picker
from neurogate.channel import Call, End, EndCode
from neurogate.dataplane.dispatch import DispatchLimits
from neurogate.dataplane.exchange import Exchange
from neurogate.errors import DeadlineError
from neurogate.gateway.resuming import Transcripts
from neurogate.inference import Usage
from neurogate.resilience.breaker import BreakerSettings
from neurogate.testing.receivers import RecordingReceiver
from neurogate.testing.workers import FakeCall, FakeWorkerChannel

MODELS = ("llama", "qwen")
TOKENS_MAX = 6
DONE = b"data: [DONE]\n\n"
FAILURES = [End(code) for code in EndCode if code not in {EndCode.ANSWERED, EndCode.DEADLINE}]
FAILURES += [End(http_status=status) for status in (429, 500, 501, 503)]
FAILURES += [End(EndCode.BUSY, retry_after_s=1.5), End(http_status=400, body=b"refused")]


def truth(model: str, number: int, count: int) -> list[str]:
    """The answer of a model to a request, token by token: no two are alike, and each takes more than ASCII."""
    return [f"«{model} {number}.{index}» " for index in range(count)]


def event(number: int, model: str, choice: dict[str, Any] | None = None, **more: Any) -> bytes:
    choices = [{"index": 0, **choice}] if choice is not None else []
    said = {"id": f"c-{number}", "created": 5, "model": model, "choices": choices, **more}
    return b"data: " + json.dumps(said).encode() + b"\n\n"


class Generation:
    """What a worker has to say to one call, chunk by chunk."""

    def __init__(self, call: Call, default_model: str) -> None:
        request = json.loads(call.body)
        number, count = request["number"], request["count"]
        self.model = call.model or default_model
        tokens = truth(self.model, number, count)
        self.usage = Usage(7, count)
        said = call.resume
        self.stream = call.stream
        if said is None:
            self.rest = [event(number, self.model, {"delta": {"role": "assistant", "content": ""}})]
            text = ""
        else:
            self.rest, text = [], said.text
            assert said.model in {"", self.model}, "another model was to be continued"
            assert said.completion_id in {"", f"c-{number}"}
        whole = "".join(tokens)
        assert whole.startswith(text), "what is to be continued is no answer of this model"
        at = next(index for index in range(count + 1) if "".join(tokens[:index]) == text)
        assert said is None or said.tokens == at
        self.rest += [event(number, self.model, {"delta": {"content": token}}) for token in tokens[at:]]
        if said is None or not said.finish_reason:
            self.rest.append(event(number, self.model, {"delta": {}, "finish_reason": "stop"}))
        else:
            assert text == whole
        if said is None or not said.usage_sent:
            self.rest.append(event(number, self.model, usage={"prompt_tokens": 7, "completion_tokens": count}))
        self.rest.append(DONE)

    def next(self, events: int) -> bytes:
        said, self.rest = self.rest[:events], self.rest[events:]
        return b"".join(said)


@dataclass
class Client:
    """One who asked, and what may become of that."""

    number: int
    count: int
    resumable: bool
    eligible: bool
    model: str
    receiver: RecordingReceiver
    exchange: Exchange
    left: bool = False


@dataclass
class World:
    """Carries one schedule out."""

    rig: Rig
    workers: int
    attempts: int
    clients: list[Client] = field(default_factory=list)
    calls: list[tuple[FakeCall, Generation]] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)

    # What can happen

    async def dispatch(self, a: int, b: int) -> None:
        number, count = len(self.clients), a % TOKENS_MAX
        eligible, resumable, stream = b % 7 != 0, b % 5 != 0, a % 9 != 0
        model = ("", "", *MODELS)[b % 4]
        request: dict[str, Any] = {"number": number, "count": count, "messages": [], "stream": stream}
        if not eligible:
            request["tools"] = [{"type": "function"}]
        receiver = RecordingReceiver()
        exchange, _ = self.rig.send(
            stream=stream,
            model=model,
            timeout_s=(0.5, 5.0, 60.0, 60.0, 60.0)[a % 5],
            receiver=receiver,
            body=json.dumps(request).encode(),
            resumable=resumable and stream,
        )
        self.clients.append(Client(number, count, resumable and stream, eligible, model, receiver, exchange))

    async def say(self, a: int, b: int) -> None:
        """A worker says something more, or that it has said everything."""
        if (found := self.open_call(a)) is None:
            return
        call, generation = found
        if not generation.rest:
            call.end(End(http_status=200, usage=generation.usage, finish_reason="stop"))
        else:
            call.chunk(generation.next(1 + b % 3))

    async def finish(self, a: int, _: int) -> None:
        """A worker says all that is left."""
        if (found := self.open_call(a)) is not None:
            call, generation = found
            while generation.rest:
                call.chunk(generation.next(1))
            call.end(End(http_status=200, usage=generation.usage, finish_reason="stop"))

    async def fail(self, a: int, b: int) -> None:
        if (found := self.open_call(a)) is not None:
            found[0].end(FAILURES[b % len(FAILURES)])

    async def go_down(self, a: int, b: int) -> None:
        channel = self.channel(a)
        if channel.up and b % 3:
            channel.die()
        elif channel.up:
            channel.drain()
            channel.leave()

    async def come_up(self, a: int, b: int) -> None:
        channel = self.channel(a)
        if not channel.up and channel.served:
            channel.become_ready()
            if b % 6 == 0:
                self.change(channel, b)
            channel.come_up()

    async def report(self, a: int, b: int) -> None:
        self.change(self.channel(a), b)

    async def leave(self, a: int, _: int) -> None:
        if self.clients and not (client := self.clients[a % len(self.clients)]).exchange.finished:
            client.left = True
            client.exchange.cancel()

    async def turn(self, a: int, _: int) -> None:
        await turns(1 + a % 3)

    async def wait(self, a: int, _: int) -> None:
        await asyncio.sleep((0.001, 0.3, 1.0, 2.0, 4.0, 31.0)[a % 6])

    # How it is carried out

    def channel(self, a: int) -> FakeWorkerChannel:
        return self.rig.worker(a % self.workers)

    @staticmethod
    def change(channel: FakeWorkerChannel, b: int) -> None:
        """What a worker continues, or which models it has, is another than before."""
        if b % 2:
            channel.tell(replace(channel.present, resumes=RESUMES if b % 4 == 1 else frozenset()))
        else:
            channel.become_ready(models=(MODELS, MODELS[::-1], MODELS[:1])[b // 2 % 3])

    def open_call(self, a: int) -> tuple[FakeCall, Generation] | None:
        found = [entry for entry in self.calls if entry[0].open]
        return found[-1 - a % (len(found) if a % 3 == 0 else min(len(found), 2))] if found else None

    def collect(self) -> None:
        """Find the calls that are new, and see that they were brought to the right worker."""
        for channel in self.rig.fleet.channels.values():
            default = channel.present.models[0].name
            for call in channel.calls:
                if id(call) in self.seen:
                    continue
                self.seen.add(id(call))
                assert call.call.resume is None or call.call.path in channel.present.resumes
                self.calls.append((call, Generation(call.call, default)))

    def check(self) -> None:
        self.collect()
        for member in self.rig.pool.snapshot.members:
            channel = self.rig.fleet[member.id]
            assert member.in_flight == len(channel.running), member
        assert self.rig.dispatcher.in_flight == sum(not client.exchange.finished for client in self.clients)
        for client in self.clients:
            self.check_stream(client)

    def check_stream(self, client: Client) -> None:
        """At every moment what a client has is the beginning of one true answer."""
        receiver, exchange = client.receiver, client.exchange
        assert len(receiver.last_words) <= 1
        assert receiver.heard[-1:] == receiver.last_words or not receiver.last_words
        assert exchange.resumes <= 10 * self.attempts  # ten times as often as engines may break it
        assert exchange.resumes == receiver.resumes
        assert exchange.resumes == 0 or (client.resumable and client.eligible)
        if not exchange.call.stream:
            assert receiver.chunks == []
            return
        text, ends, usages, done, models = parsed(receiver.body)
        assert len(models) <= 1
        assert ends <= 1
        assert usages <= ends
        assert done <= usages
        model = next(iter(models), client.model or MODELS[0])
        assert client.model in {"", model}
        whole = "".join(truth(model, client.number, client.count))
        assert whole.startswith(text)
        assert not ends or text == whole
        if receiver.last_words == ["complete"]:
            assert (text, ends, usages, done) == (whole, 1, 1, 1)
        if receiver.last_words == ["error"] and client.resumable and client.eligible:
            assert not done or type(receiver.error) is DeadlineError

    def check_end(self) -> None:
        self.check()
        for client in self.clients:
            assert client.exchange.finished
            assert client.left or len(client.receiver.last_words) == 1


def parsed(stream: bytes) -> tuple[str, int, int, int, set[str]]:
    """What a client reads: text, finish reasons, usages, end marks and models, whose events are all of one answer."""
    text, ends, usages, done = "", 0, 0, 0
    models: set[str] = set()
    for data in stream.split(b"\n\n")[:-1]:
        assert not done, "something follows the end mark"
        if data + b"\n\n" == DONE:
            done += 1
            continue
        chunk = json.loads(data.removeprefix(b"data: "))
        models.add(chunk["model"])
        usages += "usage" in chunk
        for choice in chunk["choices"]:
            text += choice["delta"].get("content", "")
            ends += choice.get("finish_reason") is not None
    return text, ends, usages, done, models


numbers = st.integers(0, 999)
often = ["dispatch"] * 5 + ["say"] * 12 + ["finish"] * 2 + ["go_down"] * 5 + ["come_up"] * 6 + ["fail"] * 3
moves = st.sampled_from([*often, "wait", "wait", "turn", "report", "leave"])
schedules = st.lists(st.tuples(moves, numbers, numbers), min_size=20, max_size=120)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    schedule=schedules,
    workers=st.integers(1, 4),
    attempts=st.integers(0, 4),
    wait_s=st.sampled_from([0.0, 2.0, 15.0]),
    buffer_bytes=st.sampled_from([1, 200, 1 << 18]),
    max_waiting=st.sampled_from([0, 2, 1024]),
    stall_s=st.sampled_from([0.0, 3.0]),
    balancer=st.sampled_from(["round_robin", "least_requests"]),
)
def test_no_schedule_of_deaths_makes_a_client_believe_what_is_not_so(
    schedule: list[tuple[str, int, int]],
    workers: int,
    attempts: int,
    wait_s: float,
    buffer_bytes: int,
    max_waiting: int,
    stall_s: float,
    balancer: str,
) -> None:
    async def main() -> None:
        ids = [f"worker-{number}" for number in range(workers)]
        async with rig(
            [endpoint(number) for number in range(workers)],
            picker=picker.build(balancer, rng=random.Random(1)),
            limits=DispatchLimits(
                max_waiting=max_waiting,
                resume_attempts=attempts,
                resume_wait_s=wait_s,
                resume_buffer_bytes=buffer_bytes,
                stall_s=stall_s,
            ),
            breaker=BreakerSettings(fail_max=3, reset_timeout_s=5.0),
            models=dict.fromkeys(ids, MODELS),
            resumes=dict.fromkeys(ids, RESUMES),
            recovery=Transcripts(),
        ) as made:
            world = World(made, workers, attempts)
            for what, a, b in schedule:
                await getattr(world, what)(a, b)
                world.check()
            await asyncio.sleep(100)  # the last deadline is over
            world.check_end()

    virtual_time.run(main())

"""What a fleet still delivers when it is asked for more than it can do: goodput, and how soon the others are told.

A gateway and simulated workers run as processes on this machine. First a closed loop measures the capacity; then an
open loop (a Poisson process, which asks for nobody's leave) offers multiples of it. Good is an answer that is whole and
came within the client's deadline; a client that has none by then leaves.

    python bench/overload.py [--seconds 15] [--deadline 3] [--factors 0.5 1 1.5 2 3] [--batch 0.2] [--silent]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles

from fleet import KEY, fleet

END_MARK = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Seen:
    """What one client saw. Times are in seconds since it asked."""

    batch: bool
    outcome: str
    """`good`, `late` for a whole answer behind its time, `left` without one, or an error's code."""
    first_s: float
    """To the first token."""
    ended_s: float
    ended_at: float
    """Loop time."""


class Client:
    """Asks one gateway for streamed answers of a set length."""

    def __init__(self, port: int, tokens: int, *, deadline_s: float, told: bool) -> None:
        """`told`: the gateway hears of the deadline, in a header."""
        self._port = port
        self._deadline_s = deadline_s
        message = [{"role": "user", "content": "Why is the sky blue?"}]
        fields = {"model": "sim", "max_tokens": tokens, "ignore_eos": True, "stream": True, "messages": message}
        self._body = json.dumps(fields).encode()
        self._told = b"x-neurogate-timeout: %g\r\n" % deadline_s if told else b""

    async def ask(self, *, batch: bool = False, patience_s: float | None = None) -> Seen:
        """One request on a connection of its own, given up after the deadline (or `patience_s`)."""
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        first_s, head = 0.0, b""
        received = bytearray()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            async with asyncio.timeout(self._deadline_s if patience_s is None else patience_s):
                writer.write(
                    b"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n"
                    b"authorization: Bearer %s\r\ncontent-length: %d\r\n%s%s\r\n%s"
                    % (
                        KEY.encode(),
                        len(self._body),
                        b"x-neurogate-priority: batch\r\n" if batch else b"",
                        self._told,
                        self._body,
                    )
                )
                while piece := await reader.read(65536):
                    received += piece
                    if not first_s and b'"delta"' in piece:
                        first_s = loop.time() - asked_at
        except TimeoutError:
            outcome = "left"
        else:
            head, _, body = bytes(received).partition(b"\r\n\r\n")
            outcome = _outcome(head, body)
            if outcome == "good" and loop.time() - asked_at > self._deadline_s:
                outcome = "late"
        finally:
            writer.transport.abort()
        return Seen(batch, outcome, first_s, loop.time() - asked_at, loop.time())


def _outcome(head: bytes, body: bytes) -> str:
    if b"\r\n0\r\n" in body and END_MARK in body:
        return "good"
    found = body.partition(b'"code":"')[2].partition(b'"')[0].decode()
    status = head.split(b" ", 2)[1].decode() if head else "cut"
    return f"{status} {found}".strip()


async def capacity(client: Client, *, clients: int, seconds: float) -> float:
    """Answers a second that the fleet gives to that many clients who ask again as soon as they are answered."""
    loop = asyncio.get_running_loop()
    begin_at = loop.time() + 2
    end_at = begin_at + seconds
    answered = 0

    async def one() -> None:
        nonlocal answered
        while loop.time() < end_at:
            seen = await client.ask(patience_s=60)
            answered += seen.outcome in {"good", "late"} and begin_at <= seen.ended_at < end_at

    await asyncio.gather(*(one() for _ in range(clients)))
    return answered / seconds


async def offered(
    client: Client, rate: float, *, batch: float, seconds: float, warm_s: float, rng: random.Random
) -> list[Seen]:
    """What the clients saw that were done within `seconds`, after `warm_s` of the same load."""
    loop = asyncio.get_running_loop()
    begin_at = loop.time() + warm_s
    end_at = begin_at + seconds
    asking: list[asyncio.Task[Seen]] = []
    async with asyncio.TaskGroup() as tasks:
        next_at = loop.time()
        while next_at < end_at:
            await asyncio.sleep(max(0.0, next_at - loop.time()))
            asking.append(tasks.create_task(client.ask(batch=rng.random() < batch)))
            next_at += rng.expovariate(rate)
    return [seen for task in asking if begin_at <= (seen := task.result()).ended_at < end_at]


def report(factor: float, rate: float, capacity_rate: float, seconds: float, found: Sequence[Seen]) -> str:
    """One line a load, and one for each kind of refusal."""
    good = [seen for seen in found if seen.outcome == "good"]
    by_priority = "/".join(f"{sum(seen.batch is batch for seen in good) / seconds:.1f}" for batch in (False, True))
    lines = [
        (
            f"{factor:4.1f}x  offered {rate:6.1f}/s  goodput {len(good) / seconds:6.1f}/s "
            f"= {len(good) / seconds / capacity_rate:5.1%} of capacity  (interactive/batch {by_priority})  "
            f"TTFT {_percentiles([seen.first_s for seen in good])}"
        )
    ]
    for outcome, count in Counter(seen.outcome for seen in found if seen.outcome != "good").most_common():
        times = [seen.ended_s for seen in found if seen.outcome == outcome]
        batch = sum(seen.batch for seen in found if seen.outcome == outcome)
        lines.append(
            f"       {outcome:28} {count / seconds:6.1f}/s  ({batch / seconds:.1f} batch)  {_percentiles(times)}"
        )
    return "\n".join(lines)


def _percentiles(times: Sequence[float]) -> str:
    if len(times) < 2:
        return "-"
    cuts = quantiles(times, n=100, method="inclusive")
    return f"p50 {cuts[49]:.3f} p95 {cuts[94]:.3f} p99 {cuts[98]:.3f} s"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--warm", type=float, default=8, help="seconds of each load before the figures begin")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--tps", type=float, default=40, help="tokens a second of each slot")
    parser.add_argument("--deadline", type=float, default=3, help="seconds after which a client leaves")
    parser.add_argument("--silent", action="store_true", help="the gateway does not hear of the deadline")
    parser.add_argument("--queue-timeout", type=float, default=60)
    parser.add_argument("--admission-factor", type=float)
    parser.add_argument("--batch", type=float, default=0.2, help="share of batch requests")
    parser.add_argument("--factors", type=float, nargs="+", default=[0.5, 1, 1.5, 2, 3])
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    gateway = {"NEUROGATE_QUEUE_TIMEOUT_S": str(arguments.queue_timeout)}
    if arguments.admission_factor is not None:
        gateway["NEUROGATE_ADMISSION_FACTOR"] = str(arguments.admission_factor)
    engine = {"NEUROGATE_SIM_DECODE_TPS": str(arguments.tps), "NEUROGATE_SIM_SLOTS": str(arguments.slots)}
    with fleet(arguments.workers, gateway=gateway, **engine) as (_, port, _):
        asyncio.run(_measure(arguments, port))


async def _measure(arguments: argparse.Namespace, port: int) -> None:
    client = Client(port, arguments.tokens, deadline_s=arguments.deadline, told=not arguments.silent)
    clients = 3 * arguments.workers * arguments.slots
    patient = Client(port, arguments.tokens, deadline_s=60, told=False)
    rate = await capacity(patient, clients=clients, seconds=arguments.seconds)
    print(f"capacity {rate:.1f}/s, with {clients} clients in a closed loop")
    rng = random.Random(arguments.seed)
    for factor in arguments.factors:
        found = await offered(
            client,
            rate * factor,
            batch=arguments.batch,
            seconds=arguments.seconds,
            warm_s=arguments.warm,
            rng=rng,
        )
        print(report(factor, rate * factor, rate, arguments.seconds, found), flush=True)
        await asyncio.sleep(1)


if __name__ == "__main__":
    main()

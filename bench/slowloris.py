"""What a thousand slow clients cost the others: latency of a normal request without them and with them, in one run.

Half of them send a head, half a body, a byte each in turn, all as fast as the rate says; the gateway closes them with
408 at its timeouts, and each comes back at once. The normal requests are sent one after the other meanwhile.

    python bench/slowloris.py [--slow 1000] [--seconds 10] [--rate 1000]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import statistics
import threading
import time
from collections import deque
from typing import Self

import uvloop
from fleet import KEY, fleet

PATH = "/v1/chat/completions"
_ASKED = json.dumps({"max_tokens": 1, "messages": [{"role": "user", "content": "Why is the sky blue?"}]})
_HEAD = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
_BEGINNINGS = (_HEAD + "X-Slow: ", _HEAD + "Content-Length: 100000\r\n\r\n")


class SlowClients:
    """So many slow clients, on a thread of their own."""

    def __init__(self, port: int, count: int, rate: int) -> None:
        self._port = port
        self._count = count
        self._rate = rate
        self.stopping = threading.Event()
        self.closed = 0
        """Connections that the gateway closed with 408."""
        self.open: deque[asyncio.WriteTransport] = deque()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        while len(self.open) < self._count:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._thread.join()

    async def _run(self) -> None:
        await asyncio.gather(*[self.connect(_BEGINNINGS[number % 2]) for number in range(self._count)])
        while not self.stopping.is_set():
            for _ in range(max(1, self._rate // 100)):
                transport = self.open[0]
                self.open.rotate(-1)
                if not transport.is_closing():
                    transport.write(b"a")
            await asyncio.sleep(0.01)
        for transport in self.open:
            transport.abort()

    async def connect(self, beginning: str) -> None:
        loop = asyncio.get_running_loop()
        clients = self

        class Slow(asyncio.Protocol):
            said = b""

            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                self.transport: asyncio.WriteTransport = transport  # type: ignore[assignment]
                clients.open.append(self.transport)
                self.transport.write(beginning.encode())

            def data_received(self, data: bytes) -> None:
                self.said += data

            def connection_lost(self, _: Exception | None) -> None:
                clients.closed += self.said.startswith(b"HTTP/1.1 408")
                with contextlib.suppress(ValueError):
                    clients.open.remove(self.transport)
                if not clients.stopping.is_set():
                    tasks.add(task := loop.create_task(clients.connect(beginning)))
                    task.add_done_callback(tasks.discard)

        tasks: set[asyncio.Task[None]] = set()
        with contextlib.suppress(OSError):
            await loop.create_connection(Slow, "127.0.0.1", self._port)


def latencies_ms(port: int, seconds: float) -> list[float]:
    """Of normal requests, one after the other on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    taken = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        connection.request("POST", PATH, _ASKED, headers)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise SystemExit(f"a normal request got {answer.status}")
        taken.append((time.monotonic() - began) * 1000)
    return taken


def told(name: str, taken: list[float]) -> None:
    p99 = statistics.quantiles(taken, n=100)[98]
    print(
        f"{name:22} {len(taken):6} requests   median {statistics.median(taken):6.2f} ms   "
        f"p99 {p99:6.2f} ms   worst {max(taken):6.2f} ms"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slow", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=int, default=1000, help="bytes a second of all slow clients together")
    arguments = parser.parse_args()
    gateway = {"NEUROGATE_HTTP_HEADER_TIMEOUT_S": "3", "NEUROGATE_BODY_TIMEOUT_S": "3"}
    with fleet(1, gateway=gateway, NEUROGATE_SIM_DECODE_TPS="0") as (_, port, _):
        latencies_ms(port, 1)
        alone = latencies_ms(port, arguments.seconds)
        with SlowClients(port, arguments.slow, arguments.rate) as slow:
            among = latencies_ms(port, arguments.seconds)
            closed = slow.closed
        after = latencies_ms(port, arguments.seconds / 2)
    told("without slow clients:", alone)
    told(f"with {arguments.slow}:", among)
    told("afterwards:", after)
    worse = statistics.median(among) - statistics.median(alone)
    print(f"{worse:+.2f} ms at the median; {closed} slow connections closed with 408 meanwhile")


if __name__ == "__main__":
    main()

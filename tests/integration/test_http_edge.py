"""A gateway's process under clients that mean it no good: malformed requests, slow ones, and too many."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import Callable

import httpx

from cluster import AUTH, KEY, Cluster
from raw_client import exchange, statuses
from raw_requests import PATH, RawRequest, table

ASKED = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
SHORT = {
    "NEUROGATE_HTTP_HEADER_TIMEOUT_S": "0.3",
    "NEUROGATE_HTTP_IDLE_TIMEOUT_S": "0.3",
    "NEUROGATE_BODY_TIMEOUT_S": "0.3",
}
GROWTH_MIB_MAX = 4.0
"""The allocator keeps some of what a round took; a leak of a kilobyte a request would show as more than this."""


async def sent_round(port: int) -> int:
    """Send the whole table, so many at once that each is sent in good time. Returns the number of answers."""
    places = asyncio.Semaphore(32)

    async def send(one: RawRequest) -> bytes:
        async with places:
            return await exchange(port, one.sent.replace(b"{key}", KEY.encode()), eof=one.eof)

    received = await asyncio.gather(*[send(one) for one in table()])
    return sum(len(statuses(one)) for one in received)


def test_malformed_requests_leave_no_memory_and_no_file_behind() -> None:
    with Cluster(1, gateway=SHORT, NEUROGATE_SIM_DECODE_TPS="0") as cluster:
        for _ in range(4):  # the allocator's own growth
            asyncio.run(sent_round(cluster.http_port))
        memory, files = cluster.gateway.rss_mib(), cluster.gateway.open_files()
        rounds = 16
        answers = sum(asyncio.run(sent_round(cluster.http_port)) for _ in range(rounds))
        grown = cluster.gateway.rss_mib() - memory
        assert rounds * len(table()) > 4000
        assert answers > 0  # how many depends on this process: what it sends too late is closed in silence
        assert grown < GROWTH_MIB_MAX, f"{grown:.1f} MiB"
        deadline = time.monotonic() + 10
        while cluster.gateway.open_files() > files:  # the last connections linger
            assert time.monotonic() < deadline
            time.sleep(0.05)
        answer = httpx.post(f"{cluster.url}{PATH.decode()}", json=ASKED, headers=AUTH)
        assert answer.status_code == 200
        counted = httpx.get(f"{cluster.ops_url}/metrics").text
        refused = re.search(r'neurogate_gateway_http_refusals_total\{status="400"\} (\S+)', counted)
        assert refused is not None
        assert float(refused.group(1)) > 1000


class Dripping(asyncio.Protocol):
    """A client that sends a byte now and then, and keeps what it hears."""

    def __init__(self, beginning: bytes) -> None:
        self._beginning = beginning
        self.heard = b""
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.WriteTransport = transport  # type: ignore[assignment]
        self.transport.write(self._beginning)

    def drip(self) -> None:
        if not self.closed.done():
            self.transport.write(b"a")

    def data_received(self, data: bytes) -> None:
        self.heard += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)


async def dripping(port: int, count: int, beginning: bytes) -> list[Dripping]:
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(count):
        _, client = await loop.create_connection(lambda: Dripping(beginning), "127.0.0.1", port)
        clients.append(client)
    return clients


async def until(done: Callable[[], bool], step: Callable[[], None]) -> None:
    while not done():
        step()
        await asyncio.sleep(0.05)


def test_a_thousand_slow_clients_are_closed_and_others_are_answered_meanwhile() -> None:
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n" % (PATH, KEY.encode())

    async def main(cluster: Cluster) -> None:
        slow = await dripping(cluster.http_port, 500, head + b"X-Slow: ")
        slow += await dripping(cluster.http_port, 500, head + b"Content-Length: 100000\r\n\r\n{")
        answers: list[int] = []
        async with httpx.AsyncClient(base_url=cluster.url, headers=AUTH, timeout=20) as client:

            async def ask() -> None:
                while not all(one.closed.done() for one in slow):
                    answers.append((await client.post(PATH.decode(), json=ASKED)).status_code)

            def drip() -> None:
                for one in slow:
                    one.drip()

            async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
                tasks.create_task(ask())
                tasks.create_task(until(lambda: all(one.closed.done() for one in slow), drip))
        assert [statuses(one.heard) for one in slow] == [[408]] * 1000
        assert len(answers) >= 3
        assert set(answers) == {200}

    limits = {"NEUROGATE_HTTP_HEADER_TIMEOUT_S": "2", "NEUROGATE_BODY_TIMEOUT_S": "2"}
    with Cluster(1, gateway=limits, NEUROGATE_SIM_DECODE_TPS="0") as cluster:
        asyncio.run(main(cluster))


def test_the_health_only_port_answers_until_the_gateway_has_drained_and_is_no_activity() -> None:
    with Cluster(1, NEUROGATE_SIM_DECODE_TPS="20") as cluster:
        port = cluster.gateway.wait_for("gateway listens")["health_port"]
        url = f"http://127.0.0.1:{port}/anything"
        before = [
            line for line in httpx.get(f"{cluster.ops_url}/metrics").text.splitlines() if "requests_total" in line
        ]
        assert httpx.get(url).text == "ok\n"
        after = [line for line in httpx.get(f"{cluster.ops_url}/metrics").text.splitlines() if "requests_total" in line]
        assert before == after
        asked = {**ASKED, "max_tokens": 20, "ignore_eos": True, "stream": True}
        with httpx.stream("POST", f"{cluster.url}{PATH.decode()}", json=asked, headers=AUTH, timeout=20) as answer:
            events = answer.iter_lines()
            next(events)
            cluster.gateway.send(signal.SIGTERM)
            cluster.gateway.wait_for("draining")
            assert httpx.get(url).status_code == 200
            assert httpx.get(f"{cluster.ops_url}/ready").status_code == 503
            assert [line for line in events if line][-1] == "data: [DONE]"
        assert cluster.gateway.popen.wait(20) == 0

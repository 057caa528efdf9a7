"""Real processes are restarted under load, and no request fails: gateways by takeover, fleets by `up --rolling`."""

from __future__ import annotations

import asyncio
import signal
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest

from cluster import KEY, Cluster, Process, Streamed, eventually, follow
from rolling import rolled
from steady_load import SteadyLoad
from tls_support import Pki


@pytest.fixture
def takeover(tmp_path: Path) -> dict[str, str]:
    return {"NEUROGATE_TAKEOVER_SOCKET": str(tmp_path / "gateway.sock")}


def another_gateway(cluster: Cluster, takeover: dict[str, str], **environment: str) -> Process:
    settings = {
        "WORKER_ADDRESSES": ",".join(f"127.0.0.1:{port}" for port in cluster.ports),
        "HTTP_PORT": "0",
        "METRICS_PORT": "0",
        "PORT_HEALTH": "0",
        "NEUROGATE_HOST": "127.0.0.1",
        "API_KEYS": KEY,
        "NEUROGATE_GRPC_PORT": "-1",
    }
    return Process("gateway", **{**settings, **takeover, **environment})


def ended(process: Process, timeout: float = 30) -> int:
    return process.popen.wait(timeout)


def test_three_gateways_one_after_the_other_under_load(takeover: dict[str, str]) -> None:
    async def main(cluster: Cluster, gateways: list[Process]) -> None:
        async with cluster.client() as client:
            await cluster.until_ready(client)
        async with SteadyLoad(cluster.http_port, key=KEY) as load:
            for _ in range(2):
                await load.until(load.counts.asked + 100)
                gateways.append(another_gateway(cluster, takeover))
                listens = await asyncio.to_thread(gateways[-1].wait_for, "gateway listens")
                assert listens["http_port"] == cluster.http_port
                assert await asyncio.to_thread(ended, gateways[-2]) == 0
            await load.until(load.counts.asked + 100)
        assert load.counts.whole >= 300
        assert not load.counts.failed, str(load.counts)

    with Cluster(2, gateway=takeover, NEUROGATE_SIM_DECODE_TPS="60") as cluster:
        gateways = [cluster.gateway]
        try:
            asyncio.run(main(cluster, gateways))
            assert gateways[-1].stop() == 0
        finally:
            for gateway in gateways:
                gateway.kill()


@pytest.mark.parametrize(("https_port", "name"), [("0", "https_port"), ("-1", "http_port")])
def test_https_is_taken_over_under_load_of_kept_and_of_new_connections(
    takeover: dict[str, str], tmp_path: Path, https_port: str, name: str
) -> None:
    """On a port beside plain HTTP, and on HTTP_PORT itself."""
    pki = Pki(tmp_path / "pki")
    certificate, key = pki.issue("gateway")
    environment = {
        **takeover,
        "NEUROGATE_TLS_CERT": certificate,
        "NEUROGATE_TLS_KEY": key,
        "NEUROGATE_HTTPS_PORT": https_port,
        "NEUROGATE_GRPC_TLS_PORT": "-1",
    }
    context = ssl.create_default_context(cafile=pki.ca)

    async def main(cluster: Cluster, gateways: list[Process]) -> None:
        port = cluster.gateway.wait_for("gateway listens")[name]
        async with httpx.AsyncClient(base_url=cluster.ops_url) as watcher:

            async def healthy() -> bool:
                return (await watcher.get("/health")).status_code == 200

            await eventually(healthy)
        kept = SteadyLoad(port, key=KEY, per_second=25, prompts=2, tls=context)
        new = SteadyLoad(port, key=KEY, per_second=15, prompts=2, tls=context, keep=False)
        async with kept, new:
            for _ in range(2):
                await kept.until(kept.counts.asked + 50)
                gateways.append(another_gateway(cluster, environment))
                listens = await asyncio.to_thread(gateways[-1].wait_for, "gateway listens")
                assert listens[name] == port
                assert await asyncio.to_thread(ended, gateways[-2]) == 0
            await new.until(new.counts.asked + 50)
        for load in (kept, new):
            assert load.counts.whole >= 80
            assert not load.counts.failed, str(load.counts)

    with Cluster(2, gateway=environment, NEUROGATE_SIM_DECODE_TPS="60") as cluster:
        gateways = [cluster.gateway]
        try:
            asyncio.run(main(cluster, gateways))
            assert gateways[-1].stop() == 0
        finally:
            for gateway in gateways:
                gateway.kill()


def test_a_new_gateway_that_is_killed_leaves_the_old_one_serving(takeover: dict[str, str]) -> None:
    """While it waits for its links it is known to the old one, and serves nothing."""

    async def main(cluster: Cluster) -> None:
        async with cluster.client() as client:
            await cluster.until_ready(client)
            cluster.workers[0].send(signal.SIGSTOP)  # its link does not come up, and the new gateway waits for it
            starting = another_gateway(cluster, takeover)
            try:
                await asyncio.to_thread(cluster.gateway.wait_for, "a gateway starts that will take over")
            finally:
                starting.kill()
                cluster.workers[0].send(signal.SIGCONT)
            await asyncio.to_thread(cluster.gateway.wait_for, "no gateway took over; this one goes on")
            assert (await client.get("/ready")).status_code == 200
            refused = another_gateway(cluster, takeover, METRICS_PORT=str(cluster.http_port))
            assert await asyncio.to_thread(ended, refused) == 1
            assert (await client.get("/ready")).status_code == 200
        assert cluster.gateway.stop() == 0

    with Cluster(1, gateway=takeover) as cluster:
        asyncio.run(main(cluster))


def test_a_second_signal_ends_a_gateway_and_a_worker_that_drain() -> None:
    async def main(cluster: Cluster) -> None:
        async with cluster.client() as client, asyncio.TaskGroup() as tasks:
            await cluster.until_ready(client)
            seen = Streamed()
            tasks.create_task(follow(client, "a long story", seen, 5000))
            await seen.started.wait()
            for process in (cluster.workers[0], cluster.gateway):
                process.send(signal.SIGTERM)
                await asyncio.to_thread(process.wait_for, "draining")
                assert process.popen.poll() is None
                process.send(signal.SIGTERM)
                assert await asyncio.to_thread(ended, process, 10) == 1

    with Cluster(1, gateway={"NEUROGATE_RESUME": "false"}) as cluster:
        asyncio.run(main(cluster))


def test_a_hangup_ends_no_worker() -> None:
    with Cluster(1) as cluster:
        cluster.workers[0].send(signal.SIGHUP)
        cluster.workers[0].wait_for("SIGHUP is ignored: there are no certificates to read again")
        assert cluster.workers[0].stop() == 0


def test_a_gateway_that_stops_is_not_ready_for_a_while_before_it_is_gone() -> None:
    """Load balancers see it, and what they still send is answered."""

    async def main(cluster: Cluster) -> None:
        async with httpx.AsyncClient(base_url=cluster.url, headers={"Authorization": f"Bearer {KEY}"}) as client:
            await cluster.until_ready(client)
            cluster.gateway.send(signal.SIGTERM)

            async def not_ready() -> bool:
                answer = await client.get("/ready")
                return answer.status_code == 503 and answer.headers.get("connection") == "close"

            await eventually(not_ready)
            answer = await client.post("/prompt", json={"query": "Why?"})
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
            assert await asyncio.to_thread(ended, cluster.gateway) == 0

    with Cluster(1, gateway={"NEUROGATE_DRAIN_DELAY_S": "3"}, NEUROGATE_SIM_DECODE_TPS="0") as cluster:
        asyncio.run(main(cluster))


def test_a_rolling_restart_of_three_workers_and_the_gateway_fails_no_request(tmp_path: Path) -> None:
    done = asyncio.run(rolled(tmp_path, requests=300))

    assert done.code == 0, done.told
    assert [line.partition(",")[0] for line in done.told.splitlines()] == [
        *(line for index in range(3) for line in (f"worker-{index}: draining", f"worker-{index}: ready")),
        "gateway: another one takes over",
        "gateway: ready",
        "all of it was restarted",
    ]
    assert done.counts.whole >= 300
    assert not done.counts.failed, str(done.counts)


def test_nothing_to_restart_is_said(tmp_path: Path) -> None:
    import os
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "neurogate", "up", "--rolling"],
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert done.stderr.startswith("neurogate: no fleet runs: start one with `neurogate up`")

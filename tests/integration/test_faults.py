"""What clients see when workers, engines and other clients misbehave: real processes, real signals.

After every fault the fleet is asked whether anything is left behind.
"""

from __future__ import annotations

import asyncio
import signal
import socket

import httpx

from cluster import AUTH, Cluster, Process, Streamed, eventually, follow, stream

SLOTS = 20
"""Of each worker that is to have more requests than it can work at."""


def prompts(count: int) -> list[str]:
    return [f"question number {number}" for number in range(count)]


async def expected_texts(client: httpx.AsyncClient, questions: list[str], max_tokens: int = 64) -> dict[str, str]:
    """The simulated model's answers are a function of the prompt: what every stream must say, whoever says it."""
    answers = await asyncio.gather(*(stream(client, question, max_tokens) for question in questions))
    assert all(answer.whole for answer in answers)
    return {question: answer.text for question, answer in zip(questions, answers, strict=True)}


def test_killed_worker_loses_no_request() -> None:
    """200 concurrent streams, a third of them on a worker that is killed: queued ones are answered elsewhere, started
    ones continued there, all of them whole and to the letter, and /workers shows the truth within 3 s."""

    async def main(cluster: Cluster) -> None:
        questions = prompts(200)
        async with cluster.client() as client:
            await cluster.until_ready(client)
            right = await expected_texts(client, questions)
            seen = [Streamed() for _ in questions]
            async with asyncio.TaskGroup() as clients:
                for question, one in zip(questions, seen, strict=True):
                    clients.create_task(follow(client, question, one))
                await asyncio.gather(*(one.started.wait() for one in seen[:30]))
                await cluster.until(lambda states: states[0]["in_flight"] > SLOTS, client)  # the others wait there
                cluster.workers[0].kill()
                killed_at = asyncio.get_running_loop().time()
                states = await cluster.until(
                    lambda states: not states[0]["healthy"] and states[0]["circuit_breaker_state"] == "open",
                    client,
                    timeout=3,
                )
                assert asyncio.get_running_loop().time() - killed_at <= 3
                assert [state["healthy"] for state in states] == [False, True, True]
            for question, one in zip(questions, seen, strict=True):
                assert one.whole
                assert one.text == right[question]
            assert any(one.attempts > 1 for one in seen), "some requests must have waited on the killed worker"
            continued = [one for one in seen if one.continued]
            assert continued, "some streams must have broken"
            assert {one.worker for one in continued} == {"worker-0"}
            await cluster.until_clean(client)

    with Cluster(3, NEUROGATE_SIM_SLOTS=str(SLOTS)) as cluster:
        asyncio.run(main(cluster))


def test_stopped_worker_is_noticed_and_left() -> None:
    """A SIGSTOPped worker keeps its TCP connection: silence gives it away, and the others answer for it."""

    async def main(cluster: Cluster) -> None:
        async with cluster.client() as client:
            await cluster.until_ready(client)
            seen = [Streamed() for _ in range(30)]
            async with asyncio.TaskGroup() as clients:
                for number, one in enumerate(seen):
                    clients.create_task(follow(client, f"question {number}", one, 100))
                await asyncio.gather(*(one.started.wait() for one in seen))
                cluster.workers[0].send(signal.SIGSTOP)
                unstreamed = [
                    clients.create_task(client.post("/prompt", json={"query": f"stopped {number}", "max_tokens": 5}))
                    for number in range(9)
                ]
            assert all(task.result().status_code == 200 for task in unstreamed)
            assert max(int(task.result().headers["x-neurogate-attempts"]) for task in unstreamed) == 2
            assert all(one.whole for one in seen)
            assert {one.worker for one in seen if one.continued} == {"worker-0"}
            states = await cluster.states(client)
            assert not states[0]["healthy"]
            assert "nothing heard" in states[0]["detail"]
            cluster.workers[0].send(signal.SIGCONT)
            await cluster.until(lambda states: states[0]["ready"], client)
            await cluster.until_clean(client)

    with Cluster(3) as cluster:
        asyncio.run(main(cluster))


def test_all_workers_down_is_an_honest_503_and_recovery_needs_no_hand() -> None:
    async def main(cluster: Cluster) -> None:
        async with cluster.client() as client:
            await cluster.until_ready(client)
            for worker in cluster.workers:
                worker.kill()
            await cluster.until(lambda states: not any(state["healthy"] for state in states), client)
            refused = await client.post("/prompt", json={"query": "anyone?"})
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.json()["code"] == "no_worker_available"
            assert "worker-0: unreachable" in refused.json()["message"]
            assert (await client.get("/health")).status_code == 503
            cluster.restart_worker(0)
            await cluster.until(lambda states: states[0]["ready"], client)
            answered = await client.post("/prompt", json={"query": "anyone?"})
            assert answered.status_code == 200
            assert (await client.get("/health")).json()["status"] == "degraded"
            await cluster.until_clean(client)

    with Cluster(2, gateway={"NEUROGATE_FAILFAST_S": "0.2"}) as cluster:
        asyncio.run(main(cluster))


def test_request_waits_out_a_short_absence_of_every_worker() -> None:
    """With nobody usable a request waits its failfast time, and is answered by the worker that comes."""

    async def main(cluster: Cluster) -> None:
        async with cluster.client() as client:
            await cluster.until_ready(client)
            cluster.workers[0].kill()
            await cluster.until(lambda states: not states[0]["healthy"], client)
            waiting = asyncio.create_task(client.post("/prompt", json={"query": "patience"}))
            await asyncio.to_thread(cluster.restart_worker, 0)
            assert (await waiting).status_code == 200
            await cluster.until_clean(client)

    with Cluster(1, gateway={"NEUROGATE_FAILFAST_S": "30"}) as cluster:
        asyncio.run(main(cluster))


def test_engine_down_at_start_then_killed_mid_answer() -> None:
    """A worker without its engine says so and gets nothing; a dying engine's stream ends in an error event, once
    nobody came who could continue it."""

    async def main(cluster: Cluster, engine_port: int) -> None:
        async with cluster.client() as client:
            states = await cluster.until(lambda states: states[0]["healthy"], client)
            assert not states[0]["ready"]
            assert str(engine_port) in states[0]["detail"]
            refused = await client.post("/prompt", json={"query": "too early"})
            assert refused.status_code == 503
            assert str(engine_port) in refused.json()["message"]
            engine = Process(
                "sim-engine", "--port", str(engine_port), NEUROGATE_SIM_DECODE_TPS="20", NEUROGATE_SIM_PREFILL_TPS="0"
            )
            try:
                await cluster.until(lambda states: states[0]["ready"], client)
                one = Streamed()
                async with asyncio.TaskGroup() as clients:
                    clients.create_task(follow(client, "a long story", one, 200))
                    await one.started.wait()
                    engine.kill()
                assert one.failed
                assert b"[DONE]" not in one.body
                await cluster.until(lambda states: not states[0]["ready"], client)
                await cluster.until_clean(client)
            finally:
                engine.popen.kill()
                engine.popen.wait()

    port = free_port()
    with Cluster(
        1,
        gateway={"NEUROGATE_FAILFAST_S": "0.2", "NEUROGATE_RESUME_WAIT_S": "0.2"},
        NEUROGATE_ENGINE="llama-server",
        NEUROGATE_ENGINE_URL=f"http://127.0.0.1:{port}",
    ) as cluster:
        asyncio.run(main(cluster, port))


def test_client_that_leaves_frees_the_slot() -> None:
    async def main(cluster: Cluster) -> None:
        async with cluster.client() as client:
            await cluster.until_ready(client)
            files = cluster.gateway.open_files()
            seen = [Streamed() for _ in range(20)]
            tasks = [asyncio.create_task(follow(client, f"q {n}", one, 5000)) for n, one in enumerate(seen)]
            await asyncio.gather(*(one.started.wait() for one in seen))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await cluster.until_clean(client)
            await eventually(lambda: _at_most(cluster.gateway.open_files, files + 2))
            states = await cluster.states(client)
            assert [state["consecutive_failures"] for state in states] == [0, 0]

    with Cluster(2) as cluster:
        asyncio.run(main(cluster))


def test_slow_client_is_cut_and_stalls_nobody() -> None:
    """A client that never reads costs a bounded buffer, then its own request; others' streams go on."""

    async def main(cluster: Cluster) -> None:
        async with cluster.client() as client:
            await cluster.until_ready(client)
            files = cluster.gateway.open_files()
            slow = await asyncio.to_thread(never_read, cluster.http_port, max_tokens=200_000)
            try:
                await cluster.until(lambda states: states[0]["in_flight"] == 1, client)
                other = await stream(client, "a normal question", 30)
                assert other.whole
                await cluster.until_clean(client)
                metrics = (await client.get(f"{cluster.ops_url}/metrics")).text
                assert "neurogate_gateway_slow_clients_total 1.0" in metrics
                await eventually(lambda: _at_most(cluster.gateway.open_files, files + 2))
            finally:
                slow.close()

    with Cluster(1, gateway={"NEUROGATE_STREAM_BUFFER_BYTES": "65536"}, NEUROGATE_SIM_DECODE_TPS="0") as cluster:
        asyncio.run(main(cluster))


def test_worker_drains_on_sigterm_and_loses_nothing() -> None:
    async def main(cluster: Cluster) -> None:
        async with cluster.client() as client:
            await cluster.until_ready(client)
            seen = [Streamed() for _ in range(20)]
            async with asyncio.TaskGroup() as clients:
                for number, one in enumerate(seen):
                    clients.create_task(follow(client, f"q {number}", one, 60))
                await asyncio.gather(*(one.started.wait() for one in seen))
                cluster.workers[0].send(signal.SIGTERM)
                await cluster.until(lambda states: not states[0]["ready"], client)
                later = await asyncio.gather(*(stream(client, f"later {number}", 5) for number in range(10)))
            assert all(one.whole for one in seen)
            assert all(one.whole and one.worker == "worker-1" for one in later)
            states = await cluster.until(lambda states: not states[0]["healthy"], client)
            assert states[0]["circuit_breaker_state"] == "closed"
            assert await asyncio.to_thread(cluster.workers[0].popen.wait, 10) == 0
            await cluster.until_clean(client)

    with Cluster(2) as cluster:
        asyncio.run(main(cluster))


def test_gateway_drains_on_sigterm_and_loses_nothing() -> None:
    async def main(cluster: Cluster) -> None:
        async with cluster.client() as client:
            await cluster.until_ready(client)
            seen = [Streamed() for _ in range(10)]
            async with asyncio.TaskGroup() as clients:
                for number, one in enumerate(seen):
                    clients.create_task(follow(client, f"q {number}", one, 60))
                await asyncio.gather(*(one.started.wait() for one in seen))
                cluster.gateway.send(signal.SIGTERM)
            assert all(one.whole for one in seen)
            assert await asyncio.to_thread(cluster.gateway.popen.wait, 10) == 0

    with Cluster(1) as cluster:
        asyncio.run(main(cluster))


def test_bad_requests_never_count_against_a_worker() -> None:
    async def main(cluster: Cluster) -> None:
        async with cluster.client() as client:
            await cluster.until_ready(client)
            for _ in range(5):
                for path, body, status in [
                    ("/prompt", b"{", 400),
                    ("/prompt", b"{}", 400),
                    ("/prompt", b'{"query": 3}', 400),
                    ("/prompt", b'{"query": "x", "max_tokens": -1}', 400),
                    ("/prompt", b'{"query": "x", "temperature": 3}', 400),
                    ("/prompt", b'{"query": "x", "model": "nope"}', 404),
                    ("/v1/chat/completions", b'{"messages": "x"}', 400),
                    ("/v1/chat/completions", b'{"messages": [{"role": "user"}], "model": "nope"}', 404),
                    ("/v1/completions", b'{"max_tokens": 3}', 400),
                    ("/v1/nothing", b"{}", 404),
                ]:
                    answer = await client.post(path, content=body)
                    assert answer.status_code == status, (path, body, answer.text)
                    assert "Traceback" not in answer.text
            states = await cluster.states(client)
            assert states[0]["circuit_breaker_state"] == "closed"
            assert states[0]["consecutive_failures"] == 0
            assert (
                await client.post("/prompt", json={"query": "x"}, headers={"Authorization": "no"})
            ).status_code == 401
            await cluster.until_clean(client)

    with Cluster(1) as cluster:
        asyncio.run(main(cluster))


def test_deadline_reaches_the_engine() -> None:
    """A request that outlives its time ends with 504 at the client and stops at the engine."""

    async def main(cluster: Cluster) -> None:
        async with cluster.client() as client:
            await cluster.until_ready(client)
            late = await client.post("/prompt", json={"query": "think for ever", "max_tokens": 10_000})
            assert late.status_code == 504
            assert late.json()["code"] == "deadline_exceeded"
            one = await stream(client, "think for ever", 10_000)
            assert one.failed
            assert not one.whole
            await cluster.until_clean(client)

    with Cluster(1, gateway={"NEUROGATE_REQUEST_TIMEOUT_S": "1"}) as cluster:
        asyncio.run(main(cluster))


async def _at_most(count: object, limit: int) -> bool:
    return count() <= limit  # type: ignore[operator]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def never_read(port: int, max_tokens: int) -> socket.socket:
    """A client that asks for a long stream and reads none of it."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    body = (
        b'{"messages":[{"role":"user","content":"tell me everything"}],"stream":true,"ignore_eos":true,"max_tokens":%d}'
        % max_tokens
    )
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: {AUTH['Authorization']}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    client.sendall(head.encode() + body)
    return client

"""What a gateway and a worker tell of themselves to people and pollers: true figures of what has happened."""

from __future__ import annotations

import asyncio

import httpx

from fleet_in_process import KEY, fleet
from neurogate import __version__
from neurogate.testing.engines import ScriptedEngine
from neurogate.worker.app import serve
from neurogate.worker.metrics import WorkerMetrics
from neurogate.worker.settings import WorkerSettings
from real_loop import run_real

JSON = {"Accept": "application/json"}


def test_a_gateways_vitals_are_what_happened() -> None:
    async def main() -> None:
        async with fleet(2) as made:
            made.gateway.lifecycle.ready = True
            for body, status in [({"query": "Hi", "max_tokens": 2}, 200), ({}, 400)]:
                assert (await made.client.post("/prompt", json=body)).status_code == status
            stranger = {"Authorization": "Bearer nobody"}
            assert (await made.client.post("/prompt", json={"query": "Hi"}, headers=stranger)).status_code == 401
            transport = httpx.ASGITransport(app=made.gateway.ops_app)
            async with httpx.AsyncClient(transport=transport, base_url="http://ops") as ops:
                told = (await ops.get("/metrics", headers=JSON)).json()
                assert (await ops.get("/vitals")).json().keys() == told.keys()
                assert "neurogate_gateway_requests_total" in (await ops.get("/telemetry", headers=JSON)).text

            assert told.pop("uptime_seconds") == told["gateway"].pop("uptime_seconds") > 0
            assert 0 <= told.pop("memory_usage") <= 100
            assert 0 <= told.pop("cpu_usage", 0) <= 100
            assert told.pop("tasks") > 0
            assert told == {
                "ready": True,
                "version": __version__,
                "requests_in_progress": 0,
                "failed_responses": 0,
                "connected_peers": 2,
                "gateway": {
                    "requests_total": 3,
                    "requests_success": 1,
                    "requests_error": 2,
                    "requests_unauthorized": 1,
                    "requests_active": 0,
                    "queue_depth": 0,
                    "queue_rejections": 0,
                    "queue_wait_seconds_total": 0.0,
                },
            }

    run_real(main())


def test_health_tells_of_the_queue_and_of_keys_and_gives_none_away() -> None:
    async def main() -> None:
        async with fleet(1) as made:
            answer = await made.client.get("/health", headers={"Authorization": ""})
            told = answer.json()
            assert told["queue"] == {"depth": 0}
            assert told["authentication"] == {"enabled": True, "keys_loaded": 1}
            assert told["config"]["status"] == "ok"
            assert KEY not in answer.text
            assert "key-1" not in answer.text

    run_real(main())


def test_a_workers_vitals_are_what_happened() -> None:
    async def main() -> None:
        engine = ScriptedEngine()
        stopping = asyncio.Event()
        ports = asyncio.get_running_loop().create_future()
        settings = WorkerSettings(host="127.0.0.1", grpc_port=0, metrics_port=0, stats_interval_s=0.01)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(serve(settings, engine, stopping, on_ports=lambda *both: ports.set_result(both)))
            _, ops_port = await ports
            await engine.observed.until(lambda observed: observed >= 2)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{ops_port}", trust_env=False) as ops:
                told = (await ops.get("/metrics", headers=JSON)).json()
            stopping.set()

        assert told.pop("uptime_seconds") >= 0
        assert 0 <= told.pop("memory_usage") <= 100
        assert 0 <= told.pop("cpu_usage", 0) <= 100
        assert told.pop("tasks") > 0
        assert told == {
            "ready": True,
            "version": __version__,
            "requests_in_progress": 0,
            "requests_total": 0,
            "failed_responses": 0,
            "connected_peers": 0,
            "slots": {"total": 4, "busy": 0},
            "tokens_per_second": 0.0,
        }

    run_real(main())


def test_a_workers_failed_requests_count_whatever_their_model_and_kind() -> None:
    metrics = WorkerMetrics()
    assert metrics.failed_total() == 0
    for model, kind in [("a", "crashed"), ("a", "crashed"), ("b", "timeout")]:
        metrics.of_model(model).failed(kind)
    assert metrics.failed_total() == 3

"""What both processes tell at /metrics after requests of every kind, as Prometheus and its own tools read it."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from fleet_in_process import Fleet, fleet
from neurogate.dataplane.state import WorkerState
from neurogate.engines.settings import SimSettings
from neurogate.worker.canary import Outcome
from neurogate.worker.stalls import Phase

CHAT = {"messages": [{"role": "user", "content": "Why?"}], "max_tokens": 5}
PROMETHEUS_2 = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
OWN = re.compile(r"neurogate_|llamacpp_")

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


async def told(made: Fleet, accept: str) -> tuple[str, str]:
    """What the gateway and the first worker tell."""
    transport = httpx.ASGITransport(made.gateway.ops_app)
    async with httpx.AsyncClient(transport=transport, base_url="http://ops") as ops, httpx.AsyncClient() as client:
        of_gateway = await ops.get("/metrics", headers={"Accept": accept})
        of_worker = await client.get(f"{made.ops_urls[0]}/metrics", headers={"Accept": accept})
    for answer in (of_gateway, of_worker):
        assert answer.headers["content-type"].startswith(accept.partition(";")[0])
    return of_gateway.text, of_worker.text


@cache
def outputs() -> tuple[tuple[str, str], tuple[str, str]]:
    """(gateway's, worker's) text and OpenMetrics after some requests."""

    async def main() -> tuple[tuple[str, str], tuple[str, str]]:
        sim = SimSettings(prefill_tps=0, decode_tps=0, slots=4)
        async with fleet(2, models=("tiny", "small"), sim=sim, requests_per_minute=8, tokens_per_month=100_000) as made:
            for model in ("tiny", "small", "tiny"):
                await made.client.post("/v1/chat/completions", json={**CHAT, "model": model})
                await made.client.post("/v1/chat/completions", json={**CHAT, "model": model, "stream": True})
            await made.client.post("/prompt", json={"query": "Why?", "max_tokens": 3})
            await made.client.post("/v1/chat/completions", json={**CHAT, "model": "made-up-by-a-client"})
            await made.client.post("/v1/chat/completions", content=b"no JSON")
            limited = await made.client.post("/prompt", json={"query": "Why?"})
            assert limited.status_code == 429, limited.text
            stranger = await made.client.post("/prompt", json={"query": "Why?"}, headers={"Authorization": "none"})
            assert stranger.status_code == 401
            await made.settled()
            return await told(made, "text/plain"), await told(made, PROMETHEUS_2)

    return asyncio.run(main())


def samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in plain(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


@pytest.mark.parametrize("process", [0, 1], ids=["gateway", "worker"])
def test_promtool_finds_nothing_to_complain_of(process: int) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; Debian has it in the package prometheus")
    text = outputs()[0][process]

    run = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)

    assert (run.returncode, run.stdout + run.stderr) == (0, "")


@pytest.mark.parametrize("process", [0, 1], ids=["gateway", "worker"])
def test_both_formats_can_be_read_and_have_the_same_series(process: int) -> None:
    text, modern = (formats[process] for formats in outputs())
    names = {sample.name for family in plain(text) for sample in family.samples}

    assert names == {sample.name for family in openmetrics(modern) for sample in family.samples}
    assert all(OWN.match(name) for name in names)


def test_requests_are_counted_by_model_and_key_and_how_they_ended() -> None:
    found = samples(outputs()[0][0])
    outcome = "neurogate_gateway_outcomes_total"
    assert value(found, outcome, model="small", outcome="answered") == 2
    answered = [value(found, outcome, model=model, outcome="answered") or 0 for model in ("tiny", "small")]
    assert sum(answered) == 7  # the prompt names no model: that of its worker counts
    assert value(found, outcome, model="unknown", outcome="refused") == 3  # no such model, no JSON, no key
    assert value(found, outcome, model="unknown", outcome="limited") == 1
    assert "made-up-by-a-client" not in outputs()[0][0]
    assert value(found, "neurogate_gateway_key_requests_total", key="key-1", outcome="answered") == 7
    assert value(found, "neurogate_gateway_key_requests_total", key="key-1", outcome="limited") == 1
    assert value(found, "neurogate_gateway_limits_hit_total", limit="requests") == 1
    assert value(found, "neurogate_gateway_end_to_end_seconds_count", model="small") == 2
    assert value(found, "neurogate_gateway_time_to_first_token_seconds_count", model="small") == 1
    assert value(found, "neurogate_gateway_time_per_output_token_seconds_count", model="small") == 1
    completion = value(found, "neurogate_gateway_tokens_total", kind="completion")
    assert completion == value(found, "neurogate_gateway_key_tokens_total", key="key-1", kind="completion") == 33
    assert value(found, "neurogate_gateway_model_tokens_total", model="small", kind="completion") == 10
    used = value(found, "neurogate_gateway_key_budget_used_ratio", key="key-1")
    assert used is not None
    assert 0 < used < 0.1


def test_the_fleet_and_its_links_are_told() -> None:
    found = samples(outputs()[0][0])
    for state in WorkerState:
        assert value(found, "neurogate_gateway_workers", state=state) == (2 if state is WorkerState.READY else 0)
    assert value(found, "neurogate_gateway_model_workers", model="small") == 1
    assert value(found, "neurogate_gateway_worker_slots", worker="worker-1") == 4
    assert value(found, "neurogate_gateway_worker_kv_used_ratio", worker="worker-1") is not None
    for direction in ("sent", "received"):
        frames = value(found, "neurogate_gateway_link_frames_total", direction=direction)
        assert frames is not None
        assert frames > 0
    assert (value(found, "neurogate_gateway_link_items_total", direction="sent") or 0) >= 7


def test_a_worker_tells_of_itself_and_of_its_engine() -> None:
    found = samples(outputs()[0][1])
    assert value(found, "neurogate_worker_slots") == 4
    assert value(found, "neurogate_worker_links") == 1
    assert value(found, "neurogate_worker_draining") == 0
    assert value(found, "neurogate_worker_engine_connected") == 1
    assert (value(found, "neurogate_worker_tokens_generated_total", model="tiny") or 0) > 0
    assert (value(found, "llamacpp_tokens_predicted_total") or 0) > 0
    assert 'neurogate_build_info{process="worker"' in outputs()[0][1]


def test_what_a_worker_may_count_later_is_there_from_the_start_so_that_its_first_increase_can_be_seen() -> None:
    found = samples(outputs()[0][1])
    for outcome in Outcome:
        assert value(found, "neurogate_worker_canaries_total", outcome=outcome.value) is not None
    for phase in Phase:
        assert value(found, "neurogate_worker_stalls_total", phase=phase.value) == 0

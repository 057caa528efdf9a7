"""Traces of real processes, as a real receiver of OTLP gets them."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import httpx
import pytest

from cluster import Cluster, Streamed, follow
from otlp_receiver import OtlpReceiver, Received

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
CALLER_SPAN = "b7ad6b7169203331"
SERVER, CLIENT = 2, 3
CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "Why is the sky blue?"}], "max_tokens": 8}


def traced(receiver: OtlpReceiver, **environment: str) -> dict[str, str]:
    return {
        "NEUROGATE_TRACES": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-scope=team%20a",
        **environment,
    }


def one(spans: list[Received], name: str) -> Received:
    (found,) = [span for span in spans if span.name == name]
    return found


def test_a_resumed_request_is_one_trace_from_gateway_to_engine() -> None:
    """Its worker is killed in the middle of the stream: the trace has the broken attempt, the gap and what went on."""

    async def killed(cluster: Cluster) -> Streamed:
        async with cluster.client() as client:
            await cluster.until_ready(client)
            seen = Streamed()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(follow(client, "Why?", seen, max_tokens=60))
                await seen.started.wait()
                cluster.workers[int(seen.worker.removeprefix("worker-"))].kill()
            await cluster.until_clean(client)
            return seen

    with OtlpReceiver() as receiver, Cluster(2, gateway=traced(receiver), **traced(receiver)) as cluster:
        seen = asyncio.run(killed(cluster))
        assert seen.whole
        assert seen.continued
        (request,) = [span for span in receiver.wait_for(f"POST {CHAT}") if span.name == f"POST {CHAT}"]
        spans = receiver.wait_for("attempt", "attempt", "resume", "call", "decode", trace_id=request.trace_id)
        assert {span.trace_id for span in receiver.spans} == {request.trace_id}
        assert receiver.requests[0]["x-scope"] == "team a"
        said = cluster.gateway.wait_for("stream broke, another worker continues it")
        assert (said["trace_id"], said["worker"]) == (request.trace_id, seen.worker)

    first, second = sorted((span for span in spans if span.name == "attempt"), key=lambda span: span.start_ns)
    resume, call = one(spans, "resume"), one(spans, "call")
    prefill, decode = one(spans, "prefill"), one(spans, "decode")

    assert (request.service, request.kind, request.parent_id, request.failed) == (
        "neurogate-gateway",
        SERVER,
        "",
        False,
    )
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["http.route"] == CHAT
    assert request.attributes["gen_ai.operation.name"] == "chat"
    assert request.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert (request.attributes["neurogate.attempts"], request.attributes["neurogate.resumes"]) == (2, 1)

    assert {first.parent_id, second.parent_id, resume.parent_id} == {request.span_id}
    assert (first.kind, first.failed, first.attributes["neurogate.end"]) == (CLIENT, True, "link_lost")
    assert (second.kind, second.failed, second.attributes["neurogate.end"]) == (CLIENT, False, "answered")
    assert (first.attributes["neurogate.resumed"], second.attributes["neurogate.resumed"]) == (False, True)
    assert first.attributes["neurogate.worker_id"] == seen.worker
    assert second.attributes["neurogate.worker_id"] == request.attributes["neurogate.worker_id"] != seen.worker
    assert resume.attributes["neurogate.broken_worker_id"] == seen.worker
    assert first.events == second.events == ("first chunk",)

    assert (call.service, call.kind, call.parent_id) == ("neurogate-worker", SERVER, second.span_id)
    assert call.attributes["neurogate.resumed"] is True
    assert call.attributes["neurogate.request_id"] == request.attributes["neurogate.request_id"]
    assert {prefill.parent_id, decode.parent_id} == {call.span_id}
    assert decode.attributes["gen_ai.usage.output_tokens"] > 0
    assert request.attributes["gen_ai.usage.output_tokens"] > decode.attributes["gen_ai.usage.output_tokens"]

    assert request.start_ns <= first.start_ns <= first.end_ns == resume.start_ns <= second.start_ns
    assert second.start_ns <= resume.end_ns <= second.end_ns <= request.end_ns
    slack_ns = 50_000_000  # two processes read the wall clock at different times
    assert second.start_ns - slack_ns <= call.start_ns <= prefill.start_ns <= prefill.end_ns
    assert prefill.end_ns == decode.start_ns <= decode.end_ns <= call.end_ns <= second.end_ns + slack_ns


def test_a_callers_trace_goes_on_and_what_it_does_not_want_is_not_recorded(tmp_path: Path) -> None:
    """The caller's flag decides; the share decides for the others, and may be changed while the gateway runs."""
    config = tmp_path / "gateway.yaml"
    config.write_text("tracing:\n  ratio: 0\n")
    spanless = {"traceparent": f"00-{TRACE_ID[::-1]}-{CALLER_SPAN}-00"}
    wanted = {"traceparent": f"00-{TRACE_ID}-{CALLER_SPAN}-01", "x-request-id": "wanted"}

    async def ask(cluster: Cluster) -> None:
        async with cluster.client() as client:
            await cluster.until_ready(client)
            quiet = await client.post(CHAT, json=BODY, headers=spanless)
            alone = await client.post(CHAT, json=BODY)
            heard = await client.post(CHAT, json=BODY, headers=wanted)
            assert "traceresponse" not in quiet.headers
            assert "traceresponse" not in alone.headers
            assert heard.headers["traceresponse"].startswith(f"00-{TRACE_ID}-")
            assert heard.headers["traceresponse"][36:52] != CALLER_SPAN
            config.write_text("tracing:\n  ratio: 1\n")
            cluster.gateway.send(1)
            cluster.gateway.wait_for("configuration reloaded")
            begun = await client.post(CHAT, json=BODY)
            assert "traceresponse" in begun.headers
            refused = await client.post(CHAT, json=BODY, headers={"Authorization": "Bearer wrong", **wanted})
            assert (refused.status_code, refused.headers["traceresponse"][3:35]) == (401, TRACE_ID)

    with (
        OtlpReceiver() as receiver,
        Cluster(1, gateway=traced(receiver, NEUROGATE_CONFIG=str(config)), **traced(receiver)) as cluster,
    ):
        asyncio.run(ask(cluster))
        spans = receiver.wait_for(f"POST {CHAT}", f"POST {CHAT}", "attempt", "call", trace_id=TRACE_ID)
        others = receiver.wait_for(*[f"POST {CHAT}"] * 3, *["call"] * 2)
        cluster.gateway.stop()
        cluster.workers[0].stop()
        assert len([span for span in receiver.spans if span.service == "neurogate-worker"]) <= 2 * 3
    answered, refused = sorted((span for span in spans if span.name.startswith("POST")), key=lambda span: span.start_ns)
    assert {answered.parent_id, refused.parent_id} == {CALLER_SPAN}
    assert answered.attributes["neurogate.request_id"] == "wanted"
    assert (refused.attributes["http.response.status_code"], refused.failed) == (401, False)
    assert one(spans, "call").parent_id == one(spans, "attempt").span_id
    assert TRACE_ID[::-1] not in {span.trace_id for span in others}


@pytest.mark.parametrize("how", ["gone", "refuses"])
def test_a_receiver_that_takes_nothing_costs_spans_and_no_request(how: str) -> None:
    """They are counted, and that is said once; the process ends in time."""

    async def ask(cluster: Cluster) -> None:
        async with cluster.client() as client:
            await cluster.until_ready(client)
            for _ in range(3):
                assert (await client.post(CHAT, json=BODY)).status_code == 200
                if how == "refuses":
                    cluster.gateway.wait_for("spans are lost: the receiver does not take them")

    with OtlpReceiver(status=403) as receiver:
        settings = (
            traced(receiver) if how == "refuses" else traced(receiver, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
        )
        with Cluster(1, gateway=settings) as cluster:
            asyncio.run(ask(cluster))
            if how == "refuses":
                lost = httpx.get(f"{cluster.ops_url}/telemetry").text
                assert float(lost.partition("\nneurogate_spans_lost_total ")[2].split()[0]) > 0
            began = time.monotonic()
            assert cluster.gateway.stop() == 0
            assert time.monotonic() - began < 8  # a drain delay of 1 s, and at most 3 s for spans
            told = [json.loads(line) for line in cluster.gateway.lines if "spans are lost" in line]
    reasons = [record.get("reason", "") for record in told if "does not take them" in record["event"]]
    assert len(reasons) == (how == "refuses") or "127.0.0.1:9" in reasons[0]
    assert told
    assert all("team%20a" not in line for line in cluster.gateway.lines)

"""Where the time of one request goes, from the edge to the engine, and how to find a single one."""

from __future__ import annotations

from board import (
    COUNT,
    EVENTS_PER_MINUTE,
    EVENTS_PER_SECOND,
    GATEWAY,
    MODEL,
    SECONDS,
    Limit,
    Panel,
    Query,
    Row,
    build,
    events,
    lines,
    words,
)
from grafana_foundation_sdk.models.dashboard import Dashboard
from overview import ASKED, OF, ON

UID = "neurogate-request"

AT_WORKERS = 'model=~"$model"'

_FIND = """\
- **A point in a latency panel** is one sampled request: its link opens the trace, gateway, link and engine in one.
- **`X-Request-Id`** of an answer finds the request in the log of gateway and worker, with the trace's id beside it.
- **`X-NeuroGate-Explain: 1`** on a request has the gateway say why this worker: candidates, scores, who was left out.
- **`GET /debug/requests`** on the ops port has what is in flight now, with phase and age; `/dashboard` shows it live.
"""


def request_path(docs: str) -> Dashboard:
    """The dashboard."""
    return build(
        UID,
        "NeuroGate / One request's path",
        "Where the time of a request goes: edge, queue, pick, attempt, engine.",
        variables=[GATEWAY, MODEL],
        docs=docs,
        rows=[
            Row("The way to the first token", _first_token()),
            Row("Queue, pick and attempts", _attempts()),
            Row("From token to token", _tokens()),
        ],
    )


def _p95(metric: str, labels: str) -> str:
    return f"histogram_quantile(0.95, sum by (le) (rate({metric}_bucket{{{labels}}}[$__rate_interval])))"


def _mean(metric: str, labels: str) -> str:
    return (
        f"sum(rate({metric}_sum{{{labels}}}[$__rate_interval])) / "
        f"(sum(rate({metric}_count{{{labels}}}[$__rate_interval])) > 0)"
    )


def _first_token() -> list[Panel]:
    return [
        lines(
            "The stages, p95",
            "Each stage by itself: what waited in the queue, the worker's time to the first token (its"
            " engine's queue and"
            " the prompt), and the whole as the gateway has it. What is missing between them is attempts that failed.",
            [
                Query(_p95("neurogate_gateway_queue_wait_seconds", ON), "1 queue, of those that waited"),
                Query(
                    _p95("neurogate_worker_time_to_first_token_seconds", AT_WORKERS),
                    "2 worker: to first token",
                    exemplar=True,
                ),
                Query(
                    _p95("neurogate_gateway_time_to_first_token_seconds", OF),
                    "3 gateway: to first token",
                    exemplar=True,
                ),
            ],
            unit=SECONDS,
            width=12,
            height=9,
        ),
        lines(
            "The same, mean",
            "Where the mean first token's time goes. The difference of the gateway's and the worker's is"
            " queue, pick, link"
            " and failed attempts.",
            [
                Query(_mean("neurogate_gateway_time_to_first_token_seconds", OF), "gateway"),
                Query(_mean("neurogate_worker_time_to_first_token_seconds", AT_WORKERS), "worker"),
            ],
            unit=SECONDS,
            width=12,
            height=9,
        ),
        lines(
            "Whole answers, p50 and p95",
            "From a request's head to its answer's last byte at the gateway, and from its arrival to its last"
            " token at the"
            " worker. Points are sampled requests with a trace.",
            [
                Query(
                    f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket{{{labels}}}[$__rate_interval])))",
                    f"{who} {name}",
                    exemplar=q > 0.9,
                )
                for who, metric, labels in (
                    ("gateway", "neurogate_gateway_end_to_end_seconds", OF),
                    ("worker", "neurogate_worker_inference_duration_seconds", AT_WORKERS),
                )
                for q, name in ((0.5, "p50"), (0.95, "p95"))
            ],
            unit=SECONDS,
            width=12,
        ),
        words(
            "Find a single request",
            "How to get from a slow or failed request to its trace, log and reasons.",
            _FIND,
            width=12,
            height=8,
        ),
    ]


def _attempts() -> list[Panel]:
    return [
        lines(
            "Queue: how waiting ended",
            "Requests a second that left the queue, by how: turn went on to a worker.",
            [
                Query(
                    f"sum by (outcome) (rate(neurogate_gateway_queue_wait_seconds_count{{{ON}}}[$__rate_interval]))",
                    "{{outcome}}",
                )
            ],
            unit=EVENTS_PER_SECOND,
        ),
        lines(
            "Pick: who gets the requests",
            "Requests that gateways have at each worker now. A picker that does its work keeps them alike, or in"
            " proportion to what the workers can do.",
            [Query(f"sum by (worker) (neurogate_gateway_worker_in_flight{{{ON}}})", "{{worker}}")],
            unit=COUNT,
            stacked=True,
        ),
        lines(
            "Attempt: why requests moved on",
            "In the last minute: attempts that failed before their first byte, by reason, and streams that"
            " broke after it.",
            [
                Query(
                    events("neurogate_gateway_retries_total", ON, "reason"),
                    "retry: {{reason}}",
                ),
                Query(
                    events("neurogate_gateway_resumes_total", ON, "outcome"),
                    "stream {{outcome}}",
                ),
            ],
            unit=EVENTS_PER_MINUTE,
        ),
    ]


def _tokens() -> list[Panel]:
    gaps = "neurogate_worker_inter_token_latency_seconds"
    return [
        lines(
            "Time between tokens, p95",
            "At workers each gap, at gateways the mean gap of each answer.",
            [
                Query(_p95(gaps, AT_WORKERS), "worker: each gap"),
                Query(_p95("neurogate_gateway_time_per_output_token_seconds", OF), "gateway: mean of an answer"),
            ],
            unit=SECONDS,
        ),
        lines(
            "Edge: time to the first byte, p95",
            "From a request's head to the first byte of its answer, streamed requests, by path.",
            [
                Query(
                    "histogram_quantile(0.95, sum by (le, path) (rate("
                    f"neurogate_gateway_time_to_first_byte_seconds_bucket{{{ON}, {ASKED}}}[$__rate_interval])))",
                    "{{path}}",
                    exemplar=True,
                )
            ],
            unit=SECONDS,
            limits=[Limit(2.5, "red")],
        ),
        lines(
            "Link: items in a frame",
            "How many requests or chunks go over a link at once: above 1 under load, for writes are joined.",
            [
                Query(
                    f"sum by (direction) (rate(neurogate_gateway_link_items_total{{{ON}}}[$__rate_interval])) / "
                    f"sum by (direction) (rate(neurogate_gateway_link_frames_total{{{ON}}}[$__rate_interval]))",
                    "{{direction}}",
                )
            ],
            unit=COUNT,
        ),
    ]

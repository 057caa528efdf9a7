"""The first look: does it answer, how fast, how much, and who is well."""

from __future__ import annotations

from board import (
    COUNT,
    EVENTS_PER_MINUTE,
    GATEWAY,
    MODEL,
    REQUESTS_PER_SECOND,
    SECONDS,
    SHARE,
    TOKENS_PER_SECOND,
    Limit,
    Panel,
    Query,
    Row,
    State,
    build,
    events,
    lines,
    number,
    states,
)
from grafana_foundation_sdk.models.dashboard import Dashboard

UID = "neurogate-overview"

BREAKERS = {0: State("closed", "green"), 1: State("open", "red"), 2: State("half-open", "yellow")}
WORKER_COLORS = {
    "ready": "green",
    "resting": "super-light-green",
    "half_open": "yellow",
    "open": "red",
    "ejected": "orange",
    "not_ready": "purple",
    "draining": "blue",
    "cordoned": "light-blue",
    "unreachable": "dark-red",
}
OUTCOME_COLORS = {
    "answered": "green",
    "refused": "blue",
    "limited": "light-blue",
    "client_gone": "purple",
    "shed": "yellow",
    "failed": "red",
    "broken": "dark-red",
}
ASKED = 'path!~"/(ping|health|ready|metrics|workers)?"'
"""Paths that people and programs ask; probes are many and fast."""
ON = 'instance=~"$gateway"'
OF = 'instance=~"$gateway", model=~"$model"'


def overview(docs: str) -> Dashboard:
    """The dashboard."""
    return build(
        UID,
        "NeuroGate / Overview",
        "Whether the fleet answers, how fast and how much, and who of it is well.",
        variables=[GATEWAY, MODEL],
        docs=docs,
        rows=[Row("Now", _now()), Row("Requests", _requests()), Row("Workers", _workers()), Row("Load", _load())],
    )


def _now() -> list[Panel]:
    return [
        number(
            "Workers available",
            "Workers that a gateway may send requests to, of the gateway that has the fewest. With none of them every"
            " request is a 503.",
            Query(f"min(gateway:neurogate_workers:available{{{ON}}})"),
            unit=COUNT,
            limits=[Limit(0, "red"), Limit(1, "yellow"), Limit(2, "green")],
            decimals=0,
        ),
        number(
            "Requests",
            "Generation requests a second, however they ended, over HTTP and gRPC.",
            Query(f"sum(rate(neurogate_gateway_outcomes_total{{{OF}}}[$__rate_interval]))"),
            unit=REQUESTS_PER_SECOND,
        ),
        number(
            "Completion tokens",
            "Tokens that all workers generate a second.",
            Query('sum(rate(neurogate_worker_tokens_generated_total{model=~"$model"}[$__rate_interval]))'),
            unit=TOKENS_PER_SECOND,
            decimals=0,
        ),
        number(
            "Errors",
            "Share of requests of the last five minutes that failed, or broke after their first byte, through no fault"
            " of their clients.",
            Query("fleet:neurogate_errors:ratio_rate5m"),
            unit=SHARE,
            limits=[Limit(0.01, "yellow"), Limit(0.05, "red")],
        ),
        number(
            "First token, p95",
            "19 of 20 streamed requests of the last five minutes had their first token within this time, queue"
            " included.",
            Query("fleet:neurogate_ttft_seconds:p95_5m"),
            unit=SECONDS,
            limits=[Limit(2.5, "red")],
        ),
        number(
            "Whole answer, p95",
            "19 of 20 answers of the last five minutes were whole within this time.",
            Query("fleet:neurogate_e2e_seconds:p95_5m"),
            unit=SECONDS,
        ),
        number(
            "Waiting",
            "Requests that wait at the gateways for their turn, now.",
            Query(f"sum(neurogate_gateway_queued_requests{{{ON}}})"),
            unit=COUNT,
            limits=[Limit(1, "yellow"), Limit(50, "red")],
            decimals=0,
        ),
        number(
            "Slots busy",
            "Share of all engines' slots that work. At 100 % further requests wait.",
            Query("fleet:neurogate_slots:utilisation"),
            unit=SHARE,
            limits=[Limit(0.8, "yellow"), Limit(1, "orange")],
        ),
    ]


def _requests() -> list[Panel]:
    durations = f"neurogate_gateway_request_duration_seconds_bucket{{{ON}, {ASKED}}}"
    first_tokens = f"neurogate_gateway_time_to_first_token_seconds_bucket{{{OF}}}"
    return [
        lines(
            "Requests by outcome",
            "Generation requests a second by how they ended. Errors are failed (before the first byte) and"
            " broken (after"
            " it); shed was refused for load, limited by a limit of its key, refused is a client's mistake.",
            [
                Query(
                    f"sum by (outcome) (rate(neurogate_gateway_outcomes_total{{{OF}}}[$__rate_interval]))",
                    "{{outcome}}",
                )
            ],
            unit=REQUESTS_PER_SECOND,
            stacked=True,
            colors=OUTCOME_COLORS,
        ),
        lines(
            "Latency of the gateway",
            "From a request's head to the last byte of its answer, as gateways measure it, without probes. A streamed"
            " answer takes as long as it is generated.",
            [
                Query(
                    f"histogram_quantile({q}, sum by (le) (rate({durations}[$__rate_interval])))",
                    name,
                    exemplar=q > 0.9,
                )
                for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
            ],
            unit=SECONDS,
        ),
        lines(
            "Time to first token",
            "From a request's head to its first token, queue included, streamed requests only. The dashed line is the"
            " objective.",
            [
                Query(
                    f"histogram_quantile({q}, sum by (le) (rate({first_tokens}[$__rate_interval])))",
                    name,
                    exemplar=q > 0.9,
                )
                for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
            ],
            unit=SECONDS,
            limits=[Limit(2.5, "red")],
        ),
        lines(
            "Tokens by model",
            "Completion tokens generated a second, counted by workers as they come.",
            [
                Query(
                    'sum by (model) (rate(neurogate_worker_tokens_generated_total{model=~"$model"}[$__rate_interval]))',
                    "{{model}}",
                )
            ],
            unit=TOKENS_PER_SECOND,
            stacked=True,
        ),
        lines(
            "Errors and shed requests",
            "Shares of the requests that counted, over five minutes: errors (failed and broken), and refused for load."
            " Above 5 % of errors somebody is woken.",
            [
                Query("fleet:neurogate_errors:ratio_rate5m", "errors"),
                Query("fleet:neurogate_sheds:ratio_rate5m", "shed"),
            ],
            unit=SHARE,
            limits=[Limit(0.05, "red")],
            colors={"errors": "red", "shed": "yellow"},
        ),
        lines(
            "How fast the error budget of first tokens burns",
            "Late first tokens over what the objective allows: 1 uses the month's budget up in a month, 14.4"
            " in two days."
            " An alert needs both of its windows above its line.",
            [
                Query(
                    f"neurogate:slo_ttft:slow_ratio_rate{window} / (1 - neurogate:slo_ttft:objective)", f"over {window}"
                )
                for window in ("5m", "1h", "6h")
            ],
            unit="suffix:x",
            at_least=2,
            limits=[Limit(1, "yellow"), Limit(6, "orange"), Limit(14.4, "red")],
        ),
    ]


def _workers() -> list[Panel]:
    return [
        states(
            "Breakers",
            "Of each worker: closed lets requests through, open keeps them away, half-open has one probe out. The worst"
            " that any gateway has.",
            [Query(f"max by (worker) (neurogate_gateway_circuit_breaker_state{{{ON}}})", "{{worker}}")],
            values=BREAKERS,
        ),
        lines(
            "Workers by state",
            "How many workers are in which state, as the gateway that counts the most of them has it. ready and resting"
            " take requests.",
            [Query(f"max by (state) (neurogate_gateway_workers{{{ON}}})", "{{state}}")],
            unit=COUNT,
            width=12,
            height=7,
            stacked=True,
            colors=WORKER_COLORS,
            steps=True,
        ),
        lines(
            "Retries, resumes and hedges",
            "In the last minute: requests that moved to another worker before their first byte (retry),"
            " streams continued"
            " elsewhere after it"
            " (resumed; refused ones were broken), and second attempts beside a late first one (hedge).",
            [
                Query(events("neurogate_gateway_retries_total", ON), "retried"),
                Query(
                    events("neurogate_gateway_resumes_total", ON, "outcome"),
                    "stream {{outcome}}",
                ),
                Query(
                    events("neurogate_gateway_hedges_total", ON, "outcome"),
                    "hedge {{outcome}}",
                ),
            ],
            unit=EVENTS_PER_MINUTE,
        ),
        lines(
            "Tokens by worker",
            "Completion tokens a second of each worker, as it last told its gateways.",
            [Query(f"max by (worker) (neurogate_gateway_worker_tokens_per_second{{{ON}}})", "{{worker}}")],
            unit=TOKENS_PER_SECOND,
        ),
        states(
            "Alerts that fire",
            "Each alert with its severity, while it fires. The runbook says what to do.",
            [
                Query(
                    'max by (alertname, severity) (ALERTS{alertname=~"NeuroGate.*", alertstate="firing"})',
                    "{{alertname}} ({{severity}})",
                )
            ],
            values={1: State("firing", "red")},
            width=8,
            height=8,
        ),
    ]


def _load() -> list[Panel]:
    waits = f"neurogate_gateway_queue_wait_seconds_bucket{{{ON}}}"
    return [
        lines(
            "In flight and waiting",
            "Requests that gateways hold, and those of them that wait for their turn.",
            [
                Query(f"sum(neurogate_gateway_active_requests{{{ON}}})", "in flight"),
                Query(f"sum(neurogate_gateway_queued_requests{{{ON}}})", "waiting"),
            ],
            unit=COUNT,
        ),
        lines(
            "Time in the queue",
            "Of the requests that had to wait, however that ended.",
            [
                Query(f"histogram_quantile({q}, sum by (le) (rate({waits}[$__rate_interval])))", name)
                for q, name in ((0.5, "p50"), (0.95, "p95"))
            ],
            unit=SECONDS,
            limits=[Limit(10, "red")],
        ),
        lines(
            "Event loop lag, p99",
            "How much later than asked for timers run. Every token of every request waits as long.",
            [Query("instance:neurogate_event_loop_lag_seconds:p99_5m", "{{job}} {{instance}}")],
            unit=SECONDS,
            limits=[Limit(0.25, "red")],
        ),
    ]

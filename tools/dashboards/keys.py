"""Who asks for how much, and what is refused, by which limit."""

from __future__ import annotations

from board import (
    COUNT,
    EVENTS_PER_MINUTE,
    GATEWAY,
    KEY,
    REQUESTS_PER_SECOND,
    SECONDS,
    SHARE,
    TOKENS_PER_SECOND,
    Limit,
    Panel,
    Query,
    Row,
    State,
    bars,
    build,
    events,
    lines,
    states,
)
from grafana_foundation_sdk.models.dashboard import Dashboard
from overview import ON, OUTCOME_COLORS

UID = "neurogate-keys"

OF = f'{ON}, key=~"$key"'


def keys(docs: str) -> Dashboard:
    """The dashboard."""
    return build(
        UID,
        "NeuroGate / Keys and limits",
        "Who asks for how much, what is refused, and by which limit.",
        variables=[GATEWAY, KEY],
        docs=docs,
        rows=[Row("Keys", _keys()), Row("What is refused", _refused()), Row("Clients", _clients())],
    )


def _keys() -> list[Panel]:
    return [
        lines(
            "Requests by key",
            "Generation requests a second.",
            [Query(f"sum by (key) (rate(neurogate_gateway_key_requests_total{{{OF}}}[$__rate_interval]))", "{{key}}")],
            unit=REQUESTS_PER_SECOND,
            stacked=True,
        ),
        lines(
            "Tokens by key",
            "Prompt and completion tokens a second of finished requests; what limits of tokens count.",
            [Query(f"sum by (key) (rate(neurogate_gateway_key_tokens_total{{{OF}}}[$__rate_interval]))", "{{key}}")],
            unit=TOKENS_PER_SECOND,
            stacked=True,
        ),
        bars(
            "Budgets of this month",
            "Share of its tokens of this month that each key with a budget has used. At 100 % its requests are"
            " refused.",
            Query(f"max by (key) (neurogate_gateway_key_budget_used_ratio{{{OF}}})", "{{key}}"),
            unit=SHARE,
            limits=[Limit(0.75, "yellow"), Limit(0.9, "red")],
            maximum=1,
        ),
        lines(
            "Outcomes of the chosen keys",
            "Generation requests a second by how they ended.",
            [
                Query(
                    f"sum by (outcome) (rate(neurogate_gateway_key_requests_total{{{OF}}}[$__rate_interval]))",
                    "{{outcome}}",
                )
            ],
            unit=REQUESTS_PER_SECOND,
            stacked=True,
            colors=OUTCOME_COLORS,
            width=12,
        ),
        bars(
            "Keys with the most tokens",
            "Prompt and completion tokens that each key used in the time shown, the ten largest.",
            Query(
                f"topk(10, sum by (key) (increase(neurogate_gateway_key_tokens_total{{{OF}}}[$__range])))", "{{key}}"
            ),
            unit=COUNT,
            width=12,
        ),
    ]


def _refused() -> list[Panel]:
    waits = f"neurogate_gateway_queue_wait_seconds_bucket{{{ON}}}"
    return [
        lines(
            "Limits hit",
            "In the last minute: requests refused by a limit of requests or tokens a minute, requests at once,"
            " the month's budget,"
            " connections"
            " or requests of one address.",
            [Query(events("neurogate_gateway_limits_hit_total", ON, "limit"), "{{limit}}")],
            unit=EVENTS_PER_MINUTE,
        ),
        lines(
            "Shed for load",
            "In the last minute: requests refused because the queue was full, their turn did not come in time"
            " (timeout) or would not have"
            " (too_long), all workers were busy, or there was none.",
            [Query(events("neurogate_gateway_sheds_total", ON, "reason"), "{{reason}}")],
            unit=EVENTS_PER_MINUTE,
        ),
        lines(
            "Time in the queue, p95, by how it ended",
            "turn is a request that went on to a worker.",
            [Query(f"histogram_quantile(0.95, sum by (le, outcome) (rate({waits}[$__rate_interval])))", "{{outcome}}")],
            unit=SECONDS,
        ),
    ]


def _clients() -> list[Panel]:
    return [
        lines(
            "Answers by status",
            "HTTP answers a second of all paths, probes too.",
            [
                Query(
                    f"sum by (status) (rate(neurogate_gateway_requests_total{{{ON}}}[$__rate_interval]))", "{{status}}"
                )
            ],
            unit=REQUESTS_PER_SECOND,
            stacked=True,
        ),
        lines(
            "Clients that were closed",
            "In the last minute: connections without a request that could be handed on, by the status they"
            " got, and requests cancelled"
            " because their client read too slowly.",
            [
                Query(
                    events("neurogate_gateway_http_refusals_total", ON, "status"),
                    "refused: {{status}}",
                ),
                Query(events("neurogate_gateway_slow_clients_total", ON), "read too slowly"),
            ],
            unit=EVENTS_PER_MINUTE,
        ),
        states(
            "Store of shared limits",
            "Whether the Redis that gateways share their counts in answers. Without one they count each for itself.",
            [Query(f"neurogate_gateway_limit_store_up{{{ON}}}", "{{instance}}")],
            values={0: State("none", "blue"), 1: State("answers", "green")},
            width=8,
            height=8,
        ),
    ]

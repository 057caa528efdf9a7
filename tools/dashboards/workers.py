"""Each worker as gateways see it and as it sees itself, its engine, and its GPUs."""

from __future__ import annotations

from board import (
    COUNT,
    EVENTS_PER_MINUTE,
    EVENTS_PER_SECOND,
    GATEWAY,
    NODE,
    REQUESTS_PER_SECOND,
    SECONDS,
    SHARE,
    TOKENS,
    TOKENS_PER_SECOND,
    WORKER,
    Limit,
    Panel,
    Query,
    Row,
    State,
    build,
    events,
    lines,
    states,
)
from grafana_foundation_sdk.models.dashboard import Dashboard
from overview import BREAKERS, ON, WORKER_COLORS

UID = "neurogate-workers"

SEEN = f'{ON}, worker=~"$worker"'
OWN = 'instance=~"$node"'
STATES = ("ready", "resting", "half_open", "ejected", "open", "not_ready", "cordoned", "draining", "unreachable")


def workers(docs: str) -> Dashboard:
    """The dashboard."""
    return build(
        UID,
        "NeuroGate / Workers and engines",
        "Each worker as gateways see it and as it sees itself, its engine, and its GPUs.",
        variables=[GATEWAY, WORKER, NODE],
        docs=docs,
        rows=[
            Row("As gateways see them", _seen()),
            Row("As they see themselves", _own()),
            Row("Engines", _engines()),
            Row("GPUs", _gpus(), closed=True),
            Row("llama.cpp", _llamacpp(), closed=True),
            Row("Ollama", _ollama(), closed=True),
        ],
    )


def _seen() -> list[Panel]:
    code = " + ".join(
        f'{number} * max by (worker) (neurogate_worker_state{{{SEEN}, state="{state}"}})'
        for number, state in enumerate(STATES)
    )
    return [
        states(
            "State",
            "The state that a worker is in for its gateways, the worst of them: docs/ops.md has what each means.",
            [Query(code, "{{worker}}")],
            values={number: State(state, WORKER_COLORS[state]) for number, state in enumerate(STATES)},
        ),
        states(
            "Breaker",
            "closed lets requests through, open keeps them away, half-open has one probe out.",
            [Query(f"max by (worker) (neurogate_gateway_circuit_breaker_state{{{SEEN}}})", "{{worker}}")],
            values=BREAKERS,
        ),
        lines(
            "Requests held",
            "Requests that gateways have at each worker now, of all gateways together.",
            [Query(f"sum by (worker) (neurogate_gateway_worker_in_flight{{{SEEN}}})", "{{worker}}")],
            unit=COUNT,
        ),
        lines(
            "Tokens to generate",
            "Tokens that each worker still has to generate, estimated; what the balancer goes by.",
            [Query(f"max by (worker) (neurogate_gateway_worker_tokens_outstanding{{{SEEN}}})", "{{worker}}")],
            unit=TOKENS,
        ),
        lines(
            "Retries and broken streams, by the worker they left",
            "In the last minute: requests that moved away from a worker, before their first byte, or in the"
            " middle of a stream.",
            [
                Query(
                    events("neurogate_gateway_retries_total", SEEN, "worker, reason"),
                    "{{worker}} retry: {{reason}}",
                ),
                Query(
                    events("neurogate_gateway_resumes_total", SEEN, "worker, outcome"),
                    "{{worker}} stream {{outcome}}",
                ),
            ],
            unit=EVENTS_PER_MINUTE,
        ),
        lines(
            "Breakers' transitions and probes",
            "In the last minute: times breakers came into a state, and canaries that were sent while they were open.",
            [
                Query(
                    events("neurogate_gateway_circuit_breaker_transitions_total", SEEN, "worker, to"),
                    "{{worker}} to {{to}}",
                ),
                Query(
                    events("neurogate_gateway_probes_total", SEEN, "worker, outcome"),
                    "{{worker}} probe: {{outcome}}",
                ),
            ],
            unit=EVENTS_PER_MINUTE,
            width=24,
        ),
    ]


def _own() -> list[Panel]:
    first = f"neurogate_worker_time_to_first_token_seconds_bucket{{{OWN}}}"
    gaps = f"neurogate_worker_inter_token_latency_seconds_bucket{{{OWN}}}"
    return [
        lines(
            "Completion tokens",
            "Tokens generated a second by each worker process.",
            [
                Query(
                    f"sum by (instance) (rate(neurogate_worker_tokens_generated_total{{{OWN}}}[$__rate_interval]))",
                    "{{instance}}",
                )
            ],
            unit=TOKENS_PER_SECOND,
            stacked=True,
        ),
        lines(
            "Prompt tokens",
            "Tokens of prompts computed a second by each worker process.",
            [
                Query(
                    f"sum by (instance) (rate(neurogate_worker_prompt_tokens_total{{{OWN}}}[$__rate_interval]))",
                    "{{instance}}",
                )
            ],
            unit=TOKENS_PER_SECOND,
            stacked=True,
        ),
        lines(
            "Slots busy",
            "Busy slots over the slots of the engine, where it tells. At 100 % its requests wait.",
            [Query(f"worker:neurogate_slots:utilisation{{{OWN}}}", "{{instance}}")],
            unit=SHARE,
            maximum=1,
        ),
        lines(
            "Time to first token, p95",
            "From a request's arrival at the worker to its first token: the engine's queue and the prompt.",
            [
                Query(
                    f"histogram_quantile(0.95, sum by (le, instance) (rate({first}[$__rate_interval])))",
                    "{{instance}}",
                    exemplar=True,
                )
            ],
            unit=SECONDS,
        ),
        lines(
            "Time between tokens, p50 and p99",
            "The gaps between the tokens of single answers.",
            [
                Query(
                    f"histogram_quantile({q}, sum by (le, instance) (rate({gaps}[$__rate_interval])))",
                    f"{{{{instance}}}} {name}",
                )
                for q, name in ((0.5, "p50"), (0.99, "p99"))
            ],
            unit=SECONDS,
        ),
        lines(
            "Running and queued",
            "Requests that engines work on, and those that wait for a slot.",
            [
                Query(f"neurogate_worker_running{{{OWN}}}", "{{instance}} running"),
                Query(f"neurogate_worker_queued{{{OWN}}}", "{{instance}} queued"),
            ],
            unit=COUNT,
        ),
        lines(
            "KV cache in use",
            "Share of the memory for prompts and answers, where the engine tells.",
            [Query(f"neurogate_worker_kv_used_ratio{{{OWN}}}", "{{instance}}")],
            unit=SHARE,
            maximum=1,
        ),
        lines(
            "Requests by how they ended on the engine",
            "A second, of the worker processes together.",
            [
                Query(
                    f"sum by (status) (rate(neurogate_worker_engine_requests_total{{{OWN}}}[$__rate_interval]))",
                    "{{status}}",
                )
            ],
            unit=REQUESTS_PER_SECOND,
            stacked=True,
        ),
        lines(
            "Failed requests by kind",
            "In the last minute: what the engine, or the way to it, did to requests.",
            [
                Query(
                    events("neurogate_worker_engine_request_errors_total", OWN, "instance, error_type"),
                    "{{instance}} {{error_type}}",
                )
            ],
            unit=EVENTS_PER_MINUTE,
        ),
    ]


def _engines() -> list[Panel]:
    return [
        states(
            "Engine answers",
            "Whether the worker's engine answers it.",
            [Query(f"neurogate_worker_engine_connected{{{OWN}}}", "{{instance}}")],
            values={0: State("no answer", "red"), 1: State("answers", "green")},
            width=8,
            height=8,
        ),
        lines(
            "Restarts",
            "Restarts of managed engines since their workers started.",
            [Query(f"neurogate_worker_engine_restarts{{{OWN}}}", "{{instance}}")],
            unit=COUNT,
            at_least=1,
        ),
        lines(
            "Deaths by cause",
            "Deaths of managed engines' processes since their workers started.",
            [
                Query(
                    f"sum by (instance, cause) (neurogate_worker_engine_deaths_total{{{OWN}}})",
                    "{{instance}} {{cause}}",
                )
            ],
            unit=COUNT,
        ),
        lines(
            "Canaries",
            "Single tokens that workers ask of their engines to see whether they still generate, by what"
            " became of them.",
            [
                Query(
                    f"sum by (instance, outcome) (rate(neurogate_worker_canaries_total{{{OWN}}}[$__rate_interval]))",
                    "{{instance}} {{outcome}}",
                )
            ],
            unit=EVENTS_PER_SECOND,
        ),
        lines(
            "Time to a canary's token, p95",
            "How long engines take for one token on nobody's books.",
            [
                Query(
                    "histogram_quantile(0.95, sum by (le, instance) (rate("
                    f"neurogate_worker_canary_seconds_bucket{{{OWN}}}[5m])))",
                    "{{instance}}",
                )
            ],
            unit=SECONDS,
        ),
        lines(
            "Stalled requests",
            "In the last minute: requests that were cut because nothing came of them any more, by the phase"
            " they were in.",
            [
                Query(
                    events("neurogate_worker_stalls_total", OWN, "instance, phase"),
                    "{{instance}} {{phase}}",
                )
            ],
            unit=EVENTS_PER_MINUTE,
        ),
    ]


def _gpus() -> list[Panel]:
    named = "{{instance}} {{gpu}} {{name}}"
    return [
        lines(
            "Utilisation",
            "Share of time that kernels ran.",
            [Query(f"neurogate_gpu_utilization_ratio{{{OWN}}}", named)],
            unit=SHARE,
            maximum=1,
        ),
        lines(
            "Memory",
            "Memory in use.",
            [Query(f"neurogate_gpu_memory_used_bytes{{{OWN}}}", named)],
            unit="bytes",
        ),
        lines(
            "Memory in use, of what there is",
            "At 100 % the next long prompt may end the engine.",
            [Query(f"neurogate_gpu_memory_used_bytes{{{OWN}}} / neurogate_gpu_memory_total_bytes{{{OWN}}}", named)],
            unit=SHARE,
            maximum=1,
        ),
        lines("Power", "Power drawn.", [Query(f"neurogate_gpu_power_watts{{{OWN}}}", named)], unit="watt"),
        lines(
            "Temperature",
            "Of the chip.",
            [Query(f"neurogate_gpu_temperature_celsius{{{OWN}}}", named)],
            unit="celsius",
            limits=[Limit(85, "red")],
        ),
        lines(
            "Energy for a token",
            "Energy of all GPUs of a worker over the tokens it generates, and the fleet's mean of five minutes.",
            [
                Query(f"neurogate_gpu_joules_per_token{{{OWN}}}", "{{instance}}"),
                Query("fleet:neurogate_joules_per_token:rate5m", "fleet"),
            ],
            unit="joule",
        ),
    ]


def _llamacpp() -> list[Panel]:
    return [
        lines(
            "Requests",
            "Processing and deferred, as llama.cpp counts them.",
            [
                Query(f"llamacpp_requests_processing{{{OWN}}}", "{{instance}} processing"),
                Query(f"llamacpp_requests_deferred{{{OWN}}}", "{{instance}} deferred"),
            ],
            unit=COUNT,
        ),
        lines(
            "Tokens",
            "Prompt and completion tokens a second, as llama.cpp counts them.",
            [
                Query(f"rate(llamacpp_prompt_tokens_total{{{OWN}}}[$__rate_interval])", "{{instance}} prompt"),
                Query(f"rate(llamacpp_tokens_predicted_total{{{OWN}}}[$__rate_interval])", "{{instance}} completion"),
            ],
            unit=TOKENS_PER_SECOND,
        ),
        lines(
            "Slots busy for a decode",
            "Mean number of slots in one step of the engine: how well requests are batched.",
            [Query(f"llamacpp_n_busy_slots_per_decode{{{OWN}}}", "{{instance}}")],
            unit=COUNT,
        ),
    ]


def _ollama() -> list[Panel]:
    return [
        states(
            "Ollama answers",
            "Whether Ollama answers its worker.",
            [Query(f"ollama_up{{{OWN}}}", "{{instance}}")],
            values={0: State("no answer", "red"), 1: State("answers", "green")},
            width=8,
            height=8,
        ),
        lines(
            "Loaded models",
            "Memory that each loaded model takes.",
            [Query(f"ollama_model_loaded_bytes{{{OWN}}}", "{{instance}} {{model}}")],
            unit="bytes",
        ),
        lines(
            "Of that, memory of GPUs",
            "What is missing to the loaded size is computed by the CPU.",
            [Query(f"ollama_model_vram_bytes{{{OWN}}}", "{{instance}} {{model}}")],
            unit="bytes",
        ),
    ]

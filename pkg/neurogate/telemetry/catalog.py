"""Every metric of every process, declared once (ADR 0025). docs/metrics.md is made from this module.

Names that the first NeuroGate had keep their labels; their buckets may grow. Labels are bounded: `model`, `key` and
`worker` by settings, past which a value is `other`; all others by what the code can write there. A metric of a thing
that a process has not, an engine that does not tell, a machine without a GPU, is missing rather than 0.

It is one long table on purpose: whoever looks for a name, or wants to know whether there is one like it, reads one
file, and the order of its sections is that of the page.
"""

from __future__ import annotations

from collections.abc import Mapping

from neurogate.telemetry.metric import GAP_S, LONG_S, SHORT_S, CounterOf, GaugeOf, HistogramOf, Metric, Section

EVERY_PROCESS = Section("Every process", "Told by gateways and workers.")

BUILD_INFO = GaugeOf("neurogate_build_info", "1, with what this process is.", ("process", "version", "python"))
LOOP_LAG = HistogramOf(
    "neurogate_event_loop_lag_seconds",
    "How much later than asked for the event loop ran a timer, four times a second.",
    (),
    "seconds",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0),
)
LOG_LINES = CounterOf("neurogate_log_lines_total", "Lines that the process logged, by level.", ("level",))
SPANS_LOST = CounterOf(
    "neurogate_spans_lost_total", "Spans that could not be exported: the receiver is gone, or too slow."
)
CERTIFICATE_EXPIRES = GaugeOf(
    "neurogate_certificate_expires_timestamp_seconds",
    "Unix time at which the certificate in use ends.",
    ("setting",),
    "seconds",
)
CERTIFICATE_LOADS = CounterOf(
    "neurogate_certificate_loads_total",
    "Certificates that were taken into use (used), or not because they do not fit (refused).",
    ("setting", "result"),
)

LISTENERS = Section("The listeners of a gateway", "Told by gateways.")

GATEWAY_REQUESTS = CounterOf("neurogate_gateway_requests_total", "HTTP requests.", ("method", "path", "status"))
GATEWAY_DURATION = HistogramOf(
    "neurogate_gateway_request_duration_seconds",
    "Time from a request's head to the last byte of its answer.",
    ("method", "path"),
    "seconds",
    buckets=LONG_S,
)
GATEWAY_FIRST_BYTE = HistogramOf(
    "neurogate_gateway_time_to_first_byte_seconds",
    "Time from a request's head to the first byte of its answer, streamed requests only.",
    ("path",),
    "seconds",
    buckets=SHORT_S,
)
GATEWAY_ACTIVE = GaugeOf("neurogate_gateway_active_requests", "Requests in flight.")
GATEWAY_REFUSALS = CounterOf(
    "neurogate_gateway_http_refusals_total",
    "Connections closed because their client sent no request that could be handed on, or took too long.",
    ("status",),
)
GATEWAY_SLOW_CLIENTS = CounterOf(
    "neurogate_gateway_slow_clients_total", "Requests cancelled because the client read too slowly."
)
GATEWAY_LOST_LOG_LINES = CounterOf(
    "neurogate_gateway_access_log_lost_lines_total",
    "Lines of the access log lost because the disk was slow, full or gone.",
)

GENERATION = Section(
    "Generation, as a gateway sees it", "Told by gateways; the requests of every path that asks an engine, and of gRPC."
)

GATEWAY_OUTCOMES = CounterOf(
    "neurogate_gateway_outcomes_total",
    "Generation requests of HTTP and gRPC by model and by how they ended: answered, refused (the client's mistake),"
    " limited, shed (refused for load), failed (for want of a worker as well), broken (after its first byte),"
    " client_gone.",
    ("model", "outcome"),
)
GATEWAY_TTFT = HistogramOf(
    "neurogate_gateway_time_to_first_token_seconds",
    "Time from a request's head to its first token, queue included, streamed requests only.",
    ("model",),
    "seconds",
    buckets=SHORT_S,
)
GATEWAY_TPOT = HistogramOf(
    "neurogate_gateway_time_per_output_token_seconds",
    "Mean time between the tokens of one answer, streamed requests only.",
    ("model",),
    "seconds",
    buckets=GAP_S,
)
GATEWAY_E2E = HistogramOf(
    "neurogate_gateway_end_to_end_seconds",
    "Time from a request's head to the last byte of its answer, answered generation requests only.",
    ("model",),
    "seconds",
    buckets=LONG_S,
)
GATEWAY_TOKENS = CounterOf(
    "neurogate_gateway_tokens_total", "Tokens of finished requests: prompt, completion.", ("kind",), "tokens"
)
GATEWAY_MODEL_TOKENS = CounterOf(
    "neurogate_gateway_model_tokens_total",
    "The same by model: prompt, completion, cached (of the prompt's).",
    ("model", "kind"),
    "tokens",
)
GATEWAY_BROKEN = CounterOf(
    "neurogate_gateway_broken_streams_total", "Streams that ended with an error event after their first byte."
)

WAITING = Section(
    "Who waits at a gateway, and who is refused", "Told by gateways. Without keys there is no series by key."
)

GATEWAY_QUEUED = GaugeOf("neurogate_gateway_queued_requests", "Requests that wait for their turn.")
GATEWAY_QUEUE_WAIT = HistogramOf(
    "neurogate_gateway_queue_wait_seconds",
    "Time in the queue of requests that had to wait, by how it ended: turn, timeout, left, full or too_long.",
    ("outcome",),
    "seconds",
    buckets=LONG_S,
)
GATEWAY_SHEDS = CounterOf(
    "neurogate_gateway_sheds_total",
    "Requests that nobody took: full, timeout, too_long (queue) or busy for load; none where there is no worker, which"
    " is a failure among outcomes.",
    ("reason",),
)
GATEWAY_LIMITS_HIT = CounterOf(
    "neurogate_gateway_limits_hit_total",
    "Requests refused by a limit: requests, tokens, concurrent, budget, address, connections.",
    ("limit",),
)
GATEWAY_LIMIT_STORE = GaugeOf(
    "neurogate_gateway_limit_store_up", "Whether the Redis that limits are shared in answers; 0 without one."
)
GATEWAY_KEY_REQUESTS = CounterOf(
    "neurogate_gateway_key_requests_total", "Generation requests by key and by how they ended.", ("key", "outcome")
)
GATEWAY_KEY_TOKENS = CounterOf(
    "neurogate_gateway_key_tokens_total", "Tokens by key: prompt, completion.", ("key", "kind"), "tokens"
)
GATEWAY_KEY_BUDGET = GaugeOf(
    "neurogate_gateway_key_budget_used_ratio",
    "Share of its tokens of this month that a key with a budget has used.",
    ("key",),
    "ratio",
)

FLEET = Section(
    "The fleet, as a gateway sees it",
    "Told by gateways. The series of a worker go with it; those that only count stay for a while.",
)

GATEWAY_BREAKERS = GaugeOf("neurogate_gateway_circuit_breaker_state", "0 closed, 1 open, 2 half-open.", ("worker",))
GATEWAY_BREAKER_TRANSITIONS = CounterOf(
    "neurogate_gateway_circuit_breaker_transitions_total",
    "Times a breaker came into a state: closed, open, half-open.",
    ("worker", "to"),
)
GATEWAY_PROBES = CounterOf(
    "neurogate_gateway_probes_total",
    "Canaries sent to workers whose breakers were open, by outcome: success, failure or ignored.",
    ("worker", "outcome"),
)
GATEWAY_RETRIES = CounterOf(
    "neurogate_gateway_retries_total",
    "Requests that moved to another worker before their first byte.",
    ("worker", "reason"),
)
GATEWAY_RETRY_BUDGET = GaugeOf(
    "neurogate_gateway_retry_budget", "Retries after an engine's failure that could be made now."
)
GATEWAY_RESUMES = CounterOf(
    "neurogate_gateway_resumes_total",
    "Streams that broke on this worker after their first byte: resumed on another one, or refused.",
    ("worker", "outcome"),
)
GATEWAY_HEDGES = CounterOf(
    "neurogate_gateway_hedges_total",
    "Second attempts beside one on this worker, whose first token was late: asked, and those that won.",
    ("worker", "outcome"),
)
WORKER_STATE = GaugeOf(
    "neurogate_worker_state", "1 for the state that the worker is in, 0 for the others.", ("worker", "state")
)
GATEWAY_WORKER_LINKED = GaugeOf("neurogate_gateway_worker_linked", "1 while the worker's link is up.", ("worker",))
GATEWAY_WORKER_IN_FLIGHT = GaugeOf(
    "neurogate_gateway_worker_in_flight", "Requests of this gateway that the worker holds.", ("worker",)
)
GATEWAY_WORKER_RUNNING = GaugeOf(
    "neurogate_gateway_worker_running", "Requests that the worker's engine works on, as it last told.", ("worker",)
)
GATEWAY_WORKER_QUEUED = GaugeOf(
    "neurogate_gateway_worker_queued", "Requests that wait for a slot at the worker, as it last told.", ("worker",)
)
GATEWAY_WORKER_SLOTS = GaugeOf(
    "neurogate_gateway_worker_slots", "Slots of the worker's engine; 0 when it does not tell.", ("worker",)
)
GATEWAY_WORKER_SLOTS_BUSY = GaugeOf("neurogate_gateway_worker_slots_busy", "Of those, how many are busy.", ("worker",))
GATEWAY_WORKER_KV = GaugeOf(
    "neurogate_gateway_worker_kv_used_ratio", "Share of the KV cache in use, where it tells.", ("worker",), "ratio"
)
GATEWAY_WORKER_TPS = GaugeOf(
    "neurogate_gateway_worker_tokens_per_second",
    "Completion tokens a second of all requests of the worker, as it last told.",
    ("worker",),
)
GATEWAY_WORKER_OUTSTANDING = GaugeOf(
    "neurogate_gateway_worker_tokens_outstanding",
    "Tokens that the worker still has to generate, estimated.",
    ("worker",),
    "tokens",
)
GATEWAY_WORKER_RESTARTS = GaugeOf(
    "neurogate_gateway_worker_engine_restarts", "Restarts of the worker's managed engine.", ("worker",)
)
GATEWAY_WORKERS = GaugeOf("neurogate_gateway_workers", "Workers by state; every state is told.", ("state",))
GATEWAY_MODEL_WORKERS = GaugeOf(
    "neurogate_gateway_model_workers", "Workers that can be asked for the model now.", ("model",)
)
GATEWAY_MODEL_TPS = GaugeOf(
    "neurogate_gateway_model_tokens_per_second",
    "Completion tokens a second of the workers that have the model as their first.",
    ("model",),
)

INSIDE = Section("Inside a gateway", "Told by gateways.")

GATEWAY_LINK_FRAMES = CounterOf(
    "neurogate_gateway_link_frames_total", "Frames of all links: sent, received.", ("direction",)
)
GATEWAY_LINK_ITEMS = CounterOf(
    "neurogate_gateway_link_items_total",
    "What they carried: requests, cancels and body parts sent; chunks and ends received.",
    ("direction",),
)
GATEWAY_SOURCE_UP = GaugeOf(
    "neurogate_gateway_discovery_up",
    "1 while the source of workers answers; 0 while those found before stay.",
    ("source",),
)
GATEWAY_SOURCE_WORKERS = GaugeOf(
    "neurogate_gateway_discovery_workers", "Workers in the source's last answer.", ("source",)
)
GATEWAY_SOURCE_ANSWERS = CounterOf(
    "neurogate_gateway_discovery_answers_total",
    "Answers of a source of workers by outcome: found, failed.",
    ("source", "outcome"),
)
GATEWAY_CONFIG_RELOADS = CounterOf(
    "neurogate_gateway_config_reloads_total",
    "Times the configuration was read again, by result: ok or invalid.",
    ("result",),
)

WORKER = Section("A worker", "Told by workers.")

WORKER_DURATION = HistogramOf(
    "neurogate_worker_inference_duration_seconds",
    "Time from a request's arrival to its last token.",
    ("model",),
    "seconds",
    buckets=(0.5, 1, 2, 5, 10, 30, 60, 120, 300),
)
WORKER_TTFT = HistogramOf(
    "neurogate_worker_time_to_first_token_seconds",
    "Time from a request's arrival to its first token, streamed requests only.",
    ("model",),
    "seconds",
    buckets=SHORT_S,
)
WORKER_ITL = HistogramOf(
    "neurogate_worker_inter_token_latency_seconds",
    "Time between the tokens of one request, streamed requests only.",
    ("model",),
    "seconds",
    buckets=GAP_S,
)
WORKER_TOKENS = CounterOf("neurogate_worker_tokens_generated_total", "Completion tokens.", ("model",), "tokens")
WORKER_PROMPT_TOKENS = CounterOf("neurogate_worker_prompt_tokens_total", "Prompt tokens.", ("model",), "tokens")
WORKER_TPS = GaugeOf(
    "neurogate_worker_tokens_per_second",
    "Completion tokens a second of all requests together, while any is active.",
    ("model",),
)
WORKER_PROMPT_TPS = GaugeOf("neurogate_worker_prompt_tokens_per_second", "The same of prompt tokens.", ("model",))
WORKER_REQUESTS = CounterOf(
    "neurogate_worker_engine_requests_total", "Requests by how they ended on the engine.", ("model", "status")
)
WORKER_ERRORS = CounterOf(
    "neurogate_worker_engine_request_errors_total", "Failed requests by kind of failure.", ("model", "error_type")
)
WORKER_CONTINUED = CounterOf(
    "neurogate_worker_continued_total", "Answers of other workers that were continued here.", ("model",)
)
WORKER_ACTIVE = GaugeOf("neurogate_worker_active_inferences", "Requests held now.")
WORKER_LOAD = GaugeOf(
    "neurogate_worker_load", "Requests held over slots; 0 where the slots are not known.", (), "ratio"
)
WORKER_RUNNING = GaugeOf("neurogate_worker_running", "Requests that the engine works on.")
WORKER_QUEUED = GaugeOf("neurogate_worker_queued", "Requests that wait for a slot.")
WORKER_SLOTS = GaugeOf("neurogate_worker_slots", "The engine's slots; 0 when it does not tell.")
WORKER_SLOTS_BUSY = GaugeOf("neurogate_worker_slots_busy", "Of those, how many are busy.")
WORKER_KV = GaugeOf(
    "neurogate_worker_kv_used_ratio", "Share of the KV cache in use, where the engine tells.", (), "ratio"
)
WORKER_OUTSTANDING = GaugeOf(
    "neurogate_worker_tokens_outstanding", "Tokens still to be generated, estimated.", (), "tokens"
)
WORKER_LINKS = GaugeOf("neurogate_worker_links", "Gateways linked.")
WORKER_DRAINING = GaugeOf("neurogate_worker_draining", "1 while it drains.")
WORKER_CANARIES = CounterOf(
    "neurogate_worker_canaries_total",
    "Tokens asked of the engine to see whether it still generates, by what became of it: alive, hung, failed, refused.",
    ("outcome",),
)
WORKER_CANARY_SECONDS = HistogramOf(
    "neurogate_worker_canary_seconds", "Time until a canary's token, where it came.", (), "seconds", buckets=SHORT_S
)
WORKER_STALLS = CounterOf(
    "neurogate_worker_stalls_total",
    "Requests that were cut because nothing came of them any more, by phase: queue, prefill, decode.",
    ("phase",),
)

ENGINE = Section("The engine of a worker", "Told by workers.")

ENGINE_CONNECTED = GaugeOf("neurogate_worker_engine_connected", "1 while the engine answers.")
ENGINE_INFO = GaugeOf("neurogate_worker_engine_info", "1, with what the engine is.", ("kind", "version"))
ENGINE_MODEL_INFO = GaugeOf(
    "neurogate_worker_model_info",
    "1 for each model that the engine has; loaded is yes or no.",
    ("model", "loaded", "quantization"),
)
ENGINE_RESTARTS = GaugeOf("neurogate_worker_engine_restarts", "Restarts of a managed engine.")
ENGINE_DEATHS = CounterOf(
    "neurogate_worker_engine_deaths_total",
    "Deaths of a managed engine's process by cause: exit, signal, out of memory, hung, loading.",
    ("cause",),
)

OLLAMA = Section(
    "Ollama",
    "Told by workers whose engine is an Ollama, which has no metrics of its own: made of its API's answers.",
)

OLLAMA_UP = GaugeOf("ollama_up", "1 while Ollama answers.")
OLLAMA_CONNECTED = GaugeOf("ollama_connected", "The same, under the name that the first NeuroGate had for it.")
OLLAMA_INFO = GaugeOf("ollama_info", "1, with Ollama's version.", ("version",))
OLLAMA_MODEL_INSTALLED = GaugeOf("ollama_model_installed_bytes", "Size of each installed model.", ("model",), "bytes")
OLLAMA_MODEL_LOADED = GaugeOf(
    "ollama_model_loaded_bytes", "Memory that each loaded model takes, in all.", ("model",), "bytes"
)
OLLAMA_MODEL_VRAM = GaugeOf("ollama_model_vram_bytes", "Of that, memory of GPUs.", ("model",), "bytes")
OLLAMA_MODEL_EXPIRES = GaugeOf(
    "ollama_model_expires_timestamp_seconds",
    "Unix time at which a loaded model is unloaded unless it is asked again.",
    ("model",),
    "seconds",
)
OLLAMA_REQUESTS = CounterOf("ollama_requests_total", "Requests of this worker by how they ended.", ("model", "status"))
OLLAMA_ERRORS = CounterOf(
    "ollama_request_errors_total", "Failed requests of this worker by kind of failure.", ("model", "error_type")
)
OLLAMA_PROMPT_TOKENS = CounterOf("ollama_prompt_tokens_total", "Prompt tokens.", ("model",), "tokens")
OLLAMA_TOKENS = CounterOf("ollama_completion_tokens_total", "Completion tokens.", ("model",), "tokens")

GPUS = Section(
    "NVIDIA GPUs of a worker",
    "Told by workers on machines with NVIDIA GPUs and their driver, of all that there are, whoever uses them.",
)

GPU_UTILIZATION = GaugeOf(
    "neurogate_gpu_utilization_ratio", "Share of time that kernels ran.", ("gpu", "name"), "ratio"
)
GPU_MEMORY_USED = GaugeOf("neurogate_gpu_memory_used_bytes", "Memory in use.", ("gpu", "name"), "bytes")
GPU_MEMORY_TOTAL = GaugeOf("neurogate_gpu_memory_total_bytes", "Memory there is.", ("gpu", "name"), "bytes")
GPU_POWER = GaugeOf("neurogate_gpu_power_watts", "Power drawn.", ("gpu", "name"), "watts")
GPU_TEMPERATURE = GaugeOf("neurogate_gpu_temperature_celsius", "Temperature of the chip.", ("gpu", "name"), "celsius")
GPU_ENERGY = CounterOf(
    "neurogate_gpu_energy_joules_total", "Energy used since the worker started.", ("gpu", "name"), "joules"
)
GPU_JOULES_PER_TOKEN = GaugeOf(
    "neurogate_gpu_joules_per_token",
    "Energy of all GPUs over the tokens generated in the last minute, while any are.",
    (),
    "joules",
)


def every() -> tuple[Metric, ...]:
    """All of them, in the order of this module."""
    return tuple(value for value in globals().values() if isinstance(value, Metric))


def sections() -> Mapping[Section, tuple[Metric, ...]]:
    """The same under their headings."""
    found: dict[Section, list[Metric]] = {}
    for value in globals().values():
        if isinstance(value, Section):
            found[value] = []
        elif isinstance(value, Metric):
            found[next(reversed(found))].append(value)
    return {section: tuple(metrics) for section, metrics in found.items()}

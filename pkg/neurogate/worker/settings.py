"""Settings of a worker process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

from neurogate.config import Bundle, Listener, Problem, env, shared_ports
from neurogate.edge.admin_keys import weak
from neurogate.engines.engine import MAX_ANSWER_BYTES
from neurogate.engines.settings import EngineSettings, SimSettings
from neurogate.errors import ConfigError
from neurogate.models.settings import ModelSettings
from neurogate.telemetry.metric_settings import MetricSettings
from neurogate.telemetry.settings import LogFileSettings, TraceSettings, trace_problems
from neurogate.tls.settings import LinkTlsSettings


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Ports, limits and logging of one worker; its engine has settings of its own."""

    worker_id: Annotated[str, env("NEUROGATE_WORKER_ID", "Name in logs and status; empty takes host:port.")] = ""
    host: Annotated[str, env("NEUROGATE_WORKER_HOST", "Address both ports listen on.")] = "0.0.0.0"
    grpc_port: Annotated[int, env("GRPC_PORT", "gRPC port: link, health, reflection.", ge=0, le=65535)] = 50051
    metrics_port: Annotated[
        int, env("METRICS_PORT", "Ops port: /metrics, /telemetry, /vitals, /health, /ready.", ge=0, le=65535)
    ] = 9090
    max_requests: Annotated[
        int, env("NEUROGATE_WORKER_MAX_REQUESTS", "Requests held at once; more are refused as busy.", ge=1)
    ] = 1024
    max_body_bytes: Annotated[
        int, env("NEUROGATE_MAX_BODY_BYTES", "Largest request body accepted, in bytes.", ge=1024)
    ] = 10 * 1024 * 1024
    grpc_max_message_bytes: Annotated[
        int,
        env(
            "NEUROGATE_GRPC_MAX_MESSAGE_BYTES", "Largest gRPC message taken from a gateway or another client.", ge=1024
        ),
    ] = 26 * 1024 * 1024
    max_answer_bytes: Annotated[
        int, env("NEUROGATE_MAX_ANSWER_BYTES", "Largest unstreamed answer held for a client, in bytes.", ge=65536)
    ] = MAX_ANSWER_BYTES
    request_timeout_s: Annotated[
        float,
        env("NEUROGATE_REQUEST_TIMEOUT_S", "Seconds a plain gRPC request without a deadline may take in all.", gt=0),
    ] = 300.0
    outbox_bytes: Annotated[
        int, env("NEUROGATE_LINK_OUTBOX_BYTES", "Bytes queued to one gateway before engines are paused.", ge=65536)
    ] = 8 * 1024 * 1024
    linger_ms: Annotated[
        float,
        env("NEUROGATE_LINK_LINGER_MS", "Longest time a busy link gathers tokens for a frame, in ms.", ge=0, le=50),
    ] = 1.0
    stats_interval_s: Annotated[
        float, env("NEUROGATE_STATS_INTERVAL_S", "Seconds between reports to each gateway.", gt=0, le=1)
    ] = 1.0
    drain_timeout_s: Annotated[
        float, env("NEUROGATE_DRAIN_TIMEOUT_S", "Seconds in-flight requests may take to finish on SIGTERM.", ge=0)
    ] = 30.0
    canary_interval_s: Annotated[
        float,
        env(
            "NEUROGATE_CANARY_INTERVAL_S",
            "Seconds without a sign of life until the engine is asked for a token; 0 asks only when it is suspected.",
            ge=0,
        ),
    ] = 5.0
    canary_timeout_s: Annotated[
        float,
        env(
            "NEUROGATE_CANARY_TIMEOUT_S",
            "Seconds within which it must give that token; more where canaries take long, or behind prompts.",
            gt=0,
        ),
    ] = 4.0
    stall_prefill_s: Annotated[
        float,
        env(
            "NEUROGATE_STALL_PREFILL_S",
            "Seconds a request may wait for its first token while the engine shows no progress, or what a step of a"
            " prompt takes if that is longer; 0 is for ever.",
            ge=0,
        ),
    ] = 60.0
    stall_decode_s: Annotated[
        float,
        env(
            "NEUROGATE_STALL_DECODE_S",
            "Seconds a stream may be silent after a token before it is handed to another worker; 0 is for ever.",
            ge=0,
        ),
    ] = 15.0
    drain_delay_s: Annotated[
        float,
        env(
            "NEUROGATE_DRAIN_DELAY_S",
            "Seconds after SIGTERM in which requests are taken although gateways were told to send none.",
            ge=0,
        ),
    ] = 0.5
    admin_key: Annotated[
        tuple[str, ...],
        env(
            "NEUROGATE_ADMIN_KEY",
            "Comma-separated keys of `POST /drain` on the ops port, or `id:sha256$` and the digest of each; none turns"
            " it off.",
            secret=True,
        ),
    ] = ()
    log_level: Annotated[Literal["debug", "info", "warn", "error"], env("LOG_LEVEL", "Least severe level logged.")] = (
        "info"
    )
    log_format: Annotated[Literal["text", "json"], env("LOG_FORMAT", "text or json.")] = "text"
    worker_type: Annotated[
        str,
        env(
            "WORKER_TYPE", "TYPE in the directory of a managed engine's log, llama-TYPE; empty takes the model's name."
        ),
    ] = ""


class WorkerConfig(Bundle, frozen=True, kw_only=True):
    """All of a worker's settings: each field is a section of the configuration file."""

    worker: WorkerSettings = WorkerSettings()
    link_tls: LinkTlsSettings = LinkTlsSettings()
    engine: EngineSettings = EngineSettings()
    sim: SimSettings = SimSettings()
    models: ModelSettings = ModelSettings()
    logs: LogFileSettings = LogFileSettings()
    metrics: MetricSettings = MetricSettings()
    tracing: TraceSettings = TraceSettings()

    def problems(self) -> Iterable[Problem]:
        """An engine that lacks what it needs, traces that go nowhere, and listeners that want the same port."""
        yield from trace_problems(self.tracing, "tracing")
        try:
            _ = self.engine.kind
        except ConfigError as error:
            yield Problem(("engine.engine",), str(error))
        yield from (Problem(("worker.admin_key",), text) for text in weak(self.worker.admin_key))
        host = self.worker.host
        yield from shared_ports(
            [
                Listener("worker.grpc_port", host, self.worker.grpc_port),
                Listener("worker.metrics_port", host, self.worker.metrics_port),
                Listener("engine.port", "127.0.0.1", self.engine.port),
            ]
        )

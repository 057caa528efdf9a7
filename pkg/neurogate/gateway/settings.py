"""Settings of a gateway process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

from neurogate.config import Bundle, Listener, Problem, env, shared_ports
from neurogate.discovery.addresses import wrong
from neurogate.discovery.settings import DiscoverySettings
from neurogate.discovery.settings import problems as discovery_problems
from neurogate.edge.admin_keys import weak
from neurogate.edge.settings import (
    AccessLogSettings,
    AdmissionSettings,
    KeySettings,
    LimitSettings,
    ModelRouteSettings,
    PublicGrpcSettings,
    TlsSettings,
)
from neurogate.gateway.live.settings import LiveSettings
from neurogate.gateway.resilience_settings import ResilienceSettings
from neurogate.httpd import origins
from neurogate.httpd.settings import HttpSettings
from neurogate.telemetry.metric_settings import MetricSettings
from neurogate.telemetry.settings import LogFileSettings, TraceSettings, trace_problems
from neurogate.tls.settings import LinkTlsSettings


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Listeners, workers, limits and policies of one gateway."""

    host: Annotated[str, env("NEUROGATE_HOST", "Address the HTTP and ops ports listen on.")] = "0.0.0.0"
    http_port: Annotated[int, env("HTTP_PORT", "HTTP API port.", ge=0, le=65535)] = 8080
    metrics_port: Annotated[
        int,
        env("METRICS_PORT", "Ops port: /metrics, /telemetry, /vitals, /health, /ready, /dashboard.", ge=0, le=65535),
    ] = 9091
    worker_addresses: Annotated[
        tuple[str, ...],
        env("WORKER_ADDRESSES", "Comma-separated host:port of the workers.", reloads=True, min_length=1),
    ] = ("localhost:50051",)
    balancer: Annotated[
        Literal["round_robin", "least_requests"],
        env("NEUROGATE_BALANCER", "round_robin or least_requests.", reloads=True),
    ] = "round_robin"
    max_body_bytes: Annotated[
        int, env("NEUROGATE_MAX_BODY_BYTES", "Largest request body accepted, in bytes.", reloads=True, ge=1024)
    ] = 10 * 1024 * 1024
    max_bodies_bytes: Annotated[
        int,
        env(
            "NEUROGATE_MAX_BODIES_BYTES",
            "Request bodies held at once, of all requests, in bytes.",
            reloads=True,
            ge=1024,
        ),
    ] = 256 * 1024 * 1024
    body_timeout_s: Annotated[
        float, env("NEUROGATE_BODY_TIMEOUT_S", "Seconds a client may take to send its body.", reloads=True, gt=0)
    ] = 30.0
    max_answer_bytes: Annotated[
        int,
        env(
            "NEUROGATE_MAX_ANSWER_BYTES",
            "Largest unstreamed answer held for a client, in bytes.",
            reloads=True,
            ge=65536,
        ),
    ] = 64 * 1024 * 1024
    stream_buffer_bytes: Annotated[
        int,
        env(
            "NEUROGATE_STREAM_BUFFER_BYTES",
            "Bytes held for a slow client before its request is cancelled.",
            reloads=True,
            ge=0,
        ),
    ] = 1024 * 1024
    request_timeout_s: Annotated[
        float,
        env("NEUROGATE_REQUEST_TIMEOUT_S", "Seconds a request may take in all, queueing included.", reloads=True, gt=0),
    ] = 300.0
    failfast_s: Annotated[
        float,
        env(
            "NEUROGATE_FAILFAST_S", "Seconds a request waits for any usable worker before its 503.", reloads=True, ge=0
        ),
    ] = 2.0
    max_waiting: Annotated[
        int, env("NEUROGATE_MAX_WAITING", "Requests that may wait for a usable worker at once.", reloads=True, ge=0)
    ] = 1024
    retries: Annotated[
        int, env("NEUROGATE_RETRIES", "Other workers tried before the first byte.", reloads=True, ge=0, le=10)
    ] = 2
    retry_budget: Annotated[
        float,
        env(
            "NEUROGATE_RETRY_BUDGET",
            "Retries after an engine's failure, as a share of requests.",
            reloads=True,
            ge=0,
            le=1,
        ),
    ] = 0.2
    breaker_failures: Annotated[
        int, env("NEUROGATE_BREAKER_FAILURES", "Consecutive failures that open a worker's breaker.", reloads=True, ge=1)
    ] = 3
    breaker_reset_s: Annotated[
        float, env("NEUROGATE_BREAKER_RESET_S", "Seconds a breaker stays open before one probe.", reloads=True, gt=0)
    ] = 30.0
    link_silence_s: Annotated[
        float, env("NEUROGATE_LINK_SILENCE_S", "Seconds without a frame after which a worker counts as hung.", gt=0)
    ] = 3.0
    drain_timeout_s: Annotated[
        float,
        env(
            "NEUROGATE_DRAIN_TIMEOUT_S", "Seconds in-flight requests may take to finish on SIGTERM.", reloads=True, ge=0
        ),
    ] = 30.0
    drain_delay_s: Annotated[
        float,
        env(
            "NEUROGATE_DRAIN_DELAY_S",
            "Seconds after SIGTERM in which requests are taken although `/ready` is 503, for load balancers to look.",
            ge=0,
        ),
    ] = 1.0
    takeover_socket: Annotated[
        str,
        env(
            "NEUROGATE_TAKEOVER_SOCKET",
            "Path of a Unix socket by which a gateway that starts takes the ports over from this one (Linux); "
            "empty is off.",
        ),
    ] = ""
    log_level: Annotated[
        Literal["debug", "info", "warn", "error"], env("LOG_LEVEL", "Least severe level logged.", reloads=True)
    ] = "info"
    log_format: Annotated[Literal["text", "json"], env("LOG_FORMAT", "text or json.")] = "text"
    config_poll_s: Annotated[
        float,
        env(
            "NEUROGATE_CONFIG_POLL_S",
            "Seconds between looks at whether the configuration file has changed.",
            reloads=True,
            gt=0,
        ),
    ] = 10.0


class AdminSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Who may change a running gateway."""

    admin_key: Annotated[
        tuple[str, ...],
        env(
            "NEUROGATE_ADMIN_KEY",
            "Comma-separated keys of the admin API, or `id:sha256$` and the digest of each; none turns it off.",
            reloads=True,
            secret=True,
        ),
    ] = ()


class GatewayConfig(Bundle, frozen=True, kw_only=True):
    """All of a gateway's settings: each field is a section of the configuration file."""

    gateway: GatewaySettings = GatewaySettings()
    discovery: DiscoverySettings = DiscoverySettings()
    resilience: ResilienceSettings = ResilienceSettings()
    keys: KeySettings = KeySettings()
    limits: LimitSettings = LimitSettings()
    admission: AdmissionSettings = AdmissionSettings()
    models: ModelRouteSettings = ModelRouteSettings()
    tls: TlsSettings = TlsSettings()
    link_tls: LinkTlsSettings = LinkTlsSettings()
    grpc: PublicGrpcSettings = PublicGrpcSettings()
    access_log: AccessLogSettings = AccessLogSettings()
    http: HttpSettings = HttpSettings()
    logs: LogFileSettings = LogFileSettings()
    metrics: MetricSettings = MetricSettings()
    tracing: TraceSettings = TraceSettings()
    admin: AdminSettings = AdminSettings()
    live: LiveSettings = LiveSettings()

    def problems(self) -> Iterable[Problem]:
        """Addresses, sources, keys and origins that are none, TLS that lacks a part, listeners that want one port."""
        yield from (Problem(("gateway.worker_addresses",), text) for text in wrong(self.gateway.worker_addresses))
        yield from discovery_problems(self.discovery)
        yield from trace_problems(self.tracing, "tracing")
        yield from (Problem(("admin.admin_key",), text) for text in weak(self.admin.admin_key))
        yield from (Problem(("http.cors_origins",), text) for text in origins.wrong(self.http.cors_origins))
        if self.tls.https_port >= 0 and not (self.tls.cert or self.tls.key):
            yield Problem(
                ("tls.https_port",), "HTTPS needs a certificate; set NEUROGATE_TLS_CERT and NEUROGATE_TLS_KEY"
            )
        if self.link_tls.name and not self.link_tls.ca:
            yield Problem(("link_tls.name",), "is compared only where NEUROGATE_LINK_TLS_CA says who signs workers")
        host = self.gateway.host
        yield from shared_ports(
            [
                Listener("gateway.http_port", host, self.gateway.http_port),
                Listener("gateway.metrics_port", host, self.gateway.metrics_port),
                Listener("http.health_port", host, self.http.health_port),
                Listener("grpc.grpc_port", host, self.grpc.grpc_port),
                *(
                    (
                        Listener("tls.https_port", host, self.tls.https_port),
                        Listener("grpc.grpc_tls_port", host, self.grpc.grpc_tls_port),
                    )
                    if self.tls.cert
                    else ()
                ),
            ]
        )

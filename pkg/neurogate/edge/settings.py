"""Settings of the edge: one struct a concern, each a section of the configuration file."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from neurogate.config import env


class KeySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Who may call."""

    api_keys: Annotated[
        tuple[str, ...], env("API_KEYS", "Comma-separated bearer keys; none turns authentication off.")
    ] = ()


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What each key may use, where its line in the key file says nothing else."""

    requests_per_minute: Annotated[
        int, env("NEUROGATE_REQUESTS_PER_MINUTE", "Requests a minute of each key; 0 is unlimited.", ge=0)
    ] = 0
    redis_url: Annotated[
        str, env("REDIS_URL", "Redis that several gateways count in, as redis://host:port/db; empty counts here.")
    ] = ""


class AdmissionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests are in flight, and who waits."""

    max_concurrent: Annotated[
        int,
        env(
            "NEUROGATE_MAX_CONCURRENT",
            "Requests in flight at once; others queue. -1 takes what the workers' slots allow, 0 is unlimited.",
            ge=-1,
        ),
    ] = -1


class ModelRouteSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What clients may call models."""

    default_model: Annotated[
        str, env("DEFAULT_MODEL", "Model of a request that names none; empty lets the worker's engine choose.")
    ] = ""
    model_aliases: Annotated[
        tuple[str, ...],
        env("NEUROGATE_MODEL_ALIASES", "Comma-separated alias=model: other names that clients may use."),
    ] = ()


class TlsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Certificates of the listeners, and of the way to the workers."""

    cert: Annotated[str, env("NEUROGATE_TLS_CERT", "Certificate chain (PEM) of HTTPS and gRPC TLS; empty is off.")] = ""
    key: Annotated[str, env("NEUROGATE_TLS_KEY", "Private key (PEM) of that certificate.")] = ""


class PublicGrpcSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The public gRPC listener."""

    grpc_port: Annotated[int, env("NEUROGATE_GRPC_PORT", "Public gRPC port; -1 is off.", ge=-1, le=65535)] = 8002


class AccessLogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The record of who asked what."""

    access_log: Annotated[str, env("NEUROGATE_ACCESS_LOG", "File of the access log; - is standard output.")] = ""
    access_log_format: Annotated[
        Literal["text", "json"], env("NEUROGATE_ACCESS_LOG_FORMAT", "text or json (one object a line).")
    ] = "text"

"""Settings of the edge: one struct a concern, each a section of the configuration file."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from neurogate.config import env


class KeySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Who may call."""

    api_keys: Annotated[
        tuple[str, ...],
        env(
            "API_KEYS",
            "Comma-separated bearer keys, or `sha256$` and the digest of each; their ids are key-1, key-2 and so on.",
            reloads=True,
        ),
    ] = ()
    keys_file: Annotated[
        str,
        env(
            "AUTH_KEYS_FILE",
            "File of keys, `key_id:api_key[:rate_limit][:expiry]` a line; see docs/keys.md.",
            reloads=True,
        ),
    ] = ""
    auth_enabled: Annotated[
        Literal["auto"] | bool,
        env("AUTH_ENABLED", "true, false, or auto: as soon as API_KEYS or AUTH_KEYS_FILE is set.", reloads=True),
    ] = "auto"
    workers_auth: Annotated[
        bool, env("WORKERS_AUTH", "Whether GET /workers needs a key too: it tells the workers' addresses.")
    ] = False
    keys_poll_s: Annotated[
        float,
        env(
            "NEUROGATE_KEYS_POLL_S",
            "Seconds between looks at whether the file of keys has changed.",
            reloads=True,
            gt=0,
        ),
    ] = 10.0

    def __repr__(self) -> str:
        return f"KeySettings({len(self.api_keys)} keys, keys_file={self.keys_file!r}, auth_enabled={self.auth_enabled})"


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What each key may use, where its line in the key file says nothing else; and each client address, for abuse."""

    requests_per_minute: Annotated[
        int, env("NEUROGATE_REQUESTS_PER_MINUTE", "Requests a minute of each key; 0 is unlimited.", reloads=True, ge=0)
    ] = 0
    tokens_per_minute: Annotated[
        int,
        env(
            "NEUROGATE_TOKENS_PER_MINUTE",
            "Prompt and answer tokens a minute of each key; 0 is unlimited.",
            reloads=True,
            ge=0,
        ),
    ] = 0
    concurrent_per_key: Annotated[
        int, env("NEUROGATE_CONCURRENT_PER_KEY", "Requests in flight of each key; 0 is unlimited.", reloads=True, ge=0)
    ] = 0
    tokens_per_month: Annotated[
        int,
        env(
            "NEUROGATE_TOKENS_PER_MONTH",
            "Prompt and answer tokens a calendar month (UTC) of each key; 0 is unlimited.",
            reloads=True,
            ge=0,
        ),
    ] = 0
    expected_answer_tokens: Annotated[
        int,
        env(
            "NEUROGATE_EXPECTED_ANSWER_TOKENS",
            "Answer tokens reserved for a request that names no maximum, until it ends and the truth is known.",
            reloads=True,
            ge=0,
        ),
    ] = 256
    redis_url: Annotated[
        str,
        env(
            "REDIS_URL",
            "Redis that several gateways count in, as redis://, rediss:// or unix://; empty counts in memory.",
        ),
    ] = ""
    redis_fail: Annotated[
        Literal["open", "closed"],
        env("NEUROGATE_REDIS_FAIL", "Redis is down: open counts in memory meanwhile, closed answers 503."),
    ] = "open"
    redis_timeout_s: Annotated[
        float, env("NEUROGATE_REDIS_TIMEOUT_S", "Seconds a request waits for Redis before it counts as down.", gt=0)
    ] = 0.1
    redis_retry_s: Annotated[
        float, env("NEUROGATE_REDIS_RETRY_S", "Seconds between attempts to reach a Redis that is down.", gt=0)
    ] = 2.0
    redis_lease_s: Annotated[
        float,
        env(
            "NEUROGATE_REDIS_LEASE_S", "Seconds after which a dead gateway's concurrent requests are free again.", ge=1
        ),
    ] = 30.0
    redis_prefix: Annotated[str, env("NEUROGATE_REDIS_PREFIX", "First part of every name in Redis.", min_length=1)] = (
        "neurogate"
    )
    address_requests_per_minute: Annotated[
        int,
        env(
            "NEUROGATE_ADDRESS_REQUESTS_PER_MINUTE",
            "Requests a minute of one client address (IPv6: its /64); 0 is unlimited.",
            reloads=True,
            ge=0,
        ),
    ] = 0
    address_concurrent: Annotated[
        int,
        env(
            "NEUROGATE_ADDRESS_CONCURRENT",
            "Requests in flight of one client address; 0 is unlimited.",
            reloads=True,
            ge=0,
        ),
    ] = 0
    address_failures_per_minute: Annotated[
        int,
        env(
            "NEUROGATE_ADDRESS_FAILURES_PER_MINUTE",
            "Failed authentications a minute after which an address gets 429 for everything; 0 is unlimited.",
            reloads=True,
            ge=0,
        ),
    ] = 0
    max_addresses: Annotated[
        int,
        env(
            "NEUROGATE_MAX_ADDRESSES",
            "Client addresses remembered at once; the longest unseen goes first.",
            reloads=True,
            ge=1,
        ),
    ] = 65536
    trusted_proxies: Annotated[
        tuple[str, ...],
        env(
            "NEUROGATE_TRUSTED_PROXIES",
            "Comma-separated addresses or networks of proxies whose X-Forwarded-For is believed.",
            reloads=True,
        ),
    ] = ()


class AdmissionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests are in flight, and who waits."""

    max_concurrent: Annotated[
        int,
        env(
            "NEUROGATE_MAX_CONCURRENT",
            "Requests in flight at once; others queue. -1 takes what the workers' slots allow, 0 is unlimited.",
            reloads=True,
            ge=-1,
        ),
    ] = -1
    factor: Annotated[
        float,
        env(
            "NEUROGATE_ADMISSION_FACTOR",
            "Requests a worker is given for each of its slots.",
            reloads=True,
            ge=1,
            le=1000,
        ),
    ] = 2.0
    max_queue: Annotated[
        int, env("NEUROGATE_MAX_QUEUE", "Interactive requests that may wait for a turn.", reloads=True, ge=0)
    ] = 1024
    max_batch_queue: Annotated[
        int, env("NEUROGATE_MAX_BATCH_QUEUE", "Batch requests that may wait for a turn.", reloads=True, ge=0)
    ] = 1024
    queue_timeout_s: Annotated[
        float,
        env(
            "NEUROGATE_QUEUE_TIMEOUT_S",
            "Seconds an interactive request may wait for its turn; one that would wait longer gets its 503 at once.",
            reloads=True,
            gt=0,
        ),
    ] = 60.0
    batch_queue_timeout_s: Annotated[
        float,
        env("NEUROGATE_BATCH_QUEUE_TIMEOUT_S", "The same for a batch request.", reloads=True, gt=0),
    ] = 120.0
    keepalive_s: Annotated[
        float,
        env(
            "NEUROGATE_QUEUE_KEEPALIVE_S",
            "Seconds between the comments that a waiting streamed request gets; 0 sends none.",
            reloads=True,
            ge=0,
        ),
    ] = 5.0


class ModelRouteSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What clients may call models."""

    default_model: Annotated[
        str,
        env(
            "DEFAULT_MODEL", "Model of a request that names none; empty lets the worker's engine choose.", reloads=True
        ),
    ] = ""
    model_aliases: Annotated[
        tuple[str, ...],
        env("NEUROGATE_MODEL_ALIASES", "Comma-separated alias=model: other names that clients may use.", reloads=True),
    ] = ()


class TlsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Certificates that clients see, and those that clients must show."""

    cert: Annotated[str, env("NEUROGATE_TLS_CERT", "Certificate chain (PEM) of HTTPS and gRPC TLS; empty is off.")] = ""
    key: Annotated[
        str, env("NEUROGATE_TLS_KEY", "Private key (PEM) of that certificate, without a password.", secret=False)
    ] = ""
    client_ca: Annotated[
        str,
        env(
            "NEUROGATE_TLS_CLIENT_CA",
            "CA certificates (PEM) that must have signed every client's; empty asks for none.",
        ),
    ] = ""
    https_port: Annotated[
        int,
        env(
            "NEUROGATE_HTTPS_PORT",
            "Port of HTTPS beside a plain HTTP_PORT; -1 with a certificate makes HTTP_PORT itself HTTPS.",
            ge=-1,
            le=65535,
        ),
    ] = -1


class PublicGrpcSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The public gRPC listener."""

    grpc_port: Annotated[int, env("NEUROGATE_GRPC_PORT", "Public gRPC port, plain; -1 is off.", ge=-1, le=65535)] = 8002
    grpc_tls_port: Annotated[
        int,
        env(
            "NEUROGATE_GRPC_TLS_PORT",
            "Public gRPC port with TLS, opened with a certificate; -1 is off.",
            ge=-1,
            le=65535,
        ),
    ] = 8443
    grpc_max_message_bytes: Annotated[
        int, env("NEUROGATE_GRPC_MAX_MESSAGE_BYTES", "Largest gRPC message taken from a client or a worker.", ge=1024)
    ] = 26 * 1024 * 1024
    grpc_max_connections: Annotated[
        int, env("NEUROGATE_GRPC_MAX_CONNECTIONS", "Connections at once on each gRPC port; beyond it, closed.", ge=1)
    ] = 1000
    grpc_max_streams: Annotated[
        int,
        env("NEUROGATE_GRPC_MAX_STREAMS", "Calls at once on one gRPC connection; its client holds others back.", ge=1),
    ] = 1000
    grpc_max_calls: Annotated[
        int,
        env(
            "NEUROGATE_GRPC_MAX_CALLS",
            "gRPC calls at once, waiting ones included; beyond it RESOURCE_EXHAUSTED.",
            ge=1,
        ),
    ] = 4096
    grpc_max_keyless_calls: Annotated[
        int,
        env(
            "NEUROGATE_GRPC_MAX_KEYLESS_CALLS",
            "Calls at once of gRPC health and reflection, which need no key; beyond it RESOURCE_EXHAUSTED.",
            ge=1,
        ),
    ] = 64
    grpc_idle_timeout_s: Annotated[
        float, env("NEUROGATE_GRPC_IDLE_TIMEOUT_S", "Seconds a gRPC connection is kept without a call.", gt=0)
    ] = 300.0


class AccessLogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The record of who asked what."""

    access_log: Annotated[str, env("NEUROGATE_ACCESS_LOG", "File of the access log; - is standard output.")] = ""
    access_log_format: Annotated[
        Literal["text", "json"], env("NEUROGATE_ACCESS_LOG_FORMAT", "text or json (one object a line).")
    ] = "text"
    access_log_max_bytes: Annotated[
        int,
        env("NEUROGATE_ACCESS_LOG_MAX_BYTES", "Size at which the file makes room for a new one; 0 lets it grow.", ge=0),
    ] = 100 * 1024 * 1024
    access_log_keep: Annotated[
        int, env("NEUROGATE_ACCESS_LOG_KEEP", "Old files kept, FILE.1 being the newest.", ge=0, le=1000)
    ] = 5
    access_log_queue: Annotated[
        int,
        env("NEUROGATE_ACCESS_LOG_QUEUE", "Lines that may wait for the disk; more are lost, and counted.", ge=1),
    ] = 10_000
    access_log_prompts: Annotated[
        bool,
        env("NEUROGATE_ACCESS_LOG_PROMPTS", "Whether json lines have the prompt, at most its first 8192 characters."),
    ] = False

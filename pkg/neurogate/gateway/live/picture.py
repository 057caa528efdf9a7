"""The picture of a fleet at one moment: plain data, the same for the page, for `neurogate top` and for tests.

Everything in it is bounded. Nothing of a prompt or an answer is in it, and no key: ids of keys are.
"""

from __future__ import annotations

import msgspec

from neurogate.gateway.in_flight import Row

HISTORY = 60
"""Points of a history, one a second, the latest last; None where nobody looked."""

REQUESTS_MAX = 100
"""Requests in flight that a picture shows, the oldest."""

WORKERS_MAX = 256
"""Workers that a picture shows; those that need looking at come before others are left out."""

MODELS_MAX = 20
"""Models that it shows of one worker."""

Points = tuple[float | None, ...]


class WorkerNow(msgspec.Struct, frozen=True):
    """One worker, as this gateway sees it."""

    id: str
    address: str
    state: str
    """A `WorkerState`."""
    why: str
    """What is known of why; often empty."""
    breaker: str
    """closed, open or half-open."""
    failures: int
    """In a row."""
    in_flight: int
    """Requests of this gateway that it holds."""
    slots_busy: int
    slots_total: int
    """0 when it does not tell."""
    running: int
    """Requests of all gateways that its engine works on, as it last told; so are all figures below."""
    queued: int
    tokens_per_s: float
    """Completion tokens of all its requests."""
    history: Points
    """Of `tokens_per_s`."""
    kv_used: float | None
    """Share of its KV cache; None when it does not tell."""
    models: tuple[str, ...]
    models_more: int
    """How many it has beyond these."""
    engine: str
    engine_version: str
    engine_restarts: int
    version: str
    uptime_s: float
    reported_s: float | None
    """Seconds since it last told; None when it never did."""
    last_words: str
    """What its engine said when it last died, until it is ready again."""
    leaving: bool
    """It was removed, and finishes what it holds."""


class FleetNow(msgspec.Struct, frozen=True):
    """All of it together. Rates are of the last seconds, as far as somebody looked."""

    workers: int
    states: dict[str, int]
    """How many workers are in a state; only states that some are in."""
    in_flight: int
    queued: int
    """Of those in flight, how many wait for their turn."""
    requests_per_s: float
    tokens_per_s: float
    ttft_p50_s: float | None
    """Time to the first token of streams of the last minute, estimated; None without any."""
    ttft_p95_s: float | None
    requests_history: Points
    tokens_history: Points
    in_flight_history: Points


class Happening(msgspec.Struct, frozen=True):
    """Something that went another way than it should."""

    kind: str
    """retry, resume, broken (a stream that nobody continued), failure (of a request), or worker (its state)."""
    at: float
    """Unix seconds of the latest time."""
    worker: str
    """Which worker was left, or is concerned; empty for none."""
    reason: str
    request_id: str
    """The latest; empty for a worker's."""
    count: int
    """How often, one shortly after the other."""


class Picture(msgspec.Struct, frozen=True):
    """A fleet at one moment, as one gateway sees it."""

    at: float
    """Unix seconds."""
    gateway: str
    version: str
    uptime_s: float
    ready: bool
    draining: bool
    fleet: FleetNow
    workers: tuple[WorkerNow, ...]
    workers_more: int
    """How many there are beyond these."""
    requests: tuple[Row, ...]
    requests_more: int
    recent: tuple[Happening, ...]
    """The latest first."""
